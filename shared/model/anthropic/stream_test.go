package anthropic_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/anthropic"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const (
	start = `{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],` +
		`"stop_reason":null,"usage":{"input_tokens":4,"output_tokens":1}}}`
	textStart = `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`
	hi        = `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}`
	callStart = `{"type":"content_block_start","index":1,` +
		`"content_block":{"type":"tool_use","id":"toolu_1","name":"f","input":{}}}`
	arguments = `{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}`
	endTurn   = `{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},` +
		`"usage":{"output_tokens":2}}`
	toolUse = `{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":2}}`
	stop    = `{"type":"message_stop"}`
)

// sse returns a stream of events, without their names, which the data repeats.
func sse(events ...string) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteString("data: " + e + "\n\n")
	}
	return b.String()
}

// raw returns the answer of a server that sends these bytes and ends the body.
func raw(t *testing.T, bytes string) modeltest.Answer {
	t.Helper()
	return answerOf(t, modeltest.Script{}.Raw(bytes).Truncate())
}

const (
	cutShort = "The model's answer ended before it was complete"
	noAnswer = "The model's server sent something that is not an answer"
	tooLong  = "The model's server sent an event of more than 10 MB, or more than 128 tool calls at once"
)

func TestAnswersAreReadInAllFormsThatServersSend(t *testing.T) {
	t.Parallel()
	call := []model.ToolCall{{ID: "toolu_1", Name: "f", Arguments: `{"a":1}`}}
	for _, c := range []struct {
		name, stream, text string
		calls              []model.ToolCall
	}{
		{"as documented", sse(
			start, `{"type":"ping"}`, textStart, hi, `{"type":"content_block_stop","index":0}`, endTurn, stop), "hi", nil},
		{"with names, comments and CRLF", ": hello\r\nevent: content_block_delta\r\ndata:" + hi +
			"\r\n\r\nevent: x\r\ndata: " + endTurn + "\r\n\r\ndata: " + stop + "\r\n\r\n", "hi", nil},
		{"without message_start", sse(hi, endTurn, stop), "hi", nil},
		{"with text in the start of a block", sse(
			`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"o"}}`,
			hi, endTurn, stop), "ohi", nil},
		{"with unknown events and blocks", sse(start, `{"type":"new","index":0}`, textStart, hi,
			`{"type":"content_block_start","index":2,`+
				`"content_block":{"type":"server_tool_use","id":"s","name":"web_search","input":{"q":1}}}`,
			`{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{"url":"x"}}}`,
			endTurn, stop), "hi", nil},
		{"with null for missing members", sse(`{"type":"message_start","message":{"usage":null}}`,
			`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"},"error":null}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_details":null},"usage":null}`, stop), "hi", nil},
		{"with an event without members that the previous one has", sse(
			hi, `{"type":"content_block_delta","delta":{"type":"text_delta"}}`, endTurn, stop), "hi", nil},
		{"with a last message_delta that has only tokens", sse(
			hi, endTurn, `{"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":3}}`, stop), "hi", nil},
		{"with events of other forms", sse(start,
			`{"type":"new","delta":"x","usage":[],"message":{"a":1},"index":"0"}`, hi, endTurn, stop), "hi", nil},
		{"with an empty error", sse(strings.Replace(hi, `{"type"`, `{"error":{},"type"`, 1), endTurn, stop), "hi", nil},
		{"with usage of another form", sse(`{"type":"message_start","message":{"usage":[]}}`, hi,
			strings.Replace(endTurn, `{"type"`, `{"usage":{"output_tokens":"3","output_tokens_details":[]},"type"`, 1), stop),
			"hi", nil},
		{"a call", sse(start, textStart, hi, callStart, arguments, toolUse, stop), "hi", call},
		{"a call with its arguments in one piece", sse(
			strings.Replace(callStart, `{}`, `{"a":1}`, 1), toolUse, stop), "", call},
		{"a call with the stop reason of a text", sse(callStart, arguments, endTurn, stop), "", call},
		{"calls that are out of order", sse(
			`{"type":"content_block_start","index":3,`+
				`"content_block":{"type":"tool_use","id":"toolu_3","name":"g","input":{}}}`,
			callStart, arguments, toolUse, stop), "", append(call[:1:1], model.ToolCall{ID: "toolu_3", Name: "g"})},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := raw(t, c.stream)
			if a.Err != nil || a.Text != c.text {
				t.Fatalf("text %q, error %v", a.Text, a.Err)
			}
			if diff := cmp.Diff(c.calls, a.End.ToolCalls); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// oddCalls are answers with two calls, f with {"n":1} and g with {"n":2}, as servers send them.
var oddCalls = map[string]string{
	"with all ends at last (LiteLLM)": sse(
		block(0, oddCall("a", "f", "{}")), piece(0, `{\"n\":`), piece(0, `1}`),
		block(1, oddCall("b", "g", "{}")), piece(1, `{\"n\":2}`),
		`{"type":"content_block_stop","index":0}`, `{"type":"content_block_stop","index":1}`, toolUse, stop),
	"interleaved": sse(
		block(0, oddCall("a", "f", "{}")), block(1, oddCall("b", "g", "{}")),
		piece(1, `{\"n\"`), piece(0, `{\"n\":1}`), piece(1, `:2}`), toolUse, stop),
	"with the index 0 for both": sse(
		block(0, oddCall("a", "f", "{}")), piece(0, `{\"n\":1}`),
		block(0, oddCall("b", "g", "{}")), piece(0, `{\"n\":2}`), toolUse, stop),
	"without any index": sse(
		`{"type":"content_block_start","content_block":`+oddCall("a", "f", "{}")+`}`,
		`{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{\"n\":1}"}}`,
		`{"type":"content_block_start","content_block":`+oddCall("b", "g", "{}")+`}`,
		`{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{\"n\":2}"}}`, toolUse, stop),
	"with the index 0 for both, no IDs and whole arguments": sse(
		block(0, oddCall("", "f", `{"n":1}`)), block(0, oddCall("", "g", `{"n":2}`)), toolUse, stop),
	"with one ID for both": sse(
		block(0, oddCall("x", "f", "{}")), piece(0, `{\"n\":1}`),
		block(1, oddCall("x", "g", "{}")), piece(1, `{\"n\":2}`), toolUse, stop),
	"with the arguments in the start": sse(
		block(0, oddCall("a", "f", `{"n":1}`)), block(1, oddCall("b", "g", `{"n":2}`)), toolUse, stop),
	"with the arguments in the start, as a text": sse(
		block(0, oddCall("a", "f", `"{\"n\":1}"`)), block(1, oddCall("b", "g", `"{\"n\":2}"`)), toolUse, stop),
	"with the arguments twice": sse(
		block(0, oddCall("a", "f", `{"n":1}`)), piece(0, `{\"n\":1}`),
		block(1, oddCall("b", "g", `{"n":2}`)), piece(1, `{\"n\":2}`), toolUse, stop),
	"with a start that is repeated": sse(
		block(0, oddCall("a", "f", "{}")), block(0, oddCall("a", "f", "{}")), piece(0, `{\"n\":1}`),
		block(1, oddCall("b", "g", "null")), piece(1, `{\"n\":2}`), toolUse, stop),
	"after text and thoughts of the same index": sse(
		`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}`, hi,
		block(0, oddCall("a", "f", "{}")), piece(0, `{\"n\":1}`),
		block(0, oddCall("b", "g", "{}")), piece(0, `{\"n\":2}`), toolUse, stop),
	"beside a tool of the server": sse(
		block(0, `{"type":"server_tool_use","id":"s","name":"web_search","input":{}}`), piece(0, `{\"query\":\"x\"}`),
		block(1, `{"type":"web_search_tool_result","tool_use_id":"s","content":[{"type":"web_search_result","url":"x"}]}`),
		block(2, oddCall("a", "f", "{}")), piece(2, `{\"n\":1}`),
		block(3, oddCall("b", "g", "{}")), piece(3, `{\"n\":2}`), toolUse, stop),
	"with the stop reason of a text": sse(
		block(0, oddCall("a", "f", `{"n":1}`)), block(1, oddCall("b", "g", `{"n":2}`)), endTurn, stop),
}

// block returns the start of a block, and piece a piece of its arguments.
func block(index int, content string) string {
	return fmt.Sprintf(`{"type":"content_block_start","index":%d,"content_block":%s}`, index, content)
}

func piece(index int, arguments string) string {
	return fmt.Sprintf(`{"type":"content_block_delta","index":%d,`+
		`"delta":{"type":"input_json_delta","partial_json":"%s"}}`, index, arguments)
}

func oddCall(id, name, input string) string {
	return fmt.Sprintf(`{"type":"tool_use","id":%q,"name":%q,"input":%s}`, id, name, input)
}

func TestCallsAreToldApartWhateverNamesThem(t *testing.T) {
	t.Parallel()
	for name, stream := range oddCalls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := raw(t, stream)
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			var got []string
			for _, c := range a.End.ToolCalls {
				got = append(got, c.Name+c.Arguments)
			}
			if diff := cmp.Diff([]string{`f{"n":1}`, `g{"n":2}`}, got); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

// The answer is hi, with the thought hm, in each form.
func TestThoughtsAreReadInAllFormsThatServersSend(t *testing.T) {
	t.Parallel()
	const thought = `{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}`
	for name, stream := range map[string]string{
		"as documented": sse(start, block(0, `{"type":"thinking","thinking":"","signature":""}`), thought,
			`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s"}}`,
			block(1, `{"type":"text","text":""}`), strings.Replace(hi, `"index":0`, `"index":1`, 1), endTurn, stop),
		"without starts":            sse(thought, hi, endTurn, stop),
		"in the start of its block": sse(block(0, `{"type":"thinking","thinking":"hm"}`), hi, endTurn, stop),
		"beside hidden thoughts": sse(block(0, `{"type":"redacted_thinking","data":"x"}`),
			block(1, `{"type":"thinking"}`), strings.Replace(thought, `"index":0`, `"index":1`, 1), hi, endTurn, stop),
	} {
		if a := raw(t, stream); a.Err != nil || a.Text != "hi" || a.Reasoning != "hm" {
			t.Errorf("%s: text %q, thoughts %q, error %v", name, a.Text, a.Reasoning, a.Err)
		}
	}
}

// LiteLLM answers a request for a stream with JSON where the server behind it has no streams. The reverse is read too.
func TestTheBodyShowsWhetherAnAnswerIsAStream(t *testing.T) {
	t.Parallel()
	const whole = `{"content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"hi"}],"stop_reason":"end_turn"}`
	for _, kind := range []string{"application/json; charset=utf-8", "text/event-stream", "text/plain"} {
		json := modeltest.Script{}.Raw(whole).Truncate().Header("Content-Type", kind)
		if a := answerOf(t, json); a.Err != nil || a.Text != "hi" || a.Reasoning != "hm" {
			t.Errorf("JSON of the type %s in place of a stream: %q, %q, error %v", kind, a.Text, a.Reasoning, a.Err)
		}
		stream := modeltest.Script{}.Raw(sse(start, hi, endTurn, stop)).Header("Content-Type", kind)
		if a := wholeAnswerOf(t, modeltest.NewServer(t, stream)); a.Err != nil || a.Text != "hi" {
			t.Errorf("a stream of the type %s in place of JSON: %q, error %v", kind, a.Text, a.Err)
		}
	}
}

func TestAnInvalidStreamIsAnError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, stream, detail string }{
		{"nothing", "", cutShort},
		{"no message_stop", sse(start, textStart, hi, endTurn), cutShort},
		{"no stop reason", sse(start, textStart, hi, stop), cutShort},
		{"a stop reason that is null", sse(hi, `{"type":"message_delta","delta":{"stop_reason":null}}`, stop), cutShort},
		{"[DONE] in the place of message_stop", sse(hi, endTurn, "[DONE]", stop), cutShort},
		{"half an event", "data: " + hi[:30], cutShort},
		{"not JSON", sse(hi, "oops"), noAnswer},
		{"a list", sse(`[1]`), noAnswer},
		{"a text that is a number",
			sse(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":1}}`), noAnswer},
		{"an index that is a string", sse(`{"type":"content_block_start","index":"0"}`), noAnswer},
		{"an error", sse(start, hi,
			`{"type":"error","error":{"type":"api_error","message":"Internal server error sk-ant-api03-abc"}}`, endTurn, stop),
			"Internal server error ***"},
		{"an error as a string", sse(`{"type":"error","error":"oops"}`), "oops"},
		{"an error in an event of another type", sse(`{"type":"x","error":{"message":"oops"}}`), "oops"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := raw(t, c.stream)
			if a.Err == nil || fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
				t.Errorf("%v: %q, want %q", a.Err, fault.Detail(a.Err), c.detail)
			}
		})
	}
}

func TestAnOverloadWithinTheStreamIsUnavailable(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"overloaded_error", "rate_limit_error"} {
		a := raw(t, sse(start, textStart, hi, `{"type":"error","error":{"type":"`+kind+`","message":"Overloaded"}}`))
		if a.Text != "hi" || fault.KindOf(a.Err) != fault.Unavailable || fault.Detail(a.Err) != "Overloaded" {
			t.Errorf("%s: %q, error %v", kind, a.Text, a.Err)
		}
	}
}

func TestAnAnswerWithMessageStopIsCompleteWhateverFollows(t *testing.T) {
	t.Parallel()
	const failed = `{"type":"error","error":{"message":"oops"}}`
	for name, script := range map[string]modeltest.Script{
		"an error":          modeltest.Script{}.Raw(sse(hi, endTurn, stop, failed)).Truncate(),
		"invalid bytes":     modeltest.Script{}.Raw(sse(hi, endTurn, stop) + "oops").Truncate(),
		"a lost connection": modeltest.Script{}.Raw(sse(hi, endTurn, stop)).Drop(),
	} {
		if a := answerOf(t, script); a.Err != nil || a.Text != "hi" || a.End.FinishReason != "end_turn" {
			t.Errorf("%s: %q, error %v", name, a.Text, a.Err)
		}
	}
}

// docs/differences.md lists which stop reasons are errors.
func TestStopReasons(t *testing.T) {
	t.Parallel()
	const within = "The model's answer ended within a tool call (%s); ask for less at once"
	text, nothing, calls := modeltest.Text("hi"), modeltest.Script{}, modeltest.Text("hi").ToolCall("f", `{"a":1}`)
	for _, c := range []struct {
		script modeltest.Script
		reason string
		detail string // "" is a whole answer
	}{
		{text, "end_turn", ""},
		{nothing, "end_turn", ""},
		{calls, "tool_use", ""},
		{text, "max_tokens", ""},
		{nothing, "max_tokens", "The model's answer ended before it had any text (max_tokens)"},
		{calls, "max_tokens", fmt.Sprintf(within, "max_tokens")},
		{text, "model_context_window_exceeded", ""},
		{calls, "model_context_window_exceeded", fmt.Sprintf(within, "model_context_window_exceeded")},
		{text, "stop_sequence", ""},
		{text, "pause_turn", cutShort + " (pause_turn)"},
		{calls, "pause_turn", cutShort + " (pause_turn)"},
		{text, "refusal", ""},
		{nothing, "refusal", "The model's answer was withheld (refusal)"},
		{calls, "refusal", "The model's answer was withheld (refusal)"},
		{text, "one_that_is_new", ""},
		{calls, "one_that_is_new", fmt.Sprintf(within, "one_that_is_new")},
		{text, "content_filter", ""},
		{nothing, "content_filter", "The model's answer was withheld (content_filter)"},
	} {
		for _, whole := range []bool{false, true} {
			srv := modeltest.NewServer(t, c.script.Finish(c.reason))
			r := modeltest.Ask("hello")
			r.Whole = whole
			a := modeltest.Collect(t.Context(), t, anthropic.New(optionsFor(t, srv)), r)
			switch {
			case c.detail != "" && (fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail):
				t.Errorf("%s, whole %t: %v, want %q", c.reason, whole, a.Err, c.detail)
			case c.detail == "" && (a.Err != nil || a.End.FinishReason != c.reason):
				t.Errorf("%s, whole %t: %v %+v", c.reason, whole, a.Err, a.End)
			}
		}
	}
}

func TestARefusalHasTheProvidersExplanation(t *testing.T) {
	t.Parallel()
	a := raw(t, sse(start, `{"type":"message_delta","delta":{"stop_reason":"refusal",`+
		`"stop_details":{"type":"refusal","category":"cyber","explanation":"may not"}}}`, stop))
	if want := "The model's answer was withheld (refusal): may not"; fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
}

func TestUsageIsReadFromMessageStartAndMessageDelta(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stream string
		want   model.Usage
	}{
		"the last event reports the output": {sse(
			`{"type":"message_start","message":{"usage":{"input_tokens":10,"cache_creation_input_tokens":2,`+
				`"cache_read_input_tokens":3,"output_tokens":1}}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},`+
				`"usage":{"output_tokens":5,"output_tokens_details":{"thinking_tokens":4}}}`, stop),
			model.Usage{Input: 10, Output: 5, Total: 15, Reasoning: 4, CacheRead: 3, CacheWrite: 2}},
		"the last event reports all counts again": {sse(
			`{"type":"message_start","message":{"usage":{"input_tokens":10,"cache_read_input_tokens":3,"output_tokens":1}}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},`+
				`"usage":{"input_tokens":11,"cache_read_input_tokens":4,"output_tokens":5}}`, stop),
			model.Usage{Input: 11, Output: 5, Total: 16, CacheRead: 4}},
		"the first event reports zeros, as LiteLLM's": {sse(
			`{"type":"message_start","message":{"usage":{"input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":8,"output_tokens":5}}`, stop),
			model.Usage{Input: 8, Output: 5, Total: 13}},
		"the last event reports zeros": {sse(
			`{"type":"message_start","message":{"usage":{"input_tokens":8,"output_tokens":1}}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":0,"output_tokens":5}}`, stop),
			model.Usage{Input: 8, Output: 5, Total: 13}},
		"counts in other forms": {sse(
			`{"type":"message_start","message":{"usage":{"input_tokens":8.0,"output_tokens":null}}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":1e400,"output_tokens":"5"}}`,
			stop), model.Usage{Input: 8, Output: 5, Total: 13}},
		"only the first event reports counts": {
			sse(start, endTurn[:strings.Index(endTurn, `,"usage"`)]+"}", stop), model.Usage{Input: 4, Output: 1, Total: 5}},
	} {
		a := raw(t, c.stream)
		if a.Err != nil {
			t.Fatalf("%s: %v", name, a.Err)
		}
		if diff := cmp.Diff(c.want, a.End.Usage); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAnAnswerBeyondTheLimitsIsAnError(t *testing.T) {
	t.Parallel()
	many := func(n int, event func(int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(sse(event(i)))
		}
		return b.String()
	}
	half := strings.Repeat("x", 5<<20+100)
	for name, stream := range map[string]string{
		"an event": sse(`{"type":"ping","pad":"` + half + half + `"}`),
		"text":     many(3, func(int) string { return strings.Replace(hi, "hi", half, 1) }),
		"thinking": many(3, func(i int) string {
			return fmt.Sprintf(
				`{"type":"content_block_delta","index":%d,"delta":{"type":"thinking_delta","thinking":%q}}`, i, half)
		}),
		"redacted thinking": many(3, func(i int) string {
			return fmt.Sprintf(
				`{"type":"content_block_start","index":%d,"content_block":{"type":"redacted_thinking","data":%q}}`, i, half)
		}),
		"arguments": many(3, func(int) string {
			return fmt.Sprintf(
				`{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":%q}}`, half)
		}),
		"blocks": many(400, func(i int) string { return fmt.Sprintf(`{"type":"content_block_start","index":%d}`, i) }),
		"calls": many(129, func(i int) string {
			return fmt.Sprintf(`{"type":"content_block_start","index":%d,"content_block":{"type":"tool_use"}}`, i)
		}) + sse(toolUse, stop),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if a := raw(t, stream); fault.Detail(a.Err) != tooLong {
				t.Errorf("error %v, want %q", a.Err, tooLong)
			}
		})
	}
}

func TestAStreamOfManyEventsMayExceed10MB(t *testing.T) {
	t.Parallel()
	ping := `{"type":"ping","pad":"` + strings.Repeat("x", 4<<20) + `"}`
	if a := raw(t, sse(ping, ping, ping, hi, endTurn, stop)); a.Err != nil || a.Text != "hi" {
		t.Errorf("%q, error %v", a.Text, a.Err)
	}
}
