package api

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// detail is a session with its conversation, in the form of one of AgentOS's three
// session types. Exactly one of the pointers is set.
type detail struct {
	agent    *wire.SessionDetail
	team     *wire.TeamSessionDetail
	workflow *wire.WorkflowSessionDetail
	// history is the value of chat_history, a JSON array. A workflow has none.
	history json.RawMessage
}

// spliced is a JSON document with a large member that is JSON already. The document
// is encoded with placeholder in its place, and the member is inserted afterwards:
// encoding/json validates and compacts a json.RawMessage, which for a long
// conversation costs more than all the rest.
type spliced struct {
	value any
	part  json.RawMessage
}

// placeholder can't be equal to any other value of a document, because no stored text
// contains a NUL character.
var placeholder = json.RawMessage(`"\u0000"`)

// parts returns the document in three parts, to be sent one after the other. value must
// contain the placeholder once.
func (s spliced) parts() ([][]byte, error) {
	data, err := wire.Marshal(s.value)
	before, after, _ := bytes.Cut(data, placeholder)
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

// brief returns the session without its absent members, as the routes that read or
// create a session answer it.
func (d detail) brief() any {
	switch {
	case d.team != nil:
		return spliced{d.team, d.history}
	case d.workflow != nil:
		return d.workflow
	}
	return spliced{d.agent, d.history}
}

// whole returns the session with every member, null when it is absent, as the routes
// that change a session answer it. AgentOS has this difference, and its clients
// depend on it.
func (d detail) whole() any {
	switch {
	case d.team != nil:
		return spliced{wire.Whole[wire.TeamSessionDetail]{Value: *d.team}, d.history}
	case d.workflow != nil:
		return wire.Whole[wire.WorkflowSessionDetail]{Value: *d.workflow}
	}
	return spliced{wire.Whole[wire.SessionDetail]{Value: *d.agent}, d.history}
}

// withHistory reads the conversation of the session, or the part that q selects. shownAs is the
// session type of the answer; "" means the type of the row.
func (s Sessions) withHistory(
	ctx context.Context, v store.Viewer, row store.Session, shownAs string, q store.ConversationQuery,
) (detail, error) {
	if shownAs == "" {
		shownAs = row.SessionType
	}
	q.Owner, q.SessionID = row.Owner, row.SessionID
	conversation, err := s.DB.Conversation(ctx, v, q)
	if err != nil {
		return detail{}, err
	}
	return s.detail(row, shownAs, conversation), nil
}

// detail converts a row and its conversation, a JSON array of messages, to the session
// type shownAs. The differences between the three types are AgentOS's: a team session
// has no agent, a workflow session has no conversation and an empty object where the
// others leave a member out.
func (s Sessions) detail(row store.Session, shownAs string, history json.RawMessage) detail {
	brief := sessionOf(row)
	var metrics any
	if brief.Metrics != nil {
		metrics = brief.Metrics
	} else if row.Name != nil || row.State != nil {
		// AgentOS shows {} for a session that has other session data but no metrics.
		metrics = struct{}{}
	}
	switch shownAs {
	case "team":
		return detail{history: history, team: &wire.TeamSessionDetail{
			SessionID: brief.SessionID, SessionName: brief.SessionName, UserID: brief.UserID, TeamID: brief.TeamID,
			Summary: brief.Summary, SessionState: brief.SessionState, Metrics: metrics, Metadata: brief.Metadata,
			ChatHistory: placeholder, CreatedAt: brief.CreatedAt, UpdatedAt: brief.UpdatedAt,
			TotalTokens: brief.TotalTokens,
		}}
	case "workflow":
		empty := json.RawMessage("{}")
		w := &wire.WorkflowSessionDetail{
			UserID: brief.UserID, WorkflowID: brief.WorkflowID, SessionID: brief.SessionID,
			SessionName: brief.SessionName, SessionData: empty, SessionState: brief.SessionState, WorkflowData: empty,
			Metadata: brief.Metadata, CreatedAt: brief.CreatedAt, UpdatedAt: brief.UpdatedAt,
		}
		if w.Metadata == nil {
			w.Metadata = empty
		}
		return detail{workflow: w}
	}
	d := &wire.SessionDetail{
		UserID: brief.UserID, AgentSessionID: brief.SessionID, SessionID: brief.SessionID,
		SessionName: brief.SessionName, Summary: brief.Summary, SessionState: brief.SessionState,
		AgentID: brief.AgentID, TotalTokens: brief.TotalTokens, Metrics: metrics, Metadata: brief.Metadata,
		ChatHistory: placeholder, CreatedAt: brief.CreatedAt, UpdatedAt: brief.UpdatedAt,
	}
	for _, a := range s.Agents {
		if a.ID == brief.AgentID && brief.Metrics != nil {
			d.AgentData = &wire.AgentData{
				Name: a.Name, AgentID: a.ID,
				Model: wire.AgentDataModel{ID: a.Model.Model, Name: a.Model.Name, Provider: a.Model.Provider},
			}
		}
	}
	return detail{history: history, agent: d}
}

// sessionOf converts a row to the session of a list. The metrics are the sums over all
// models; a session whose runs called no model has no metrics.
func sessionOf(row store.Session) wire.Session {
	s := wire.Session{
		SessionID: row.SessionID, SessionState: row.State, CreatedAt: wire.Time{Time: row.CreatedAt},
		UpdatedAt: wire.Time{Time: row.UpdatedAt}, SessionType: row.SessionType, UserID: row.Owner,
		SessionName: text(row.Name), AgentID: text(row.AgentID), TeamID: text(row.TeamID),
		WorkflowID: text(row.WorkflowID), Summary: row.Summary, Metadata: row.Metadata,
	}
	for _, column := range row.Omitted {
		s.Omitted = append(s.Omitted, map[string]string{
			"state": "session_state", "metadata": "metadata", "summary": "session_summary",
		}[column])
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

// text returns the value of a nullable column, "" for NULL.
func text(column *string) string {
	if column == nil {
		return ""
	}
	return *column
}

// storedRunOf converts a row to the run of a list. AgentOS's members that Keyway has no
// data for are empty lists. Tools are left out when the run called none, and a missing
// session state is {}, as in AgentOS.
func storedRunOf(run store.Run) wire.StoredRun {
	out := wire.StoredRun{
		RunID: run.RunID.String(), AgentID: run.AgentID, UserID: run.Owner, Status: run.Status,
		CancellationStage: run.CancellationStage, RunInput: run.Input, Content: run.Content, RunResponseFormat: "text",
		ReasoningContent: text(run.ReasoningContent),
		Metrics:          run.Metrics, Metadata: run.Metadata, Messages: run.Messages,
		CreatedAt: wire.Time{Time: run.CreatedAt}, SessionState: run.SessionState,
		ReasoningSteps: []any{}, References: []any{}, ReasoningMessages: []any{},
		Images: []any{}, Videos: []any{}, Audio: []any{}, Files: []any{},
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
