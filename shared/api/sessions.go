package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Sessions answers what was said in which session.
type Sessions struct {
	DB        *store.DB
	Isolation Isolation
	Agents    []wire.Agent // to name a session's agent
}

func (s Sessions) handlers() map[route.Name]handler {
	return map[route.Name]handler{
		route.ListSessions:  answer(s.list),
		route.GetSession:    answer(s.get),
		route.DeleteSession: s.delete,
		route.SessionRuns:   answer(s.runs),
		route.SessionRun:    answer(s.run),
	}
}

func (s Sessions) list(ctx context.Context, r *request) (wire.Page[wire.Session], error) {
	var page wire.Page[wire.Session]
	viewer, err := s.Isolation.viewer(r)
	if err != nil {
		return page, err
	}
	in := r.query()
	q := store.SessionQuery{
		Owner: in.text("user_id", maxSubject), Type: in.choice("type", "", "agent", "team", "workflow"),
		AgentID: in.text("component_id", maxText), NameHas: in.text("session_name", maxText),
		SortBy: in.text("sort_by", maxText), Ascending: in.choice("sort_order", "desc", "asc") == "asc",
		Limit: in.integer("limit", 20, 1), Page: in.integer("page", 1, 1),
	}
	if err := in.err(); err != nil {
		return page, err
	}
	if err := oneDatabase(in); err != nil {
		return page, err
	}
	found, total, err := s.DB.Sessions(ctx, viewer, q)
	if err != nil {
		return page, err
	}
	page.Data = make([]wire.Session, len(found))
	for i, row := range found {
		page.Data[i] = sessionOf(row)
	}
	page.Meta = wire.PageMeta{Page: q.Page, Limit: q.Limit, TotalPages: (total + q.Limit - 1) / q.Limit, TotalCount: total}
	return page, nil
}

func (s Sessions) get(ctx context.Context, r *request) (wire.SessionDetail, error) {
	viewer, row, err := s.find(ctx, r)
	if err != nil {
		return wire.SessionDetail{}, err
	}
	runs, err := s.DB.Runs(ctx, viewer, store.RunQuery{Owner: row.Owner, SessionID: row.SessionID})
	if err != nil {
		return wire.SessionDetail{}, err
	}
	brief := sessionOf(row)
	d := wire.SessionDetail{
		UserID: brief.UserID, AgentSessionID: brief.SessionID, SessionID: brief.SessionID, SessionName: brief.SessionName,
		SessionState: brief.SessionState, AgentID: brief.AgentID, TotalTokens: brief.TotalTokens, Metrics: brief.Metrics,
		Metadata: brief.Metadata, ChatHistory: []wire.Message{}, CreatedAt: brief.CreatedAt, UpdatedAt: brief.UpdatedAt,
	}
	for _, a := range s.Agents {
		if a.ID == brief.AgentID {
			d.AgentData = &wire.AgentData{Name: a.Name, AgentID: a.ID, Model: wire.AgentDataModel{ID: a.Model.Model, Name: a.Model.Name, Provider: a.Model.Provider}}
		}
	}
	for _, run := range runs {
		said, err := messages(run)
		if err != nil {
			return d, err
		}
		for _, m := range said {
			if m.Role != wire.RoleSystem && m.Role != wire.RoleTool { // as AgentOS shows a conversation
				d.ChatHistory = append(d.ChatHistory, m)
			}
		}
	}
	return d, nil
}

func (s Sessions) delete(w http.ResponseWriter, r *request) error {
	viewer, err := s.Isolation.viewer(r)
	if err != nil {
		return err
	}
	in := r.query()
	owner := in.text("user_id", maxSubject)
	if err := in.err(); err != nil {
		return err
	}
	if err := oneDatabase(in); err != nil {
		return err
	}
	if err := s.DB.DeleteSession(r.Context(), viewer, r.param("session_id"), owner); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s Sessions) runs(ctx context.Context, r *request) ([]wire.BriefRun, error) {
	viewer, row, err := s.find(ctx, r)
	if err != nil {
		if fault.KindOf(err) == fault.NotFound {
			err = fault.Public(fault.NotFound, fmt.Sprintf("Session with ID %s not found", r.param("session_id")), err)
		}
		return nil, err
	}
	runs, err := s.DB.Runs(ctx, viewer, store.RunQuery{Owner: row.Owner, SessionID: row.SessionID})
	if err != nil {
		return nil, err
	}
	out := make([]wire.BriefRun, len(runs))
	for i, run := range runs {
		out[i] = wire.BriefRun(storedRun(run))
	}
	return out, nil
}

func (s Sessions) run(ctx context.Context, r *request) (wire.StoredRun, error) {
	viewer, row, err := s.find(ctx, r)
	if err != nil {
		return wire.StoredRun{}, err
	}
	run, err := s.DB.Run(ctx, viewer, store.RunQuery{Owner: row.Owner, SessionID: row.SessionID, RunID: r.param("run_id")})
	if fault.KindOf(err) == fault.NotFound {
		err = fault.Public(fault.NotFound, fmt.Sprintf("Run with ID %s not found in session %s", r.param("run_id"), row.SessionID), err)
	}
	if err != nil {
		return wire.StoredRun{}, err
	}
	return storedRun(run), nil
}

// find is the session that the path names, if the caller has it.
func (s Sessions) find(ctx context.Context, r *request) (store.Viewer, store.Session, error) {
	viewer, err := s.Isolation.viewer(r)
	if err != nil {
		return viewer, store.Session{}, err
	}
	in := r.query()
	owner := in.text("user_id", maxSubject)
	if err := in.err(); err != nil {
		return viewer, store.Session{}, err
	}
	if err := oneDatabase(in); err != nil {
		return viewer, store.Session{}, err
	}
	id := r.param("session_id")
	row, err := s.DB.Session(ctx, viewer, id, owner)
	if fault.KindOf(err) == fault.NotFound {
		err = fault.Public(fault.NotFound, fmt.Sprintf("Session with id '%s' not found", id), err)
	}
	return viewer, row, err
}

// Bounds of texts that only narrow a search, and of subjects.
const (
	maxText    = 1024
	maxSubject = 1024
)

// oneDatabase checks AgentOS's db_id and table: there is one database, and a
// table is named together with it.
func oneDatabase(in *inputs) error {
	switch id, table := in.last("db_id"), in.last("table"); {
	case id != "" && id != DatabaseID:
		return fault.Public(fault.NotFound, fmt.Sprintf("No database found with id '%s'", id), nil)
	case table != "" && id == "":
		return fault.Public(fault.Invalid, "The db_id query parameter is required when passing a table", nil)
	}
	return nil
}

func sessionOf(row store.Session) wire.Session {
	s := wire.Session{
		SessionID: row.SessionID, SessionName: row.Name, SessionState: row.State, CreatedAt: wire.Time{Time: row.CreatedAt},
		UpdatedAt: wire.Time{Time: row.UpdatedAt}, SessionType: row.SessionType, UserID: row.Owner, Metadata: row.Metadata,
	}
	if row.AgentID != nil {
		s.AgentID = *row.AgentID
	}
	if len(row.Usage) == 0 {
		return s
	}
	m := &wire.SessionMetrics{}
	for _, u := range row.Usage {
		m.Details.Model = append(m.Details.Model, wire.SessionModelMetrics{
			ID: u.ModelID, Provider: u.Family, InputTokens: u.Input, TotalTokens: u.Total, OutputTokens: u.Output,
		})
		m.InputTokens += u.Input
		m.TotalTokens += u.Total
		m.OutputTokens += u.Output
	}
	s.Metrics, s.TotalTokens = m, m.TotalTokens
	return s
}

// storedRun is a run as lists show it. What Keyway never has is null or empty,
// as AgentOS shows it.
func storedRun(run store.Run) wire.StoredRun {
	out := wire.StoredRun{
		RunID: run.RunID.String(), AgentID: run.AgentID, Status: run.Status, CancellationStage: run.CancellationStage,
		RunInput: run.Input, Content: run.Content, RunResponseFormat: "text", Metrics: run.Metrics, Messages: run.Messages,
		CreatedAt: wire.Time{Time: run.CreatedAt}, SessionState: run.SessionState,
		ReasoningSteps: []any{}, References: []any{}, ReasoningMessages: []any{}, Images: []any{}, Videos: []any{}, Audio: []any{}, Files: []any{},
		InputMedia: wire.InputMedia{Images: []any{}, Videos: []any{}, Audios: []any{}, Files: []any{}},
	}
	if run.Owner != "" {
		out.UserID = &run.Owner
	}
	if string(run.Tools) != "[]" {
		out.Tools = run.Tools
	}
	if out.SessionState == nil {
		out.SessionState = json.RawMessage("{}")
	}
	return out
}

// messages reads what was said in a run.
func messages(run store.Run) ([]wire.Message, error) {
	var out []wire.Message
	if run.Messages == nil {
		return nil, nil
	}
	if err := json.Unmarshal(run.Messages, &out); err != nil {
		return nil, fmt.Errorf("messages of run %s: %w", run.RunID, err)
	}
	return out, nil
}
