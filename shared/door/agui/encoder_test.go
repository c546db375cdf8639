package agui_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/door/agui"
	"github.com/keyway-agents/keyway/shared/wire"
)

// event is an event of AG-UI as a client reads it.
type event = map[string]any

// read splits a stream into its events. No frame has a carriage return, which the parser of @ag-ui/client doesn't
// accept, nor anything but one line of data.
func read(t interface{ Fatalf(string, ...any) }, stream []byte) (events []event) {
	for frame := range bytes.SplitAfterSeq(stream, []byte("\n\n")) {
		if len(frame) == 0 {
			continue
		}
		data, found := bytes.CutPrefix(frame, []byte("data: "))
		var e event
		if !found || bytes.Count(frame, []byte("\n")) != 2 || bytes.ContainsAny(frame, "\r") ||
			json.Unmarshal(data, &e) != nil {
			t.Fatalf("the frame %q", frame)
		}
		events = append(events, e)
	}
	return events
}

// verifier has the rules of @ag-ui/client 1.0.0. Its names for what is open are those of the start and the end events.
type verifier struct {
	started, ended bool
	open           map[string]bool // "TEXT_MESSAGE id"
	ids            map[string]bool // of messages that were started
}

// check returns the first rule that the event breaks, or "".
func (v *verifier) check(e event) string {
	kind, _ := e["type"].(string)
	if null := nullIn(e); null != "" {
		return null + " is null"
	}
	switch {
	case v.ended:
		return "an event after the end"
	case !v.started && kind != "RUN_STARTED" && kind != "RUN_ERROR":
		return "the first event must be RUN_STARTED"
	case v.started && kind == "RUN_STARTED":
		return "a second RUN_STARTED"
	}
	v.started = true
	id, _ := e["messageId"].(string)
	if call, ok := e["toolCallId"].(string); ok && strings.HasPrefix(kind, "TOOL_CALL_") && kind != "TOOL_CALL_RESULT" {
		id = call
	}
	delta, hasDelta := e["delta"].(string)
	switch kind {
	case "RUN_STARTED":
		if e["threadId"] != "t" || e["runId"] != "r" {
			return "other ids than the client's"
		}
	case "RUN_FINISHED":
		v.ended = true
		if len(v.open) > 0 {
			return fmt.Sprintf("the run ends with %v", v.open)
		}
		outcome, _ := e["outcome"].(event)
		interrupts, _ := outcome["interrupts"].([]any)
		if e["threadId"] != "t" || e["runId"] != "r" || (outcome["type"] == "interrupt") != (len(interrupts) > 0) {
			return fmt.Sprintf("the end %v", e)
		}
	case "RUN_ERROR":
		v.ended = true
		if _, ok := e["message"].(string); !ok {
			return "an error without a message"
		}
	case "TEXT_MESSAGE_START", "REASONING_START", "REASONING_MESSAGE_START", "TOOL_CALL_START":
		name := strings.TrimSuffix(kind, "_START") + " " + id
		if id == "" || v.open[name] {
			return name + " is open"
		}
		if v.ids[name] {
			return name + " is started again"
		}
		v.open[name], v.ids[name] = true, true
	case "TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT", "TOOL_CALL_ARGS":
		name := strings.TrimSuffix(strings.TrimSuffix(kind, "_CONTENT"), "_ARGS") + " " + id
		if !v.open[name] || !hasDelta || delta == "" {
			return fmt.Sprintf("%s without a start or a delta: %v", name, e)
		}
	case "TEXT_MESSAGE_END", "REASONING_MESSAGE_END", "REASONING_END", "TOOL_CALL_END":
		name := strings.TrimSuffix(kind, "_END") + " " + id
		if !v.open[name] {
			return name + " is not open"
		}
		delete(v.open, name)
	case "TOOL_CALL_RESULT":
		if _, ok := e["content"].(string); !ok || id == "" {
			return "a result without content or id"
		}
	case "STATE_SNAPSHOT", "CUSTOM":
	default:
		return "an unknown type " + kind
	}
	return ""
}

// nullIn returns the name of a member that is null, outside of values that belong to the application.
func nullIn(v any) string {
	members, _ := v.(event)
	for name, value := range members {
		if value == nil {
			return name
		}
		if name != "snapshot" && name != "responseSchema" {
			if null := nullIn(value); null != "" {
				return null
			}
		}
	}
	return ""
}

// In whatever order a run emits its events, and wherever a stream begins and stops, a client accepts all of them.
func TestEverySequenceOfEventsIsAccepted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := agui.NewEncoder("t", "r")
		var stream []byte
		for i := range rapid.IntRange(0, 40).Draw(t, "events") {
			stream = append(stream, e.Event(drawEvent(t, i))...)
		}
		if rapid.Bool().Draw(t, "handed over") {
			stream = append(stream, e.HandedOver(wire.Accepted{})...)
		}
		v := verifier{open: map[string]bool{}, ids: map[string]bool{}}
		for _, one := range read(t, stream) {
			if broken := v.check(one); broken != "" {
				t.Fatalf("%s, at %v of\n%s", broken, one, stream)
			}
		}
		if bytes.Contains(stream, []byte("\u2028")) || bytes.Contains(stream, []byte("\u0085")) {
			t.Fatalf("a raw line end in %s", stream)
		}
	})
}

// drawEvent returns any event, with this index.
func drawEvent(t *rapid.T, i int) wire.Event {
	text := func(name string) string {
		return rapid.SampledFrom([]string{"", "a", "b\r\n\n", "data: x\u2028\u0085", `"`}).Draw(t, name)
	}
	head := func(name string) wire.Head { return wire.Head{Event: name, RunID: "run", SessionID: "s", AgentID: "a"} }
	yes := func() *bool { return rapid.SampledFrom([]*bool{nil, new(true), new(false)}).Draw(t, "required") }
	object := func(name string) json.RawMessage {
		return json.RawMessage(rapid.SampledFrom([]string{"", "null", "{}", `{"a":null}`}).Draw(t, name))
	}
	call := wire.ToolExecution{
		ToolCallID: rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "call"), ToolName: "f",
		ToolArgs:             object("arguments"),
		Result:               rapid.SampledFrom([]*string{nil, new(""), new("ok")}).Draw(t, "result"),
		RequiresConfirmation: yes(), RequiresUserInput: yes(), ExternalExecutionRequired: yes(),
		UserInputSchema: []wire.UserInput{{Name: "x", FieldType: "str"}},
	}
	state := object("state")
	return rapid.SampledFrom([]wire.Event{
		wire.Started{Head: head(wire.EventRunStarted), EventIndex: i},
		wire.Started{Head: head(wire.EventModelRequestStarted), EventIndex: i},
		wire.Content{Head: head(wire.EventRunContent), Content: text("content"), ReasoningContent: text("thought"),
			EventIndex: i},
		wire.ContentOpened{Head: head(wire.EventRunContent), ReasoningContent: text("first thought"), EventIndex: i},
		wire.ModelCompleted{Head: head(wire.EventModelRequestCompleted), Model: text("model"), EventIndex: i},
		wire.ContentCompleted{Head: head(wire.EventRunContinued), EventIndex: i},
		wire.ContentCompleted{Head: head(wire.EventRunContentCompleted), EventIndex: i},
		wire.ToolStarted{Head: head(wire.EventToolCallStarted), Tool: call, EventIndex: i},
		wire.ToolCompleted{Head: head(wire.EventToolCallCompleted), Tool: call, Content: text("result"), EventIndex: i},
		wire.ToolFailed{Head: head(wire.EventToolCallError), Tool: call, EventIndex: i},
		wire.Paused{Head: head(wire.EventRunPaused), Content: "paused", Requirements: rapid.SampledFrom(
			[][]wire.Requirement{nil, {{ToolExecution: call}}}).Draw(t, "requirements"), EventIndex: i},
		wire.Completed{Head: head(wire.EventRunCompleted), SessionState: state, EventIndex: i},
		wire.Failed{Head: head(wire.EventRunError), Content: text("reason"), ErrorType: text("type"), EventIndex: i},
		wire.Cancelled{Head: head(wire.EventRunCancelled), EventIndex: i},
		wire.Meta{Event: "error", Error: text("error")},
	}).Draw(t, "event")
}

func TestARunIsTranslated(t *testing.T) {
	t.Parallel()
	head := wire.Head{RunID: "run", SessionID: "s", AgentID: "a"}
	call := wire.ToolExecution{ToolCallID: "c", ToolName: "weather", ToolArgs: json.RawMessage(`{"city":"Rome"}`)}
	done := call
	done.Result = new("sunny")
	pay := wire.ToolExecution{ToolCallID: "p", ToolName: "pay", ToolArgs: json.RawMessage(`{"sum":1}`),
		RequiresConfirmation: new(true)}
	e := agui.NewEncoder("t", "r")
	var stream []byte
	for i, one := range []wire.Event{
		wire.Started{Head: head}, wire.Started{Head: head},
		wire.ContentOpened{Head: head, ReasoningContent: "hm", EventIndex: 2},
		wire.Content{Head: head, Content: "Let me look. ", EventIndex: 3},
		wire.ModelCompleted{Head: head, Model: "m", ModelProvider: "p", InputTokens: 3, OutputTokens: 2, TotalTokens: 5},
		wire.ToolStarted{Head: head, Tool: call}, wire.ToolCompleted{Head: head, Tool: done, EventIndex: 6},
		wire.Started{Head: head},
		wire.ModelCompleted{Head: head, Model: "m", ModelProvider: "p", InputTokens: 4, OutputTokens: 1, TotalTokens: 5},
		wire.Paused{Head: head, Requirements: []wire.Requirement{{ToolExecution: pay}}},
		wire.Completed{Head: head}, // after the end of the request
	} {
		if got := e.Event(one); i == 10 && len(got) > 0 {
			t.Errorf("after the end: %s", got)
		} else {
			stream = append(stream, got...)
		}
	}
	want := `data: {"type":"RUN_STARTED","threadId":"t","runId":"r","protocolVersion":"1.0"}
data: {"type":"CUSTOM","name":"keyway.run","value":{"run_id":"run","session_id":"s","agent_id":"a"}}
data: {"type":"REASONING_START","messageId":"run-2"}
data: {"type":"REASONING_MESSAGE_START","messageId":"run-2","role":"reasoning"}
data: {"type":"REASONING_MESSAGE_CONTENT","messageId":"run-2","delta":"hm"}
data: {"type":"REASONING_MESSAGE_END","messageId":"run-2"}
data: {"type":"REASONING_END","messageId":"run-2"}
data: {"type":"TEXT_MESSAGE_START","messageId":"run-3","role":"assistant"}
data: {"type":"TEXT_MESSAGE_CONTENT","messageId":"run-3","delta":"Let me look. "}
data: {"type":"TEXT_MESSAGE_END","messageId":"run-3"}
data: {"type":"TOOL_CALL_START","toolCallId":"c","toolCallName":"weather","parentMessageId":"run-3"}
data: {"type":"TOOL_CALL_ARGS","toolCallId":"c","delta":"{\"city\":\"Rome\"}"}
data: {"type":"TOOL_CALL_END","toolCallId":"c"}
data: {"type":"TOOL_CALL_RESULT","messageId":"run-6","toolCallId":"c","content":"sunny","role":"tool"}
data: {"type":"TOOL_CALL_START","toolCallId":"p","toolCallName":"pay"}
data: {"type":"TOOL_CALL_ARGS","toolCallId":"p","delta":"{\"sum\":1}"}
data: {"type":"TOOL_CALL_END","toolCallId":"p"}
data: {"type":"RUN_FINISHED","threadId":"t","runId":"r","outcome":{"type":"interrupt","interrupts":[` +
		`{"id":"run:p","reason":"confirmation","message":"The agent wants to call pay(sum=1). Allow it?","toolCallId":"p",` +
		`"responseSchema":{"type":"object","properties":{"approved":{"type":"boolean"},"note":{"type":"string"}},` +
		`"required":["approved"]}}]},"usage":[{"provider":"p","model":"m","inputTokens":7,"outputTokens":3,"totalTokens":10}]}
`
	if diff := cmp.Diff(want, strings.ReplaceAll(string(stream), "\n\n", "\n")); diff != "" {
		t.Error(diff)
	}
}
