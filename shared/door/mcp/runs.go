package mcp

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/wire"
)

// data is a run for programs, and for the models of clients that show them nothing else.
type data struct {
	RunID     string        `json:"run_id"`
	SessionID string        `json:"session_id,omitempty"`
	AgentID   string        `json:"agent_id,omitempty"`
	Status    string        `json:"status"` // running, paused, completed, error or cancelled
	Content   string        `json:"content,omitempty"`
	ToolCalls []pendingCall `json:"tool_calls,omitempty"`
}

// pendingCall is a call that a paused run waits for.
type pendingCall struct {
	ToolCallID string          `json:"tool_call_id"`
	Tool       string          `json:"tool"`
	Arguments  json.RawMessage `json:"arguments,omitempty"`
	// Needs says what is missing: approval, values for Fields, or a result.
	Needs  string           `json:"needs"`
	Fields []wire.UserInput `json:"fields,omitempty"`
}

// The values of pendingCall.Needs.
const (
	needsApproval = "approval"
	needsValues   = "values"
	needsResult   = "result"
)

// ResultOf converts a run to a result: the agent's answer, and the ids with which the client continues.
func ResultOf(r wire.Run) Result {
	d := data{RunID: r.RunID, SessionID: r.SessionID, AgentID: r.AgentID, Status: strings.ToLower(r.Status)}
	if r.Content != nil {
		d.Content = *r.Content
	}
	out := Result{}
	switch r.Status {
	case wire.StatusCompleted:
		out.Texts = []string{d.Content}
	case wire.StatusPaused:
		d.ToolCalls = pending(r)
		out.Texts = []string{fmt.Sprintf("The agent is paused. It waits until a person has decided about %d calls of "+
			"tools, which are below. Ask the user, and then call %s with the run_id and the decisions.",
			len(d.ToolCalls), ContinueRun)}
	case wire.StatusError:
		out.Texts, out.Failed = []string{"The run has failed: " + d.Content}, true
	case wire.StatusCancelled:
		out.Texts, out.Failed = []string{"The run was cancelled."}, true
	default:
		d.Status = "running"
		out.Texts = []string{fmt.Sprintf("The agent is still working. Call %s with the run_id for its answer.", GetRun)}
	}
	out.Data = d
	ids := d
	if r.Status == wire.StatusCompleted {
		ids.Content = "" // it is the first text
	}
	text, err := wire.Marshal(ids)
	if err == nil {
		out.Texts = append(out.Texts, string(text))
	}
	return out
}

// Cancelling is the result of a request to cancel a run.
func Cancelling(run string) Result {
	return Result{
		Texts: []string{fmt.Sprintf("The run is asked to stop. %s shows when it has.", GetRun)},
		Data:  map[string]string{"run_id": run},
	}
}

// Ended says that a run with this status has ended, or returns "" if it can still be cancelled.
func Ended(status string) string {
	switch status {
	case wire.StatusCompleted, wire.StatusError, wire.StatusCancelled:
		return fmt.Sprintf("The run has ended already, with the status %s. Nothing is cancelled.", strings.ToLower(status))
	}
	return ""
}

// pending returns the calls that a paused run waits for.
func pending(r wire.Run) (all []pendingCall) {
	var requirements []wire.Requirement
	_ = json.Unmarshal(r.Requirements, &requirements) // the store has what the run loop wrote
	for _, q := range requirements {
		t := q.ToolExecution
		p := pendingCall{ToolCallID: t.ToolCallID, Tool: t.ToolName, Arguments: t.ToolArgs}
		switch yes := func(b *bool) bool { return b != nil && *b }; {
		case yes(t.RequiresConfirmation):
			p.Needs = needsApproval
		case yes(t.RequiresUserInput):
			p.Needs = needsValues
			for _, f := range t.UserInputSchema {
				if len(f.Value) == 0 || string(f.Value) == "null" {
					p.Fields = append(p.Fields, f)
				}
			}
		case yes(t.ExternalExecutionRequired):
			p.Needs = needsResult
		default:
			continue // of an earlier pause
		}
		all = append(all, p)
	}
	return all
}

// Questions returns the forms for the calls that a paused run waits for, by the ids of the calls.
func Questions(r wire.Run) map[string]Question {
	out := map[string]Question{}
	for _, p := range pending(r) {
		q := Question{Message: fmt.Sprintf("%s wants to call %s with %s.", r.AgentName, p.Tool, shown(p.Arguments))}
		switch p.Needs {
		case needsApproval:
			q.Message += " Is that allowed?"
			q.Fields = []Field{
				{Name: "approve", Type: "boolean", Description: "Whether the call is allowed", Required: true},
				{Name: "note", Description: "Why not, for the agent"},
			}
		case needsValues:
			for _, f := range p.Fields {
				field := Field{Name: f.Name, Type: jsonType(f.FieldType), Required: true}
				if f.Description != nil {
					field.Description = *f.Description
				}
				q.Fields = append(q.Fields, field)
			}
		case needsResult:
			q.Message += " What is its result?"
			q.Fields = []Field{{Name: "result", Description: "The result of the call", Required: true}}
		}
		out[p.ToolCallID] = q
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// shown returns the arguments of a call for a person.
func shown(arguments json.RawMessage) string {
	const most = 1000
	text := string(arguments)
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// jsonType returns the JSON type of a field for a person, of which forms know three. name is Python's name.
func jsonType(name string) string {
	switch name {
	case "int":
		return "integer"
	case "float":
		return "number"
	case "bool":
		return "boolean"
	}
	return "string"
}

// Decision is what a person has decided about a call.
type Decision struct {
	Approved bool
	// Unconfirmed is whether the form has no yes to the question of an approval.
	Unconfirmed bool                       `json:",omitempty"`
	Note        string                     `json:",omitempty"`
	Values      map[string]json.RawMessage `json:",omitempty"`
	// Result is that of a call that the client executes. Required to approve one.
	Result *string `json:",omitempty"`
	// Form is whether Values are all fields of a form, and not only those that the call asks for.
	Form bool `json:"-"`
}

// Decisions converts a user's answers. open means that the user has not decided about some call.
func Decisions(answers map[string]Answer) (decided map[string]Decision, open bool) {
	decided = map[string]Decision{}
	for id, a := range answers {
		open = open || !a.Accepted && !a.Declined
		d := Decision{
			Approved: a.Accepted, Unconfirmed: string(a.Values["approve"]) != "true", Form: true,
			Values: map[string]json.RawMessage{},
		}
		if a.Accepted {
			maps.Copy(d.Values, a.Values)
			if note, ok := textOf(a.Values["note"]); ok {
				d.Note = note
			}
			if result, ok := textOf(a.Values["result"]); ok {
				d.Result = &result
			}
		}
		decided[id] = d
	}
	return decided, open || len(answers) == 0
}

// textOf returns the text of a field of a form.
func textOf(field json.RawMessage) (string, bool) {
	if len(field) == 0 {
		return "", false
	}
	return strictjson.Root(string(field)).Text()
}

// AnswersTo converts the decisions about a paused run to those of AgentOS's route. A decision about a call that the run
// doesn't wait for is an error, and so is one that doesn't fit its call.
func AnswersTo(r wire.Run, decided map[string]Decision) (map[string]wire.ToolExecution, error) {
	calls, out := pending(r), map[string]wire.ToolExecution{}
	for id, d := range decided {
		at := slices.IndexFunc(calls, func(p pendingCall) bool { return p.ToolCallID == id })
		if at < 0 && r.Status == wire.StatusPaused {
			return nil, fmt.Errorf("the run does not wait for a decision about %.100q", id)
		}
		if at < 0 {
			continue // the run isn't paused, which is the error
		}
		if err := calls[at].fits(d); err != nil {
			return nil, err
		}
		answer := wire.ToolExecution{ToolCallID: id}
		switch calls[at].Needs {
		case needsApproval:
			answer.Confirmed = new(d.Approved && !d.Unconfirmed)
			if d.Note != "" {
				answer.ConfirmationNote = &d.Note
			}
		case needsValues:
			for _, f := range calls[at].Fields {
				if value, ok := d.Values[f.Name]; ok && d.Approved {
					answer.UserInputSchema = append(answer.UserInputSchema, wire.UserInput{Name: f.Name, Value: value})
				}
			}
		case needsResult:
			if d.Approved {
				answer.Result = d.Result
			}
		}
		out[id] = answer
	}
	return out, nil
}

// fits returns what is wrong with a decision about the call.
func (p pendingCall) fits(d Decision) error {
	if p.Needs == needsResult && d.Approved && d.Result == nil {
		return fmt.Errorf("result is required: the client executes the call %.100q", p.ToolCallID)
	}
	if d.Form {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(d.Values)) {
		if !slices.ContainsFunc(p.Fields, func(f wire.UserInput) bool { return f.Name == name }) {
			return fmt.Errorf("values: the call %.100q doesn't ask for %.100q", p.ToolCallID, name)
		}
	}
	return nil
}

// RunID returns the id of the run that an event begins or continues, and "" for other events.
func RunID(e wire.Event) string {
	switch e := e.(type) {
	case wire.Started:
		return e.RunID
	case wire.ContentCompleted:
		return e.RunID
	}
	return ""
}

// Progress returns what a client shows of an event, or "". It has nothing of what is said.
func Progress(e wire.Event) string {
	switch e := e.(type) {
	case wire.ToolStarted:
		return "calls " + e.Tool.ToolName
	case wire.ToolCompleted:
		return e.Tool.ToolName + " has answered"
	}
	if e != nil && e.Name() == wire.EventModelRequestStarted {
		return "asks the model"
	}
	return ""
}
