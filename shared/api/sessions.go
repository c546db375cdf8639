package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Sessions answers what was said in which session.
type Sessions struct {
	DB        *store.DB
	Isolation Isolation
	Agents    []wire.Agent // to name a session's agent
	Now       func() time.Time
	NewID     func() uuid.UUID
}

func (s Sessions) endpoints() []Endpoint {
	return []Endpoint{
		answer(route.ListSessions, s.list),
		answerWith(route.CreateSession, http.StatusCreated, s.create).returning(briefTypes()...),
		done(route.DeleteSessions, s.deleteMany),
		answer(route.GetSession, s.get).returning(briefTypes()...),
		answer(route.ChangeSession, s.change).returning(wholeTypes()...),
		answer(route.RenameSession, s.rename).returning(wholeTypes()...),
		done(route.DeleteSession, s.delete),
		answer(route.SessionRuns, s.runs),
		answer(route.SessionPreviews, s.previews),
		answer(route.SessionRun, s.run),
	}
}

type listSessions struct {
	Type      string `query:"type" enum:"agent,team,workflow" doc:"Only sessions of this type."`
	Component string `query:"component_id" maxbytes:"1024" doc:"Only sessions of this agent, team or workflow."`
	User      string `query:"user_id" maxbytes:"1024" doc:"Only this user's sessions, for who may see everybody's."`
	Name      string `query:"session_name" maxbytes:"1024" doc:"Only sessions whose name has this text in it, in any case."`
	Limit     int    `query:"limit" default:"20" min:"1" max:"1000" doc:"Sessions on a page."`
	Page      int    `query:"page" default:"1" min:"1" doc:"Which page, from 1."`
	SortBy    string `query:"sort_by" default:"created_at" maxbytes:"1024" doc:"created_at, updated_at or session_id; anything else is created_at."`
	Order     string `query:"sort_order" default:"desc" enum:"asc,desc" doc:"The direction."`
	database
}

func (s Sessions) list(ctx context.Context, r *request, in listSessions) (page wire.Page[wire.Session], err error) {
	viewer, err := s.Isolation.viewerIn(r, in.database)
	if err != nil {
		return page, err
	}
	found, total, err := s.DB.Sessions(ctx, viewer, store.SessionQuery{
		Owner: in.User, Type: in.Type, Component: in.Component, NameHas: in.Name,
		SortBy: in.SortBy, Ascending: in.Order == "asc", Limit: in.Limit, Page: in.Page,
	})
	if err != nil {
		return page, err
	}
	page.Data = make([]wire.Session, len(found))
	for i, row := range found {
		page.Data[i] = sessionOf(row)
	}
	page.Meta = wire.PageOf(in.Page, in.Limit, total)
	return page, nil
}

type createSession struct {
	Type string `query:"type" default:"agent" enum:"agent,team,workflow" doc:"Whose session it is to be."`
	database
	Body *struct {
		SessionID  string       `json:"session_id" maxbytes:"255" doc:"Its id; one is made when it is absent."`
		Name       *string      `json:"session_name" doc:"Its name; without one it shows the first words said in it."`
		State      input.Object `json:"session_state" doc:"What its first run starts with."`
		Metadata   input.Object `json:"metadata" doc:"The caller's own."`
		User       *string      `json:"user_id" maxbytes:"1024" doc:"Ignored when the token names its user."`
		AgentID    *string      `json:"agent_id" maxbytes:"1024"`
		TeamID     *string      `json:"team_id" maxbytes:"1024"`
		WorkflowID *string      `json:"workflow_id" maxbytes:"1024"`
	} `body:"json"`
}

func (s Sessions) create(ctx context.Context, r *request, in createSession) (any, error) {
	row := store.Session{SessionType: in.Type, CreatedAt: pgvalue.Time(s.Now())}
	claimed := ""
	if b := in.Body; b != nil {
		row.SessionID, row.Name, row.State, row.Metadata = b.SessionID, b.Name, json.RawMessage(b.State), json.RawMessage(b.Metadata)
		switch in.Type { // the ids of other types count for nothing, as in AgentOS
		case "agent":
			row.AgentID = b.AgentID
		case "team":
			row.TeamID = b.TeamID
		case "workflow":
			row.WorkflowID = b.WorkflowID
		}
		if b.User != nil {
			claimed = *b.User
		}
	}
	var err error
	if row.Owner, err = s.Isolation.owner(r, claimed); err != nil {
		return nil, err
	}
	if err := in.database.check(); err != nil {
		return nil, err
	}
	if row.SessionID == "" {
		row.SessionID = s.NewID().String()
	}
	if in.Type == "workflow" && row.Metadata == nil { // AgentOS's workflows always have some
		row.Metadata = json.RawMessage("{}")
	}
	row.UpdatedAt = row.CreatedAt
	err = s.DB.CreateSession(ctx, row)
	if fault.KindOf(err) == fault.Conflict {
		err = fault.Public(fault.Conflict, fmt.Sprintf("Session with id '%s' already exists. Use PATCH /sessions/%[1]s to update it.", row.SessionID), err)
	}
	if err != nil {
		return nil, err
	}
	return s.detail(row, row.SessionType, json.RawMessage("[]")).brief(), nil
}

type oneSession struct {
	Type string `query:"type" enum:"agent,team,workflow" doc:"Show it as a session of this type; its own when absent."`
	User string `query:"user_id" maxbytes:"1024" doc:"Whose session, for who may see everybody's."`
	database
}

func (s Sessions) get(ctx context.Context, r *request, in oneSession) (any, error) {
	viewer, row, err := s.find(ctx, r, in.User, in.database)
	if err != nil {
		return nil, err
	}
	d, err := s.withHistory(ctx, viewer, row, in.Type)
	if err != nil {
		return nil, err
	}
	return d.brief(), nil
}

type renameSession struct {
	oneSession
	Body struct {
		Name string `json:"session_name" required:"true" embed:"true" doc:"The new name; may be empty."`
	} `body:"json"`
}

func (s Sessions) rename(ctx context.Context, r *request, in renameSession) (any, error) {
	return s.changed(ctx, r, in.oneSession, store.SessionChange{Name: &in.Body.Name})
}

type changeSession struct {
	oneSession
	Body struct {
		Name     *string      `json:"session_name" doc:"The new name."`
		State    input.Object `json:"session_state" doc:"The new state; takes the place of the old one."`
		Metadata input.Object `json:"metadata" doc:"The new metadata; takes the place of the old."`
		Summary  input.Object `json:"summary" doc:"The new summary."`
	} `body:"json"`
}

func (s Sessions) change(ctx context.Context, r *request, in changeSession) (any, error) {
	b := in.Body
	return s.changed(ctx, r, in.oneSession, store.SessionChange{
		Name: b.Name, State: json.RawMessage(b.State), Metadata: json.RawMessage(b.Metadata), Summary: json.RawMessage(b.Summary),
	})
}

// changed changes the session that the path names and shows all of it.
func (s Sessions) changed(ctx context.Context, r *request, in oneSession, c store.SessionChange) (any, error) {
	viewer, row, err := s.find(ctx, r, in.User, in.database)
	if err != nil {
		return nil, err
	}
	row, err = s.DB.ChangeSession(ctx, row, c, pgvalue.Time(s.Now()))
	if err != nil {
		return nil, notFound(err, "Session with id '%s' not found", r.param("session_id"))
	}
	d, err := s.withHistory(ctx, viewer, row, in.Type)
	if err != nil {
		return nil, err
	}
	return d.whole(), nil
}

type deleteSession struct {
	User        string `query:"user_id" maxbytes:"1024" doc:"Whose session, for who may see everybody's."`
	DeleteMedia bool   `query:"delete_media" doc:"Taken and left alone: media are part of their runs."`
	database
}

func (s Sessions) delete(ctx context.Context, r *request, in deleteSession) error {
	return s.gone(ctx, r, in, []string{r.param("session_id")})
}

type deleteSessions struct {
	deleteSession
	Body struct {
		IDs   []string `json:"session_ids" required:"true" minlen:"1" doc:"The sessions to delete."`
		Types []string `json:"session_types" required:"true" minlen:"1" enum:"agent,team,workflow" doc:"The type of each."`
	} `body:"json"`
}

func (s Sessions) deleteMany(ctx context.Context, r *request, in deleteSessions) error {
	if len(in.Body.IDs) != len(in.Body.Types) {
		return fault.Public(fault.Invalid, "Session IDs and session types must have the same length", nil)
	}
	return s.gone(ctx, r, in.deleteSession, in.Body.IDs)
}

func (s Sessions) gone(ctx context.Context, r *request, in deleteSession, ids []string) error {
	viewer, err := s.Isolation.viewerIn(r, in.database)
	if err != nil {
		return err
	}
	return s.DB.DeleteSessions(ctx, viewer, ids, in.User)
}

type sessionRuns struct {
	oneSession
	After  *int64   `query:"created_after" doc:"Only runs made at this second or later (Unix time)."`
	Before *int64   `query:"created_before" doc:"Only runs made at this second or earlier (Unix time)."`
	Status []string `query:"status" maxbytes:"1024" doc:"Only runs in one of these states."`
}

// query checks the filters. The words for a status are AgentOS's, in any case.
func (in sessionRuns) query() (store.RunQuery, error) {
	q := store.RunQuery{After: in.After, Before: in.Before, ByLength: true}
	var unknown []string
	for _, s := range in.Status {
		s = strings.ToUpper(s)
		if q.Statuses = append(q.Statuses, s); !slices.Contains(statuses, s) {
			unknown = append(unknown, s)
		}
	}
	if len(unknown) > 0 {
		return q, fault.Public(fault.Invalid, fmt.Sprintf("Invalid status value(s) %s; expected one of %s", pythonList(unknown), pythonList(statuses)), nil)
	}
	return q, nil
}

// statuses are all that AgentOS has.
var statuses = []string{"CANCELLED", "COMPLETED", "ERROR", "PAUSED", "PENDING", "REGENERATED", "RUNNING"}

func pythonList(words []string) string { return "['" + strings.Join(words, "', '") + "']" }

// found are the runs of the session that the path names.
func (s Sessions) found(ctx context.Context, r *request, in sessionRuns) ([]store.Run, error) {
	q, err := in.query()
	if err != nil {
		return nil, err
	}
	viewer, row, err := s.find(ctx, r, in.User, in.database)
	if err != nil {
		return nil, notFound(err, "Session with ID %s not found", r.param("session_id"))
	}
	q.Owner, q.SessionID = row.Owner, row.SessionID
	return s.DB.Runs(ctx, viewer, q)
}

func (s Sessions) runs(ctx context.Context, r *request, in sessionRuns) ([]wire.StoredRun, error) {
	runs, err := s.found(ctx, r, in)
	if err != nil {
		return nil, err
	}
	out := make([]wire.StoredRun, len(runs))
	for i, run := range runs {
		out[i] = storedRun(run)
	}
	return out, nil
}

func (s Sessions) previews(ctx context.Context, r *request, in sessionRuns) ([]wire.RunPreview, error) {
	runs, err := s.found(ctx, r, in)
	if err != nil {
		return nil, err
	}
	out := make([]wire.RunPreview, len(runs))
	for i, run := range runs {
		out[i] = wire.RunPreview{
			RunID: run.RunID.String(), AgentID: run.AgentID, UserID: run.Owner, Status: run.Status,
			RunInput: preview(run.Input), CreatedAt: wire.Time{Time: run.CreatedAt},
		}
		if run.Content != nil {
			out[i].ContentPreview = new(preview(*run.Content))
		}
	}
	return out, nil
}

// preview is as much of a text as AgentOS previews: 280 characters.
func preview(text string) string {
	n := 0
	for i := range text {
		if n++; n > 280 {
			return text[:i]
		}
	}
	return text
}

func (s Sessions) run(ctx context.Context, r *request, in oneSession) (wire.Whole[wire.StoredRun], error) {
	var none wire.Whole[wire.StoredRun]
	viewer, row, err := s.find(ctx, r, in.User, in.database)
	if err != nil {
		return none, notFound(err, "Session with ID %s not found", r.param("session_id"))
	}
	run, err := s.DB.Run(ctx, viewer, store.RunQuery{Owner: row.Owner, SessionID: row.SessionID, RunID: r.param("run_id"), ByLength: true})
	if err != nil {
		return none, notFound(err, "Run with ID %s not found in session %s", r.param("run_id"), row.SessionID)
	}
	return wire.Whole[wire.StoredRun]{Value: storedRun(run)}, nil
}

// find is the session that the path names, if the caller has it.
func (s Sessions) find(ctx context.Context, r *request, owner string, db database) (store.Viewer, store.Session, error) {
	viewer, err := s.Isolation.viewer(r)
	if err != nil {
		return viewer, store.Session{}, err
	}
	if err := db.check(); err != nil {
		return viewer, store.Session{}, err
	}
	id := r.param("session_id")
	row, err := s.DB.Session(ctx, viewer, id, owner)
	return viewer, row, notFound(err, "Session with id '%s' not found", id)
}

// notFound puts a fault.NotFound into AgentOS's words; another error stays.
func notFound(err error, format string, args ...any) error {
	if fault.KindOf(err) == fault.NotFound {
		return fault.Public(fault.NotFound, fmt.Sprintf(format, args...), err)
	}
	return err
}
