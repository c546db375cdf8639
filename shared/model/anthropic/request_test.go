package anthropic_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/anthropic"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// requestBody returns the body of the request that the model sends for r.
func requestBody(t *testing.T, r model.Request, change func(*anthropic.Options)) map[string]any {
	t.Helper()
	srv := modeltest.NewServer(t, modeltest.Text("done"))
	o := optionsFor(t, srv)
	if change != nil {
		change(&o)
	}
	if a := modeltest.Collect(t.Context(), t, anthropic.New(o), r); a.Err != nil {
		t.Fatal(a.Err)
	}
	return srv.Requests()[0].Body
}

type object = map[string]any

func text(s string) object { return object{"type": "text", "text": s} }

func use(id, name string, input object) object {
	return object{"type": "tool_use", "id": id, "name": name, "input": input}
}

func result(id string, content ...any) object {
	if content == nil {
		return object{"type": "tool_result", "tool_use_id": id}
	}
	return object{"type": "tool_result", "tool_use_id": id, "content": content}
}

func turn(role string, content ...any) object { return object{"role": role, "content": content} }

func TestARequestHasTheWholeConversation(t *testing.T) {
	t.Parallel()
	got := requestBody(t, model.Request{
		Messages: []model.Message{
			{Role: model.System, Content: "be <brief>"},
			{Role: model.User, Content: "weather?\n\n--- notes.txt ---\nrain, \"heavy\""},
			{Role: model.Assistant, Content: "let me see", ToolCalls: []model.ToolCall{
				{ID: "call_1", Name: "weather", Arguments: `{"city":"Köln","days":12345678901234567890,"f":1.50}`},
				{ID: "call_2", Name: "now", Arguments: ""},
			}},
			{Role: model.ToolRole, ToolCallID: "call_1", Content: "rain"},
			{Role: model.ToolRole, ToolCallID: "call_2", Content: ""},
			{Role: model.Assistant, Content: "it rains"},
			{Role: model.User, Content: "thanks"},
		},
		Tools: []model.ToolSpec{
			{Name: "weather", Description: "forecast", Parameters: []byte(
				`{"type":"object","properties":{"days":{"type":"integer","maximum":16}},"required":[]}`)},
			{Name: "now"},
		},
	}, func(o *anthropic.Options) { o.Temperature = new(0.1) })
	want := object{
		"model": "claude-sonnet-4-5", "max_tokens": 8192.0, "stream": true, "temperature": 0.1,
		"system": []any{text("be <brief>")},
		"messages": []any{
			turn("user", text("weather?\n\n--- notes.txt ---\nrain, \"heavy\"")),
			turn("assistant", text("let me see"),
				use("call_1", "weather", object{"city": "Köln", "days": 12345678901234567890.0, "f": 1.5}),
				use("call_2", "now", object{})),
			turn("user", result("call_1", text("rain")), result("call_2")),
			turn("assistant", text("it rains")),
			turn("user", text("thanks")),
		},
		"tools": []any{
			object{"name": "weather", "description": "forecast", "input_schema": object{
				"type": "object", "properties": object{"days": object{"type": "integer", "maximum": 16.0}}, "required": []any{},
			}},
			object{"name": "now", "input_schema": object{"type": "object"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestTemperatureIsSentOnlyIfItIsSet(t *testing.T) {
	t.Parallel()
	want := object{
		"model": "claude-sonnet-4-5", "max_tokens": 8192.0, "stream": true,
		"messages": []any{turn("user", text("hi"))},
	}
	if diff := cmp.Diff(want, requestBody(t, modeltest.Ask("hi"), nil)); diff != "" {
		t.Error(diff)
	}
	want["temperature"] = 0.0
	got := requestBody(t, modeltest.Ask("hi"), func(o *anthropic.Options) { o.Temperature = new(0.0) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The Messages API refuses consecutive turns of one role, and blank texts.
func TestTurnsAlternateAndNoTextIsBlank(t *testing.T) {
	t.Parallel()
	got := requestBody(t, model.Request{Messages: []model.Message{
		{Role: model.System, Content: " \n"},
		{Role: model.System, Content: "one"},
		{Role: model.User, Content: "a"},
		{Role: model.Assistant, Content: ""},
		{Role: model.User, Content: "b"},
		{Role: model.Assistant, Content: "\t", ToolCalls: []model.ToolCall{{ID: "c", Name: "f", Arguments: "{}"}}},
		{Role: model.ToolRole, ToolCallID: "c", Content: " "},
		{Role: model.System, Content: "two"},
		{Role: model.User, Content: "c"},
	}}, nil)
	if diff := cmp.Diff([]any{text("one"), text("two")}, got["system"]); diff != "" {
		t.Error(diff)
	}
	want := []any{
		turn("user", text("a"), text("b")), turn("assistant", use("c", "f", object{})),
		turn("user", result("c"), text("c")),
	}
	if diff := cmp.Diff(want, got["messages"]); diff != "" {
		t.Error(diff)
	}
}

// The API refuses a conversation that has calls and declares no tools.
func TestACalledToolThatIsNoLongerOfferedIsDeclared(t *testing.T) {
	t.Parallel()
	got := requestBody(t, model.Request{
		Messages: []model.Message{
			{Role: model.User, Content: "a"},
			{Role: model.Assistant, ToolCalls: []model.ToolCall{
				{ID: "1", Name: "old"}, {ID: "2", Name: "old"}, {ID: "3", Name: "new"},
			}},
			{Role: model.ToolRole, ToolCallID: "1", Content: "x"},
			{Role: model.ToolRole, ToolCallID: "2", Content: "x"},
			{Role: model.ToolRole, ToolCallID: "3", Content: "x"},
		},
		Tools: []model.ToolSpec{{Name: "new", Description: " "}},
	}, nil)
	want := []any{
		object{"name": "new", "input_schema": object{"type": "object"}},
		object{"name": "old", "description": "Can not be called any more.", "input_schema": object{"type": "object"}},
	}
	if diff := cmp.Diff(want, got["tools"]); diff != "" {
		t.Error(diff)
	}
}

// The API accepts names of the form [a-zA-Z0-9_-]{1,64} only. The tools of MCP servers
// may have others.
func TestAToolIsCalledByItsOwnNameWhateverItsForm(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		calls := modeltest.ToolCall("docs_search", "{}").ToolCall("docs_search_2", "{}")
		srv := modeltest.NewServer(t, calls, modeltest.Text("done"))
		m := anthropic.New(optionsFor(t, srv))
		r := modeltest.Ask("hi")
		r.Whole, r.Tools = whole, []model.ToolSpec{{Name: "docs.search"}, {Name: "docs/search"}}
		a := modeltest.Collect(t.Context(), t, m, r)
		if a.Err != nil || len(a.End.ToolCalls) != 2 {
			t.Fatalf("end %+v, error %v", a.End, a.Err)
		}
		if one, two := a.End.ToolCalls[0].Name, a.End.ToolCalls[1].Name; one != "docs.search" || two != "docs/search" {
			t.Errorf("calls of %q and %q", one, two)
		}
		r.Messages = append(r.Messages,
			model.Message{Role: model.Assistant, ToolCalls: []model.ToolCall{{ID: "weird id!", Name: "docs/search"}}},
			model.Message{Role: model.ToolRole, ToolCallID: "weird id!", Content: "found"})
		if a = modeltest.Collect(t.Context(), t, m, r); a.Err != nil {
			t.Fatal(a.Err)
		}
		messages, _ := srv.Requests()[1].Body["messages"].([]any)
		want := []any{
			turn("assistant", use("call00001", "docs_search_2", object{})),
			turn("user", result("call00001", text("found"))),
		}
		if diff := cmp.Diff(want, messages[1:]); diff != "" {
			t.Error(diff)
		}
	}
}

// thinking is an answer with thinking, text, redacted thinking and two calls.
var thinking = []string{
	`{"type":"message_start","message":{"usage":{"input_tokens":1}}}`,
	`{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}`,
	`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"first, "}}`,
	`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"the weather"}}`,
	`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"sig-1"}}`,
	`{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}`,
	`{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"let me see"}}`,
	`{"type":"content_block_start","index":2,"content_block":{"type":"redacted_thinking","data":"sealed"}}`,
	`{"type":"content_block_start","index":3,` +
		`"content_block":{"type":"tool_use","id":"toolu.1","name":"docs_search","input":{}}}`,
	`{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}`,
	`{"type":"content_block_start","index":4,"content_block":{"type":"thinking","thinking":"","signature":"sig-2"}}`,
	`{"type":"content_block_start","index":5,"content_block":{"type":"tool_use","id":"toolu_2","name":"now","input":{}}}`,
	`{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}`,
	`{"type":"message_stop"}`,
}

// thinkingWhole is the same answer in one piece.
const thinkingWhole = `{"type":"message","content":[
	{"type":"thinking","thinking":"first, the weather","signature":"sig-1"},{"type":"text","text":"let me see"},
	{"type":"redacted_thinking","data":"sealed"},
	{"type":"tool_use","id":"toolu.1","name":"docs_search","input":{"a":1}},
	{"type":"thinking","thinking":"","signature":"sig-2"},
	{"type":"tool_use","id":"toolu_2","name":"now","input":{}}],
	"stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":9}}`

// The API requires the thinking blocks of an answer with calls back, unchanged and in
// their order.
func TestThinkingIsSentBackWithTheToolsResults(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]modeltest.Script{
		"streamed": modeltest.Script{}.Raw(sse(thinking...)).Truncate(),
		"whole":    modeltest.Script{}.Raw(thinkingWhole),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := modeltest.NewServer(t, first, modeltest.Text("done"))
			m := anthropic.New(optionsFor(t, srv))
			r := modeltest.Ask("hi")
			r.Whole, r.Tools = name == "whole", []model.ToolSpec{{Name: "docs.search"}, {Name: "now"}}
			a := modeltest.Collect(t.Context(), t, m, r)
			if a.Err != nil || a.Text != "let me see" || len(a.End.ToolCalls) != 2 {
				t.Fatalf("text %q, end %+v, error %v", a.Text, a.End, a.Err)
			}
			r.Messages = append(r.Messages,
				model.Message{Role: model.Assistant, Content: a.Text, ToolCalls: a.End.ToolCalls, Opaque: a.End.Opaque},
				model.Message{Role: model.ToolRole, ToolCallID: "toolu.1", Content: "found"},
				model.Message{Role: model.ToolRole, ToolCallID: "toolu_2", Content: "noon"})
			if a = modeltest.Collect(t.Context(), t, m, r); a.Err != nil {
				t.Fatal(a.Err)
			}
			messages, _ := srv.Requests()[1].Body["messages"].([]any)
			want := []any{
				turn("assistant",
					object{"type": "thinking", "thinking": "first, the weather", "signature": "sig-1"},
					text("let me see"),
					object{"type": "redacted_thinking", "data": "sealed"},
					use("call00001", "docs_search", object{"a": 1.0}),
					object{"type": "thinking", "thinking": "", "signature": "sig-2"},
					use("toolu_2", "now", object{})),
				turn("user", result("call00001", text("found")), result("toolu_2", text("noon"))),
			}
			if diff := cmp.Diff(want, messages[1:]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOpaqueIsOnlyForThinkingWithCalls(t *testing.T) {
	t.Parallel()
	const endTurn = `{"type":"message_delta","delta":{"stop_reason":"end_turn"}}`
	withoutCalls := sse(append(thinking[:7:7], endTurn, stop)...)
	for name, script := range map[string]modeltest.Script{
		"without calls":    modeltest.Script{}.Raw(withoutCalls).Truncate(),
		"without thinking": modeltest.Text("let me see").ToolCall("f", "{}"),
	} {
		if a := answerOf(t, script); a.Err != nil || a.Text != "let me see" || a.End.Opaque != nil {
			t.Errorf("%s: %v %q %s", name, a.Err, a.Text, a.End.Opaque)
		}
	}
}

// If Opaque was made by another provider or version, text and calls are sent instead.
func TestAnUnreadableOpaqueIsReplacedByTextAndCalls(t *testing.T) {
	t.Parallel()
	for _, opaque := range []string{
		`[{"type":"reasoning"},{"type":"function_call","call_id":"c"}]`, `{"a":1}`, `[1]`, `[]`, "null",
		`[{"type":"thinking","seal":"s"}]`, `[{"type":"tool_use","call":1}]`, `[{"type":"tool_use","call":-1}]`,
		`[{"type":"tool_use"},{"type":"tool_use"}]`,
	} {
		got := requestBody(t, model.Request{Messages: []model.Message{
			{Role: model.User, Content: "a"},
			{
				Role: model.Assistant, Content: "b", ToolCalls: []model.ToolCall{{ID: "c", Name: "f"}},
				Opaque: json.RawMessage(opaque),
			},
			{Role: model.ToolRole, ToolCallID: "c", Content: "x"},
		}}, nil)
		messages, _ := got["messages"].([]any)
		if diff := cmp.Diff(turn("assistant", text("b"), use("c", "f", object{})), messages[1]); diff != "" {
			t.Errorf("%s: %s", opaque, diff)
		}
	}
}
