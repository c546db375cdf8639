package api

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// detail is a session as one of the three types shows it.
type detail struct {
	agent    *wire.SessionDetail
	team     *wire.TeamSessionDetail
	workflow *wire.WorkflowSessionDetail
	history  json.RawMessage // what stands for chat_history
}

// spliced is a JSON document of which a large part, already JSON, is put in where
// mark stands: encoding/json would read through all of it twice.
type spliced struct {
	value any
	part  json.RawMessage
}

// mark is a text that nothing else in a document can be: a NUL is never stored.
var mark = json.RawMessage(`"\u0000"`)

// parts are the document, piece after piece.
func (s spliced) parts() ([][]byte, error) {
	data, err := wire.Marshal(s.value)
	before, after, _ := bytes.Cut(data, mark)
	return [][]byte{before, s.part, after}, err
}

// briefTypes are the types of the values that brief returns.
func briefTypes() []reflect.Type {
	return []reflect.Type{
		reflect.TypeFor[wire.SessionDetail](), reflect.TypeFor[wire.TeamSessionDetail](),
		reflect.TypeFor[wire.WorkflowSessionDetail](),
	}
}

// wholeTypes are the types of the values that whole returns.
func wholeTypes() []reflect.Type {
	return []reflect.Type{
		reflect.TypeFor[wire.Whole[wire.SessionDetail]](), reflect.TypeFor[wire.Whole[wire.TeamSessionDetail]](),
		reflect.TypeFor[wire.Whole[wire.WorkflowSessionDetail]](),
	}
}

// brief says nothing of what isn't there.
func (d detail) brief() any {
	switch {
	case d.team != nil:
		return spliced{d.team, d.history}
	case d.workflow != nil:
		return d.workflow
	}
	return spliced{d.agent, d.history}
}

// whole shows every member, as the routes do that change a session.
func (d detail) whole() any {
	switch {
	case d.team != nil:
		return spliced{wire.Whole[wire.TeamSessionDetail]{Value: *d.team}, d.history}
	case d.workflow != nil:
		return wire.Whole[wire.WorkflowSessionDetail]{Value: *d.workflow}
	}
	return spliced{wire.Whole[wire.SessionDetail]{Value: *d.agent}, d.history}
}

// withHistory reads what was said in the session. An empty seenAs is its own type.
func (s Sessions) withHistory(ctx context.Context, v store.Viewer, row store.Session, seenAs string) (detail, error) {
	if seenAs == "" {
		seenAs = row.SessionType
	}
	said, err := s.DB.Conversation(ctx, v, row.Owner, row.SessionID)
	if err != nil {
		return detail{}, err
	}
	return s.detail(row, seenAs, said), nil
}

// detail shows a session with its conversation, a JSON array of messages.
func (s Sessions) detail(row store.Session, seenAs string, history json.RawMessage) detail {
	brief := sessionOf(row)
	var metrics any
	if brief.Metrics != nil {
		metrics = brief.Metrics
	} else if row.Name != nil || row.State != nil { // AgentOS's session_data is there, and without metrics
		metrics = struct{}{}
	}
	switch seenAs {
	case "team":
		return detail{history: history, team: &wire.TeamSessionDetail{
			SessionID: brief.SessionID, SessionName: brief.SessionName, UserID: brief.UserID, TeamID: brief.TeamID, Summary: brief.Summary,
			SessionState: brief.SessionState, Metrics: metrics, Metadata: brief.Metadata, ChatHistory: mark,
			CreatedAt: brief.CreatedAt, UpdatedAt: brief.UpdatedAt, TotalTokens: brief.TotalTokens,
		}}
	case "workflow":
		empty := json.RawMessage("{}")
		w := &wire.WorkflowSessionDetail{
			UserID: brief.UserID, WorkflowID: brief.WorkflowID, SessionID: brief.SessionID, SessionName: brief.SessionName, SessionData: empty,
			SessionState: brief.SessionState, WorkflowData: empty, Metadata: brief.Metadata, CreatedAt: brief.CreatedAt, UpdatedAt: brief.UpdatedAt,
		}
		if w.Metadata == nil {
			w.Metadata = empty
		}
		return detail{workflow: w}
	}
	d := &wire.SessionDetail{
		UserID: brief.UserID, AgentSessionID: brief.SessionID, SessionID: brief.SessionID, SessionName: brief.SessionName, Summary: brief.Summary,
		SessionState: brief.SessionState, AgentID: brief.AgentID, TotalTokens: brief.TotalTokens, Metrics: metrics, Metadata: brief.Metadata,
		ChatHistory: mark, CreatedAt: brief.CreatedAt, UpdatedAt: brief.UpdatedAt,
	}
	for _, a := range s.Agents {
		if a.ID == brief.AgentID && brief.Metrics != nil {
			d.AgentData = &wire.AgentData{Name: a.Name, AgentID: a.ID, Model: wire.AgentDataModel{ID: a.Model.Model, Name: a.Model.Name, Provider: a.Model.Provider}}
		}
	}
	return detail{history: history, agent: d}
}

func sessionOf(row store.Session) wire.Session {
	s := wire.Session{
		SessionID: row.SessionID, SessionState: row.State, CreatedAt: wire.Time{Time: row.CreatedAt}, UpdatedAt: wire.Time{Time: row.UpdatedAt},
		SessionType: row.SessionType, UserID: row.Owner, SessionName: text(row.Name), AgentID: text(row.AgentID), TeamID: text(row.TeamID),
		WorkflowID: text(row.WorkflowID), Summary: row.Summary, Metadata: row.Metadata,
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

// text is a column that may be NULL.
func text(column *string) string {
	if column == nil {
		return ""
	}
	return *column
}

// storedRun is a run as lists show it.
func storedRun(run store.Run) wire.StoredRun {
	out := wire.StoredRun{
		RunID: run.RunID.String(), AgentID: run.AgentID, UserID: run.Owner, Status: run.Status, CancellationStage: run.CancellationStage,
		RunInput: run.Input, Content: run.Content, RunResponseFormat: "text", Metrics: run.Metrics, Metadata: run.Metadata, Messages: run.Messages,
		CreatedAt: wire.Time{Time: run.CreatedAt}, SessionState: run.SessionState,
		ReasoningSteps: []any{}, References: []any{}, ReasoningMessages: []any{}, Images: []any{}, Videos: []any{}, Audio: []any{}, Files: []any{},
		InputMedia: wire.InputMedia{Images: []any{}, Videos: []any{}, Audios: []any{}, Files: []any{}},
	}
	if string(run.Tools) != "[]" {
		out.Tools = run.Tools
	}
	if run.Files != nil {
		out.InputMedia.Files = run.Files
	}
	if out.SessionState == nil {
		out.SessionState = json.RawMessage("{}")
	}
	return out
}
