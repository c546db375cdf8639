package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Sessions answers the routes of sessions. A session is a conversation between a user and
// an agent. Sessions of teams and workflows can be stored and read too, because AgentOS's
// clients make them, but Keyway executes no runs in them.
type Sessions struct {
	// DB stores the sessions and their runs. Required.
	DB *store.DB
	// Isolation decides which sessions a caller sees. Defaults to all of them.
	Isolation Isolation
	// Agents are the declared agents, for the name and model of a session's agent.
	// Defaults to none: sessions are then answered without agent_data.
	Agents []wire.Agent
	// Now is the clock of created_at and updated_at. Required.
	Now func() time.Time
	// NewID makes the id of a session that is created without one. Required.
	NewID func() uuid.UUID
	// MaxAnswer is how many bytes of JSON an answer can have. A change whose answer would be
	// longer is rejected before it happens, and the answer to a change has only the last
	// part of a longer conversation. Defaults to no limit.
	MaxAnswer int
}

// answerRest is the part of MaxAnswer that the other members of a session need: ids, a name
// of an owner, and the usage of some models.
const answerRest = 64 << 10

// pageOfRuns are the parameters by which a caller reads a long session in parts. AgentOS has none.
type pageOfRuns struct {
	Limit int `query:"limit" min:"1" max:"1000" doc:"Runs on a page, at most 1,000. Defaults to all runs."`
	Page  int `query:"page" default:"1" min:"1" doc:"The number of the page, from 1: the oldest runs are on the first one. Without limit it has no effect."`
}

// endpoints implements Resource. Functions that return any declare their types with
// returning: which of the three session types they return depends on the request.
func (s Sessions) endpoints() []Endpoint {
	return []Endpoint{
		answer(route.ListSessions, s.list).returning(reflect.TypeFor[wire.Page[wire.Session]]()),
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

// listSessions is the input of GET /sessions. The maximum of limit is Keyway's; see
// listMemories.
type listSessions struct {
	Type      string `query:"type" enum:"agent,team,workflow" doc:"Filter by the type of the session."`
	Component string `query:"component_id" bound:"short_text" doc:"Filter by the id of the agent, team or workflow."`
	User      string `query:"user_id" bound:"short_text" doc:"Filter by user. Only callers allowed to see all users find sessions of other users."`
	Name      string `query:"session_name" bound:"short_text" doc:"Filter by a part of the session's name. Upper and lower case are the same."`
	Limit     int    `query:"limit" default:"20" min:"1" max:"1000" doc:"Sessions on a page, at most 1,000."`
	Page      int    `query:"page" default:"1" min:"1" doc:"The number of the page, from 1."`
	SortBy    string `query:"sort_by" default:"created_at" bound:"short_text" doc:"created_at, updated_at or session_id. Any other value means created_at."`
	Order     string `query:"sort_order" default:"desc" enum:"asc,desc" doc:"The sort direction."`
	database
}

// list answers one page of the sessions that the caller sees, without conversations. A
// page beyond the last one is empty and still has the totals.
func (s Sessions) list(ctx context.Context, r *request, in listSessions) (any, error) {
	viewer, err := s.Isolation.viewerIn(r, in.database)
	if err != nil {
		return nil, err
	}
	r.audit.Owner(in.User)
	found, total, err := s.DB.Sessions(ctx, viewer, store.SessionQuery{
		Owner: in.User, Type: in.Type, Component: in.Component, NameHas: in.Name,
		SortBy: in.SortBy, Ascending: in.Order == "asc", Limit: in.Limit, Page: in.Page,
	})
	if err != nil {
		return nil, err
	}
	sessions := func(yield func(wire.Session) bool) {
		for _, row := range found {
			if !yield(sessionOf(row)) {
				return
			}
		}
	}
	out := borrow()
	out.text = wire.AppendSessions(out.text, sessions, wire.PageOf(in.Page, in.Limit, total))
	return out, nil
}

// createSession is the input of POST /sessions. The body may be absent: then the session
// has a new id and nothing else.
type createSession struct {
	Type string `query:"type" default:"agent" enum:"agent,team,workflow" doc:"The type of the session."`
	database
	Body *struct {
		SessionID  string       `json:"session_id" bound:"new_id" newid:"true" doc:"The id of the session. Defaults to a new id."`
		Name       *string      `json:"session_name" bound:"session_name" doc:"The name of the session. Defaults to the first message of its first run."`
		State      input.Object `json:"session_state" bound:"session_state" doc:"The state that the first run starts with."`
		Metadata   input.Object `json:"metadata" bound:"metadata" doc:"A JSON object that is stored with the session."`
		User       *string      `json:"user_id" bound:"short_text" doc:"The owner of the session. Ignored when the token names its user."`
		AgentID    *string      `json:"agent_id" bound:"short_text" doc:"The agent, for a session of type agent."`
		TeamID     *string      `json:"team_id" bound:"short_text" doc:"The team, for a session of type team."`
		WorkflowID *string      `json:"workflow_id" bound:"short_text" doc:"The workflow, for a session of type workflow."`
	} `body:"json"`
}

// create stores an empty session. Session ids are unique for each owner, so the id of
// another owner's session is free. An id that the owner has used is a 409
// (fault.Conflict); AgentOS's text for it is kept.
func (s Sessions) create(ctx context.Context, r *request, in createSession) (any, error) {
	row := store.Session{SessionType: in.Type, CreatedAt: pgvalue.Time(s.Now())}
	claimed := ""
	if b := in.Body; b != nil {
		row.SessionID, row.Name = b.SessionID, b.Name
		row.State, row.Metadata = json.RawMessage(b.State), json.RawMessage(b.Metadata)
		switch in.Type { // the ids of the other types are ignored, as in AgentOS
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
	only, err := boundSession(r)
	switch {
	case err != nil:
		return nil, err
	case only != "" && row.SessionID != "" && row.SessionID != only:
		return nil, fault.Public(fault.Forbidden, "The token is bound to one session, and session_id names another one", nil)
	case only != "":
		row.SessionID = only
	case row.SessionID == "":
		row.SessionID = s.NewID().String()
	}
	if in.Type == "workflow" && row.Metadata == nil { // in AgentOS a workflow session always has metadata
		row.Metadata = json.RawMessage("{}")
	}
	r.audit.Object("session", row.SessionID)
	row.UpdatedAt = row.CreatedAt
	if size := len(text(row.Name)) + len(row.State) + len(row.Metadata); s.MaxAnswer > 0 && size > s.maxMembers() {
		return nil, s.errTooLong()
	}
	err = s.DB.CreateSession(ctx, row)
	if fault.KindOf(err) == fault.Conflict {
		detail := fmt.Sprintf("Session with id '%s' already exists. Use PATCH /sessions/%[1]s to update it.", row.SessionID)
		err = fault.Public(fault.Conflict, detail, err)
	}
	if err != nil {
		return nil, err
	}
	return s.detail(row, row.SessionType, json.RawMessage("[]")).brief(), nil
}

// oneSession is the input of the routes of one session. user_id is needed because the id
// of a session is unique for each owner only: users choose session ids, and one user's
// choice must not reveal or block another's.
type oneSession struct {
	Type string `query:"type" enum:"agent,team,workflow" doc:"The session type of the answer. Defaults to the type of the session."`
	User string `query:"user_id" bound:"short_text" doc:"The owner of the session. Only callers allowed to see all users need it, when several users have a session with this id."`
	database
}

// getSession is the input of GET /sessions/{session_id}.
type getSession struct {
	oneSession
	pageOfRuns
}

// get answers a session with its conversation: the messages of users and agents, without
// the system's and the tools'. type changes only the form of the answer, as in AgentOS,
// not what is found.
func (s Sessions) get(ctx context.Context, r *request, in getSession) (any, error) {
	viewer, row, err := s.find(ctx, r, in.User, in.database)
	if err != nil {
		return nil, err
	}
	d, err := s.withHistory(ctx, viewer, row, in.Type, store.ConversationQuery{Limit: in.Limit, Page: in.Page})
	if err != nil {
		return nil, err
	}
	return d.brief(), nil
}

// renameSession is the input of POST /sessions/{session_id}/rename. embed makes the errors
// of its only member FastAPI's: a missing body is answered like a missing name.
type renameSession struct {
	oneSession
	Body struct {
		Name string `json:"session_name" required:"true" embed:"true" bound:"session_name" doc:"The new name. It may be empty."`
	} `body:"json"`
}

// rename changes the name of a session.
func (s Sessions) rename(ctx context.Context, r *request, in renameSession) (any, error) {
	return s.changed(ctx, r, in.oneSession, store.SessionChange{Name: &in.Body.Name})
}

// changeSession is the input of PATCH /sessions/{session_id}.
type changeSession struct {
	oneSession
	Body struct {
		Name     *string      `json:"session_name" bound:"session_name" doc:"The new name."`
		State    input.Object `json:"session_state" bound:"session_state" doc:"The new state. It replaces the whole state."`
		Metadata input.Object `json:"metadata" bound:"metadata" doc:"The new metadata. They replace all metadata."`
		Summary  input.Object `json:"summary" bound:"summary" doc:"The new summary."`
	} `body:"json"`
}

// change replaces the members that the request has. Absent members and null change
// nothing.
func (s Sessions) change(ctx context.Context, r *request, in changeSession) (any, error) {
	b := in.Body
	return s.changed(ctx, r, in.oneSession, store.SessionChange{
		Name: b.Name, State: json.RawMessage(b.State), Metadata: json.RawMessage(b.Metadata),
		Summary: json.RawMessage(b.Summary),
	})
}

// changed finds the session of the path, changes it, and answers it with every member. A
// session that is deleted between the two statements is a 404.
//
// The answer must not be an error when the change happened. So the length of the
// answer is limited before: see MaxAnswer.
func (s Sessions) changed(ctx context.Context, r *request, in oneSession, c store.SessionChange) (any, error) {
	viewer, row, err := s.find(ctx, r, in.User, in.database)
	if err != nil {
		return nil, err
	}
	if c.MaxState = r.bounds.Of(bound.SessionState); s.MaxAnswer > 0 {
		c.MaxBytes = s.maxMembers()
	}
	row, err = s.DB.ChangeSession(ctx, row, c, pgvalue.Time(s.Now()))
	switch {
	case fault.KindOf(err) == fault.TooLarge:
		return nil, s.errTooLong()
	case err != nil:
		return nil, notFound(err, "Session with id '%s' not found", r.param("session_id"))
	}
	var q store.ConversationQuery
	if s.MaxAnswer > 0 {
		q.MaxBytes = s.MaxAnswer - answerRest - len(text(row.Name)) - len(row.State) - len(row.Metadata) - len(row.Summary)
	}
	d, err := s.withHistory(ctx, viewer, row, in.Type, q)
	if err != nil {
		return nil, err
	}
	return d.whole(), nil
}

// maxMembers is how long the members of a session that its caller chooses may be together, in
// bytes, so that the session fits into an answer. It leaves a part for the conversation.
func (s Sessions) maxMembers() int { return s.MaxAnswer - answerRest - s.MaxAnswer/8 }

// errTooLong rejects a change that could not be answered.
func (s Sessions) errTooLong() error {
	const text = "Nothing was changed: session_name, session_state, metadata and summary would have more than %d bytes " +
		"together, which is too much for an answer; make them shorter with PATCH /sessions/{session_id}"
	return fault.Public(fault.TooLarge, fmt.Sprintf(text, s.maxMembers()), nil)
}

// deleteSession is the input of DELETE /sessions/{session_id}.
type deleteSession struct {
	User        string `query:"user_id" bound:"short_text" doc:"The owner of the sessions. Only callers allowed to see all users need it, when several users have a session with this id."`
	DeleteMedia bool   `query:"delete_media" doc:"Accepted, and without effect: media are deleted with their runs."`
	database
}

// delete removes a session with its runs. An unknown id is a success, as in AgentOS.
func (s Sessions) delete(ctx context.Context, r *request, in deleteSession) error {
	return s.remove(ctx, r, in, []string{r.param("session_id")})
}

// deleteSessions is the input of DELETE /sessions. AgentOS requires the types; Keyway
// checks them, and finds the sessions by their ids alone.
type deleteSessions struct {
	deleteSession
	Body struct {
		IDs   []string `json:"session_ids" required:"true" minlen:"1" bound:"elements" each:"short_text" doc:"The ids of the sessions to delete."`
		Types []string `json:"session_types" required:"true" minlen:"1" bound:"elements" enum:"agent,team,workflow" doc:"The type of each session, in the same order."`
	} `body:"json"`
}

// deleteMany removes several sessions: all of them, or none when an id is ambiguous or
// the database fails. Unknown ids are ignored.
func (s Sessions) deleteMany(ctx context.Context, r *request, in deleteSessions) error {
	if len(in.Body.IDs) != len(in.Body.Types) {
		return fault.Public(fault.Invalid, "Session IDs and session types must have the same length", nil)
	}
	return s.remove(ctx, r, in.deleteSession, in.Body.IDs)
}

// remove deletes the sessions with these ids that the caller sees, with their runs.
func (s Sessions) remove(ctx context.Context, r *request, in deleteSession, ids []string) error {
	viewer, err := s.Isolation.viewerIn(r, in.database)
	if err != nil {
		return err
	}
	r.audit.Object("session", ids...)
	owners, err := s.DB.DeleteSessions(ctx, viewer, ids, in.User)
	for _, name := range owners {
		r.audit.Owner(name)
	}
	return err
}

// sessionRuns is the input of the two routes that list the runs of a session.
type sessionRuns struct {
	oneSession
	pageOfRuns
	After  *int64   `query:"created_after" doc:"Filter by creation time: at this second or later (Unix time)."`
	Before *int64   `query:"created_before" doc:"Filter by creation time: at this second or earlier (Unix time)."`
	Status []string `query:"status" bound:"filters" each:"short_text" doc:"Filter by status: one of these."`
}

// query checks the filters. It accepts AgentOS's statuses in upper or lower case; an
// unknown one is fault.Invalid with AgentOS's text, which has a Python list.
func (in sessionRuns) query() (store.RunQuery, error) {
	q := store.RunQuery{After: in.After, Before: in.Before, ByLength: true, Limit: in.Limit, Page: in.Page}
	var unknown []string
	for _, s := range in.Status {
		s = strings.ToUpper(s)
		if q.Statuses = append(q.Statuses, s); !slices.Contains(statuses, s) {
			unknown = append(unknown, s)
		}
	}
	if len(unknown) > 0 {
		detail := fmt.Sprintf("Invalid status value(s) %s; expected one of %s", pythonList(unknown), pythonList(statuses))
		return q, fault.Public(fault.Invalid, detail, nil)
	}
	return q, nil
}

// statuses are AgentOS's run statuses. No run of Keyway is REGENERATED.
var statuses = []string{"CANCELLED", "COMPLETED", "ERROR", "PAUSED", "PENDING", "REGENERATED", "RUNNING"}

// pythonList formats texts as Python prints a list of strings, for AgentOS's error texts.
func pythonList(words []string) string { return "['" + strings.Join(words, "', '") + "']" }

// findRuns returns the runs of the session in the path, oldest first. The texts of its
// 404 and of find's differ in AgentOS too.
//
// Without a filter by status and without pages it leaves out runs that are being streamed, as AgentOS does. A
// session that such a run has made is a 404 then. agent-ui relies on it: it asks for the runs
// when the first event of a new session arrives, and would replace the text that it streams.
func (s Sessions) findRuns(ctx context.Context, r *request, in sessionRuns) ([]store.Run, error) {
	q, err := in.query()
	if err != nil {
		return nil, err
	}
	viewer, row, err := s.find(ctx, r, in.User, in.database)
	if err != nil {
		return nil, notFound(err, "Session with ID %s not found", r.param("session_id"))
	}
	// The owner of the row, not of the request: an administrator may not have named one.
	q.Owner, q.SessionID = row.Owner, row.SessionID
	q.Unstreamed = len(q.Statuses) == 0 && q.Limit == 0
	runs, err := s.DB.Runs(ctx, viewer, q)
	if err != nil || len(runs) > 0 || !q.Unstreamed || q.After != nil || q.Before != nil {
		return runs, err
	}
	// If there is a run, it is left out. BeginRun gives a session that it makes the run's time.
	first, err := s.DB.Runs(ctx, viewer, store.RunQuery{Owner: q.Owner, SessionID: q.SessionID, Limit: 1, Page: 1})
	if err == nil && len(first) > 0 && first[0].CreatedAt.Equal(row.CreatedAt) {
		err = notFound(fault.NotFound, "Session with ID %s not found", row.SessionID)
	}
	return nil, err
}

// runs answers the runs of a session with all of their members.
func (s Sessions) runs(ctx context.Context, r *request, in sessionRuns) ([]wire.StoredRun, error) {
	runs, err := s.findRuns(ctx, r, in)
	if err != nil {
		return nil, err
	}
	out := make([]wire.StoredRun, len(runs))
	for i, run := range runs {
		out[i] = storedRunOf(run)
	}
	return out, nil
}

// previews answers the runs of a session with the first characters of each text.
func (s Sessions) previews(ctx context.Context, r *request, in sessionRuns) ([]wire.RunPreview, error) {
	runs, err := s.findRuns(ctx, r, in)
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

// preview returns the first 280 characters of a text, as AgentOS does.
func preview(text string) string {
	n := 0
	for i := range text { // over characters, so that none is cut in two
		if n++; n > 280 {
			return text[:i]
		}
	}
	return text
}

// run answers one run of a session.
func (s Sessions) run(ctx context.Context, r *request, in oneSession) (wire.Whole[wire.StoredRun], error) {
	var none wire.Whole[wire.StoredRun]
	viewer, row, err := s.find(ctx, r, in.User, in.database)
	if err != nil {
		return none, notFound(err, "Session with ID %s not found", r.param("session_id"))
	}
	q := store.RunQuery{Owner: row.Owner, SessionID: row.SessionID, RunID: r.param("run_id"), ByLength: true}
	run, err := s.DB.Run(ctx, viewer, q)
	if err != nil {
		return none, notFound(err, "Run with ID %s not found in session %s", r.param("run_id"), row.SessionID)
	}
	return wire.Whole[wire.StoredRun]{Value: storedRunOf(run)}, nil
}

// find returns the viewer and the session in the path. It is fault.NotFound when the
// viewer can't see the session, and fault.Conflict when several users have a session
// with this id and owner doesn't say which.
func (s Sessions) find(
	ctx context.Context, r *request, owner string, db database,
) (store.Viewer, store.Session, error) {
	viewer, err := s.Isolation.viewer(r)
	if err != nil {
		return viewer, store.Session{}, err
	}
	if err := db.check(); err != nil {
		return viewer, store.Session{}, err
	}
	id := r.param("session_id")
	row, err := s.DB.Session(ctx, viewer, id, owner)
	r.audit.Owner(row.Owner)
	return viewer, row, notFound(err, "Session with id '%s' not found", id)
}

// notFound gives a fault.NotFound the text that AgentOS has for it. It returns any other
// error unchanged.
func notFound(err error, format string, args ...any) error {
	if fault.KindOf(err) == fault.NotFound {
		return fault.Public(fault.NotFound, fmt.Sprintf(format, args...), err)
	}
	return err
}
