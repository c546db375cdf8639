package aisdk_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/door/agui"
	"github.com/keyway-agents/keyway/shared/door/aisdk"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/wire"
)

func TestMessagesOfAPageAreAConversation(t *testing.T) {
	t.Parallel()
	c, id, answers, err := aisdk.Read([]byte(`[{"role":"system","parts":[{"type":"text","text":"Obey"}]},
		{"role":"user","parts":[{"type":"text","text":"Hi"}]},
		{"role":"assistant","parts":[{"type":"step-start"},{"type":"reasoning","text":"hm"},
			{"type":"dynamic-tool","toolCallId":"1","state":"output-available","output":"42"},{"type":"text","text":"Hello"}]},
		{"role":"user","parts":[{"type":"text","text":"Read"},
			{"type":"file","mediaType":"text/plain","filename":"a.txt","url":"data:text/plain;base64,SGk="}]}]`), 9)
	history, err2 := c.History()
	files := []agui.File{{Name: "a.txt", Type: "text/plain", Content: []byte("Hi")}}
	turns := []run.Turn{{Role: "user", Content: "Hi"}, {Role: "assistant", Content: "Hello"}}
	if err != nil || err2 != nil || id != "" || answers != nil || c.Message != "Read" || !cmp.Equal(c.Files, files) ||
		!cmp.Equal(history, turns) {
		t.Errorf("%+v %+v %q %v %v %v", c, history, id, answers, err, err2)
	}
}

func TestAMessageOfTheAssistantAnswersItsQuestions(t *testing.T) {
	t.Parallel()
	_, id, answers, err := aisdk.Read([]byte(`[{"role":"assistant","metadata":{"run_id":"r"},"parts":[
		{"type":"dynamic-tool","toolCallId":"yes","state":"approval-responded","approval":{"id":"1","approved":true}},
		{"type":"tool-f","toolCallId":"no","state":"approval-responded","approval":{"id":"2","approved":false,"reason":"x"}},
		{"type":"dynamic-tool","toolCallId":"asked","state":"approval-requested","approval":{"id":"3","approved":true}},
		{"type":"dynamic-tool","toolCallId":"out","state":"output-available","output":"sunny"}]}]`), 9)
	want := run.Answers{
		"yes": {ToolCallID: "yes", Confirmed: new(true), ConfirmationNote: new("")},
		"no":  {ToolCallID: "no", Confirmed: new(false), ConfirmationNote: new("x")},
		"out": {ToolCallID: "out", Result: new("sunny")},
	}
	if diff := cmp.Diff(want, answers); diff != "" || err != nil || id != "r" {
		t.Error(id, err, diff)
	}
}

func TestErrorsNameTheMember(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`:                                "messages: is no list of 1 to 2 messages",
		`[]`:                                "messages: is no list of 1 to 2 messages",
		`[{},{},{}]`:                        "messages: is no list of 1 to 2 messages",
		`[1]`:                               "messages[0]: is no UI message",
		`[{"role":"robot","parts":[]}]`:     "messages[0].role: is none of",
		`[{"role":"assistant","parts":[]}]`: "messages: ends with a message of the assistant, and answers none",
		`[{"role":"user","parts":[{"type":"file","url":"https://x"}]}]`: "messages[0].parts[0].url: is no data URL in base64",
	} {
		_, _, _, err := aisdk.Read([]byte(text), 2)
		if fault.KindOf(err) != fault.Invalid || !strings.HasPrefix(fault.Detail(err), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// Whatever a page sends, Read returns a value or an error of the kind Invalid.
func FuzzRead(f *testing.F) {
	f.Add(`[{"role":"user","parts":[{"type":"text","text":"a"},{"type":"file","url":"data:a;base64,SGk="}]}]`)
	f.Add(`[{"role":"assistant","metadata":{"run_id":"r"},"parts":[` +
		`{"toolCallId":"a","state":"output-available","output":{}}]}]`)
	f.Fuzz(func(t *testing.T, text string) {
		if strictjson.Check([]byte(text), strictjson.Options{}) != nil {
			return
		}
		if _, _, _, err := aisdk.Read([]byte(text), 100); err != nil && fault.KindOf(err) != fault.Invalid {
			t.Error(err)
		}
	})
}

// In whatever order a run emits its events, the stream has the form that AI SDK's reader needs: it begins with start,
// a piece of text or thought follows its own start, nothing is left open, and nothing follows the end.
func TestEverySequenceOfEventsIsAStream(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e, stream := aisdk.NewEncoder(), ""
		for i := range rapid.IntRange(0, 30).Draw(t, "events") {
			stream += string(e.Event(drawEvent(t, i)))
		}
		if rapid.Bool().Draw(t, "handed over") {
			stream += string(e.HandedOver(wire.Accepted{RunID: "r\u2028"}))
		}
		if strings.ContainsAny(stream, "\r\u2028\u0085") {
			t.Fatalf("a raw line end in %q", stream)
		}
		check(t, stream)
	})
}

func check(t *rapid.T, stream string) {
	open, calls, ended := map[string]bool{}, map[string]bool{}, false
	for i, frame := range strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		if stream == "" {
			return
		}
		data, found := strings.CutPrefix(frame, "data: ")
		if data == "[DONE]" {
			if ended = true; len(open) > 0 {
				t.Fatalf("the end leaves %v open: %s", open, stream)
			}
			continue
		}
		var c map[string]any
		if err := json.Unmarshal([]byte(data), &c); err != nil || !found || ended {
			t.Fatalf("%q at %d of %s", frame, i, stream)
		}
		kind, id := fmt.Sprint(c["type"]), fmt.Sprint(c["id"])
		switch name, what, _ := strings.Cut(kind, "-"); {
		case i == 0 && kind != "start" && kind != "error", i > 0 && kind == "start":
			t.Fatalf("%s at %d of %s", kind, i, stream)
		case kind == "start-step", kind == "finish-step":
			if open["step"] == (kind == "start-step") {
				t.Fatalf("%s at %d of %s", kind, i, stream)
			}
			if delete(open, "step"); kind == "start-step" {
				open["step"] = true
			}
		case what == "start":
			open[name+id] = true
		case what == "delta" || what == "end":
			if !open[name+id] || what == "delta" && c["delta"] == nil {
				t.Fatalf("%s at %d of %s", kind, i, stream)
			}
			if what == "end" {
				delete(open, name+id)
			}
		case kind == "tool-input-available":
			if calls[fmt.Sprint(c["toolCallId"])] || c["toolName"] == nil || c["input"] == nil {
				t.Fatalf("%v at %d of %s", c, i, stream)
			}
			calls[fmt.Sprint(c["toolCallId"])] = true
		}
	}
}

func drawEvent(t *rapid.T, i int) wire.Event {
	text := func(name string) string { return rapid.SampledFrom([]string{"", "a", "b\r\n\u2028"}).Draw(t, name) }
	head := func(name string) wire.Head { return wire.Head{Event: name, RunID: "run", SessionID: "s", AgentID: "a"} }
	yes := func() *bool { return rapid.SampledFrom([]*bool{nil, new(true)}).Draw(t, "required") }
	call := wire.ToolExecution{
		ToolCallID: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "call"), ToolName: "f",
		ToolArgs: json.RawMessage(rapid.SampledFrom([]string{"", `{"a":1}`}).Draw(t, "arguments")),
		Result:   rapid.SampledFrom([]*string{nil, new("")}).Draw(t, "result"), ToolCallError: yes(),
		RequiresConfirmation: yes(), RequiresUserInput: yes(), ExternalExecutionRequired: yes(),
	}
	return rapid.SampledFrom([]wire.Event{
		wire.Started{Head: head(wire.EventRunStarted)}, wire.Started{Head: head(wire.EventModelRequestStarted)},
		wire.Content{Head: head(wire.EventRunContent), Content: text("text"), ReasoningContent: text("thought"),
			EventIndex: i},
		wire.ContentOpened{Head: head(wire.EventRunContent), ReasoningContent: text("first"), EventIndex: i},
		wire.ModelCompleted{Head: head(wire.EventModelRequestCompleted)},
		wire.ContentCompleted{Head: head(wire.EventRunContinued)},
		wire.ToolStarted{Head: head(wire.EventToolCallStarted), Tool: call},
		wire.ToolCompleted{Head: head(wire.EventToolCallCompleted), Tool: call, Content: text("sentence")},
		wire.ToolFailed{Head: head(wire.EventToolCallError), Tool: call},
		wire.Paused{Head: head(wire.EventRunPaused), Requirements: []wire.Requirement{{ToolExecution: call}}},
		wire.Completed{Head: head(wire.EventRunCompleted)}, wire.Cancelled{Head: head(wire.EventRunCancelled)},
		wire.Failed{Head: head(wire.EventRunError), Content: text("reason")}, wire.Meta{Event: "error", Error: text("error")},
	}).Draw(t, "event")
}
