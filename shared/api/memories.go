package api

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Memories answers what is remembered of whom.
type Memories struct {
	DB        *store.DB
	Isolation Isolation
	Now       func() time.Time
	NewID     func() uuid.UUID
}

func (m Memories) endpoints() []Endpoint {
	return []Endpoint{
		answer(route.ListMemories, m.list),
		answer(route.CreateMemory, m.create),
		done(route.DeleteMemories, m.deleteMany),
		answer(route.GetMemory, m.get),
		answer(route.ChangeMemory, m.change),
		done(route.DeleteMemory, m.delete),
		answer(route.MemoryTopics, m.topics),
		answer(route.MemoryStats, m.stats),
	}
}

type listMemories struct {
	User    string   `query:"user_id" maxbytes:"1024" doc:"Only this user's memories, for who may see everybody's."`
	AgentID string   `query:"agent_id" maxbytes:"1024" doc:"Only memories that this agent wrote."`
	TeamID  string   `query:"team_id" maxbytes:"1024" doc:"Only memories that this team wrote."`
	Has     string   `query:"search_content" maxbytes:"1024" doc:"Only memories that have this text in them, in any case."`
	Limit   int      `query:"limit" default:"20" min:"1" max:"1000" doc:"Memories on a page."`
	Page    int      `query:"page" default:"1" min:"1" doc:"Which page, from 1."`
	SortBy  string   `query:"sort_by" default:"updated_at" maxbytes:"1024" doc:"updated_at or created_at; anything else is updated_at."`
	Order   string   `query:"sort_order" default:"desc" enum:"asc,desc" doc:"The direction."`
	Topics  []string `query:"topics" maxbytes:"1024" doc:"Only memories with all of these topics; commas separate too."`
	database
}

func (m Memories) list(ctx context.Context, r *request, in listMemories) (page wire.Page[wire.Memory], err error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return page, err
	}
	var topics []string
	for _, t := range in.Topics {
		for topic := range strings.SplitSeq(t, ",") {
			if topic = strings.TrimSpace(topic); topic != "" {
				topics = append(topics, topic)
			}
		}
	}
	found, total, err := m.DB.Memories(ctx, viewer, store.MemoryQuery{
		Owner: in.User, AgentID: in.AgentID, TeamID: in.TeamID, Has: in.Has, Topics: topics,
		SortBy: in.SortBy, Ascending: in.Order == "asc", Limit: in.Limit, Page: in.Page,
	})
	if err != nil {
		return page, err
	}
	page.Data = make([]wire.Memory, len(found))
	for i, row := range found {
		page.Data[i] = memoryOf(row)
	}
	page.Meta = wire.PageOf(in.Page, in.Limit, total)
	return page, nil
}

// memoryText is what a caller writes of a memory; its bounds are AgentOS's.
type memoryText struct {
	Memory string   `json:"memory" required:"true" minlen:"1" maxlen:"5000" doc:"What to remember."`
	User   string   `json:"user_id" maxbytes:"1024" doc:"Of whom, for an administrator; the token's subject when absent."`
	Topics []string `json:"topics" maxbytes:"1024" doc:"What it is about."`
}

type createMemory struct {
	database
	Body memoryText `body:"json"`
}

// create writes a memory of the caller. Only an administrator may write one of
// somebody else.
func (m Memories) create(ctx context.Context, r *request, in createMemory) (wire.Memory, error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return wire.Memory{}, err
	}
	owner := in.Body.User
	if !viewer.All {
		owner = viewer.Owner
	} else if owner == "" {
		if owner, err = m.Isolation.name(r.principal); err != nil {
			return wire.Memory{}, err
		}
	}
	if owner == "" {
		return wire.Memory{}, fault.Public(fault.Invalid, "User ID is required", nil)
	}
	now := pgvalue.Time(m.Now())
	row := store.Memory{MemoryID: m.NewID(), Owner: owner, Memory: in.Body.Memory, Topics: in.Body.Topics, CreatedAt: now, UpdatedAt: now}
	if row.Topics == nil {
		row.Topics = []string{}
	}
	return memoryOf(row), m.DB.AddMemory(ctx, row)
}

type oneMemory struct {
	User string `query:"user_id" maxbytes:"1024" doc:"Whose memory, for who may see everybody's."`
	database
}

func (m Memories) get(ctx context.Context, r *request, in oneMemory) (wire.Memory, error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return wire.Memory{}, err
	}
	row, err := m.DB.Memory(ctx, viewer, r.param("memory_id"), in.User)
	if err != nil {
		return wire.Memory{}, notFound(err, "Memory with ID %s not found", r.param("memory_id"))
	}
	return memoryOf(row), nil
}

// change rewrites a memory; who it is of stays, and so do topics that aren't sent.
func (m Memories) change(ctx context.Context, r *request, in createMemory) (wire.Memory, error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return wire.Memory{}, err
	}
	row, err := m.DB.ChangeMemory(ctx, viewer, r.param("memory_id"), in.Body.Memory, in.Body.Topics, pgvalue.Time(m.Now()))
	if err != nil {
		return wire.Memory{}, notFound(err, "Memory not found")
	}
	return memoryOf(row), nil
}

func (m Memories) delete(ctx context.Context, r *request, in oneMemory) error {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return err
	}
	return m.DB.DeleteMemories(ctx, viewer, []string{r.param("memory_id")}, in.User)
}

type deleteMemories struct {
	database
	Body struct {
		IDs  []string `json:"memory_ids" required:"true" minlen:"1" doc:"The memories to delete."`
		User string   `json:"user_id" maxbytes:"1024" doc:"Whose memories, for who may see everybody's."`
	} `body:"json"`
}

func (m Memories) deleteMany(ctx context.Context, r *request, in deleteMemories) error {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return err
	}
	return m.DB.DeleteMemories(ctx, viewer, in.Body.IDs, in.Body.User)
}

func (m Memories) topics(ctx context.Context, r *request, in oneMemory) ([]string, error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return nil, err
	}
	topics, err := m.DB.MemoryTopics(ctx, viewer, in.User)
	if topics == nil {
		topics = []string{}
	}
	return topics, err
}

type memoryStats struct {
	Limit int    `query:"limit" default:"20" min:"1" max:"1000" doc:"Users on a page."`
	Page  int    `query:"page" default:"1" min:"1" doc:"Which page, from 1."`
	User  string `query:"user_id" maxbytes:"1024" doc:"Only this user, for who may see everybody's."`
	database
}

func (m Memories) stats(ctx context.Context, r *request, in memoryStats) (page wire.Page[wire.MemoryStats], err error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return page, err
	}
	found, total, err := m.DB.MemoryStats(ctx, viewer, store.MemoryQuery{Owner: in.User, Limit: in.Limit, Page: in.Page})
	if err != nil {
		return page, err
	}
	page.Data = make([]wire.MemoryStats, len(found))
	for i, row := range found {
		page.Data[i] = wire.MemoryStats{UserID: row.Owner, TotalMemories: row.Total, LastMemoryUpdatedAt: wire.Time{Time: row.LastUpdated}}
	}
	page.Meta = wire.PageOf(in.Page, in.Limit, total)
	return page, nil
}

func memoryOf(row store.Memory) wire.Memory {
	return wire.Memory{
		MemoryID: row.MemoryID.String(), Memory: row.Memory, Topics: row.Topics, AgentID: row.AgentID, TeamID: row.TeamID,
		UserID: row.Owner, UpdatedAt: wire.Time{Time: row.UpdatedAt},
	}
}
