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

// Memories answers the routes of user memories: short facts about a user, written by
// callers or by agents.
type Memories struct {
	// DB stores the memories. Required.
	DB *store.DB
	// Isolation decides which memories a caller sees. Defaults to all of them.
	Isolation Isolation
	// Now is the clock of created_at and updated_at. Required.
	Now func() time.Time
	// NewID makes the id of a new memory. Required.
	NewID func() uuid.UUID
}

// endpoints implements Resource. POST /optimize-memories is missing here: it calls a model
// and belongs to Runs.
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

// listMemories is the input of GET /memories. AgentOS has no maximum for limit. Keyway has
// one, which keeps one request from reading a whole table. In SQL the offset is page times
// limit. Package input reads page as a 32-bit integer, so the product fits into 64 bits.
type listMemories struct {
	User    string   `query:"user_id" bound:"short_text" doc:"Filter by user. Only callers allowed to see all users find memories of other users."`
	AgentID string   `query:"agent_id" bound:"short_text" doc:"Filter by the agent that wrote the memory."`
	TeamID  string   `query:"team_id" bound:"short_text" doc:"Filter by the team that wrote the memory."`
	Has     string   `query:"search_content" bound:"short_text" doc:"Filter by a part of the memory's text. Upper and lower case are the same."`
	Limit   int      `query:"limit" default:"20" min:"1" max:"1000" doc:"Memories on a page, at most 1,000."`
	Page    int      `query:"page" default:"1" min:"1" doc:"The number of the page, from 1."`
	SortBy  string   `query:"sort_by" default:"updated_at" bound:"short_text" doc:"updated_at or created_at. Any other value means updated_at."`
	Order   string   `query:"sort_order" default:"desc" enum:"asc,desc" doc:"The sort direction."`
	Topics  []string `query:"topics" bound:"filters" each:"short_text" doc:"Filter by topics: a memory must have all of them. One value may list several, separated by commas."`
	database
}

// list answers one page of the memories that the caller sees. A page beyond the last one
// is empty and still has the totals.
func (m Memories) list(ctx context.Context, r *request, in listMemories) (page wire.Page[wire.Memory], err error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return page, err
	}
	// The parameter may be repeated, and one value may list several topics. Empty ones are
	// ignored, so that topics= filters nothing.
	var topics []string
	for _, t := range in.Topics {
		for topic := range strings.SplitSeq(t, ",") {
			if topic = strings.TrimSpace(topic); topic != "" {
				topics = append(topics, topic)
			}
		}
	}
	r.audit.Owner(in.User)
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

// memoryText is the body of the routes that write a memory. Its bounds are AgentOS's.
type memoryText struct {
	Memory string   `json:"memory" required:"true" minlen:"1" maxlen:"5000" doc:"The text of the memory."`
	User   string   `json:"user_id" bound:"short_text" doc:"The user that the memory is about. Only callers allowed to see all users can name another one. Defaults to the token's subject."`
	Topics []string `json:"topics" bound:"topics" each:"topic" doc:"The topics of the memory."`
}

// createMemory is the input of POST /memories and of PATCH /memories/{memory_id}.
type createMemory struct {
	database
	Body memoryText `body:"json"`
}

// create stores a memory of the caller. Only a caller that sees all users can store one
// of another user; the user_id of other callers is ignored. AgentOS requires user_id
// even when the token has a subject; Keyway doesn't.
func (m Memories) create(ctx context.Context, r *request, in createMemory) (wire.Memory, error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return wire.Memory{}, err
	}
	// A caller limited to its own rows may send user_id, because AgentOS requires it. It is
	// ignored rather than rejected.
	owner := in.Body.User
	if !viewer.All {
		owner = viewer.Owner
	} else if owner == "" {
		if owner, err = m.Isolation.ownerOf(r.principal); err != nil {
			return wire.Memory{}, err
		}
	}
	if owner == "" {
		return wire.Memory{}, fault.Public(fault.Invalid, "User ID is required", nil)
	}
	now := pgvalue.Time(m.Now())
	row := store.Memory{
		MemoryID: m.NewID(), Owner: owner, Memory: in.Body.Memory, Topics: in.Body.Topics, CreatedAt: now, UpdatedAt: now,
	}
	r.audit.Object("memory", row.MemoryID.String())
	r.audit.Owner(owner)
	if row.Topics == nil {
		row.Topics = []string{}
	}
	return memoryOf(row), m.DB.AddMemory(ctx, row)
}

// oneMemory is the input of the routes of one memory.
type oneMemory struct {
	User string `query:"user_id" bound:"short_text" doc:"Filter by user. Only callers allowed to see all users find memories of other users."`
	database
}

// get answers one memory. A memory of another owner is a 404, like an unknown id.
func (m Memories) get(ctx context.Context, r *request, in oneMemory) (wire.Memory, error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return wire.Memory{}, err
	}
	row, err := m.DB.Memory(ctx, viewer, r.param("memory_id"), in.User)
	r.audit.Owner(row.Owner)
	if err != nil {
		return wire.Memory{}, notFound(err, "Memory with ID %s not found", r.param("memory_id"))
	}
	return memoryOf(row), nil
}

// change replaces the text of a memory, and its topics when the request has any. The
// owner never changes. Unlike AgentOS, it doesn't create a memory for an unknown id.
func (m Memories) change(ctx context.Context, r *request, in createMemory) (wire.Memory, error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return wire.Memory{}, err
	}
	now := pgvalue.Time(m.Now())
	row, err := m.DB.ChangeMemory(ctx, viewer, r.param("memory_id"), in.Body.Memory, in.Body.Topics, now)
	r.audit.Owner(row.Owner)
	if err != nil {
		return wire.Memory{}, notFound(err, "Memory not found")
	}
	return memoryOf(row), nil
}

// delete removes one memory. An unknown id is a success, as in AgentOS.
func (m Memories) delete(ctx context.Context, r *request, in oneMemory) error {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return err
	}
	return m.remove(ctx, r, viewer, []string{r.param("memory_id")}, in.User)
}

// deleteMemories is the input of DELETE /memories.
type deleteMemories struct {
	database
	Body struct {
		IDs  []string `json:"memory_ids" required:"true" minlen:"1" bound:"elements" each:"short_text" doc:"The ids of the memories to delete."`
		User string   `json:"user_id" bound:"short_text" doc:"Filter by user. Only callers allowed to see all users delete memories of other users."`
	} `body:"json"`
}

// deleteMany removes several memories in one statement: all of them, or none when the
// database fails. Unknown ids and ids of other owners are ignored.
func (m Memories) deleteMany(ctx context.Context, r *request, in deleteMemories) error {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return err
	}
	return m.remove(ctx, r, viewer, in.Body.IDs, in.Body.User)
}

// remove deletes the memories with these ids that the viewer sees.
func (m Memories) remove(ctx context.Context, r *request, viewer store.Viewer, ids []string, user string) error {
	r.audit.Object("memory", ids...)
	owners, err := m.DB.DeleteMemories(ctx, viewer, ids, user)
	for _, name := range owners {
		r.audit.Owner(name)
	}
	return err
}

// memoryTopics is the input of GET /memory_topics. In AgentOS the list has no pages.
type memoryTopics struct {
	oneMemory
	Limit int `query:"limit" min:"1" max:"1000" doc:"Topics on a page, at most 1,000. Defaults to all topics."`
	Page  int `query:"page" default:"1" min:"1" doc:"The number of the page, from 1. Without limit it has no effect."`
}

// topics answers the topics of all memories that the caller sees, each once.
func (m Memories) topics(ctx context.Context, r *request, in memoryTopics) ([]string, error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return nil, err
	}
	r.audit.Owner(in.User)
	topics, err := m.DB.MemoryTopics(ctx, viewer, in.User, in.Limit, in.Page)
	if topics == nil {
		topics = []string{}
	}
	return topics, err
}

// memoryStats is the input of GET /user_memory_stats.
type memoryStats struct {
	Limit int    `query:"limit" default:"20" min:"1" max:"1000" doc:"Users on a page, at most 1,000."`
	Page  int    `query:"page" default:"1" min:"1" doc:"The number of the page, from 1."`
	User  string `query:"user_id" bound:"short_text" doc:"Filter by user. Only callers allowed to see all users find other users."`
	database
}

// stats answers how many memories each user has, for the users that the caller sees.
func (m Memories) stats(
	ctx context.Context, r *request, in memoryStats,
) (page wire.Page[wire.MemoryStats], err error) {
	viewer, err := m.Isolation.viewerIn(r, in.database)
	if err != nil {
		return page, err
	}
	r.audit.Owner(in.User)
	q := store.MemoryQuery{Owner: in.User, Limit: in.Limit, Page: in.Page}
	found, total, err := m.DB.MemoryStats(ctx, viewer, q)
	if err != nil {
		return page, err
	}
	page.Data = make([]wire.MemoryStats, len(found))
	for i, row := range found {
		page.Data[i] = wire.MemoryStats{
			UserID: row.Owner, TotalMemories: row.Total, LastMemoryUpdatedAt: wire.Time{Time: row.LastUpdated},
		}
	}
	page.Meta = wire.PageOf(in.Page, in.Limit, total)
	return page, nil
}

// memoryOf converts a row. agent_id and team_id are null for a memory that a caller wrote.
func memoryOf(row store.Memory) wire.Memory {
	return wire.Memory{
		MemoryID: row.MemoryID.String(), Memory: row.Memory, Topics: row.Topics, AgentID: row.AgentID, TeamID: row.TeamID,
		UserID: row.Owner, UpdatedAt: wire.Time{Time: row.UpdatedAt},
	}
}
