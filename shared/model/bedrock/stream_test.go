package bedrock_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const (
	cutShort = "The model's answer ended before it was complete"
	noAnswer = "The model's server sent something that is not an answer"
)

// damaged returns a frame of text in which one bit of the byte at index i is changed:
// of the length, of the JSON or of a checksum. A negative i counts from the end.
func damaged(i int) string {
	frame := []byte(modeltest.Frame("event", "contentBlockDelta", `{"contentBlockIndex":0,"delta":{"text":"forged"}}`))
	if i < 0 {
		i += len(frame)
	}
	frame[i] ^= 0x40
	return string(frame)
}

func TestADamagedFrameIsAnError(t *testing.T) {
	t.Parallel()
	frame := modeltest.Frame("event", "contentBlockDelta", `{"contentBlockIndex":0,"delta":{"text":"never"}}`)
	for name, row := range map[string]struct {
		script modeltest.Script
		detail string
	}{
		"a wrong checksum":                  {modeltest.Text("ok").Raw(damaged(-1)).Text("never"), noAnswer},
		"a changed text":                    {modeltest.Text("ok").Raw(damaged(-10)).Text("never"), noAnswer},
		"a changed length":                  {modeltest.Text("ok").Raw(damaged(0)).Text("never"), noAnswer},
		"a changed checksum of the lengths": {modeltest.Text("ok").Raw(damaged(8)).Text("never"), noAnswer},
		"half a frame and a clean end":      {modeltest.Text("ok").Raw(frame[:60]).Truncate(), cutShort},
		"a frame without its checksum":      {modeltest.Text("ok").Raw(frame[:len(frame)-4]).Truncate(), cutShort},
		"half a prelude and a clean end":    {modeltest.Text("ok").Raw("\x00\x00").Truncate(), cutShort},
		"half a frame and a lost connection": {
			modeltest.Text("ok").Raw(frame[:60]).Drop(), "Connection error."},
		"invalid JSON": {
			modeltest.Text("ok").Raw(modeltest.Frame("event", "contentBlockDelta", `{"contentBlockIndex":`)), noAnswer},
		"an unknown kind of message": {modeltest.Text("ok").Raw(modeltest.Frame("letter", "x", `{}`)), noAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := answerOf(t, row.script)
			if a.Err == nil || fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != row.detail || a.Text != "ok" {
				t.Errorf("%q, then %v\nwant the public text %q", a.Text, a.Err, row.detail)
			}
		})
	}
}

func TestAnAnswerOfMoreThan10MBIsAnError(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]modeltest.Script{
		"a text":    modeltest.Script{}.Huge(11 << 20),
		"arguments": modeltest.ToolCall("f", "{}").Raw(hugeArguments()).Raw(hugeArguments()),
	} {
		a := answerOf(t, script)
		if fault.Detail(a.Err) != "The model's server sent an event of more than 10 MB, or more than 128 tool calls at once" {
			t.Errorf("%s: %v", name, a.Err)
		}
	}
}

func hugeArguments() string {
	input := strings.Repeat("x", 6<<20)
	return modeltest.Frame("event", "contentBlockDelta",
		`{"contentBlockIndex":0,"delta":{"toolUse":{"input":"`+input+`"}}}`)
}

func TestAnExceptionWithinTheStreamIsAnError(t *testing.T) {
	t.Parallel()
	for exception, row := range map[string]struct {
		payload string
		kind    fault.Kind
		detail  string
	}{
		"internalServerException": {`{"message":"unexpected error"}`, fault.Upstream, "unexpected error"},
		"modelStreamErrorException": {
			`{"message":"model failed","originalStatusCode":500,"originalMessage":"x"}`, fault.Upstream, "model failed"},
		"throttlingException":         {`{"message":"Too many tokens"}`, fault.Unavailable, "Too many tokens"},
		"serviceUnavailableException": {`{"message":"busy"}`, fault.Upstream, "busy"},
		"validationException": {
			`{"message":"see arn:aws:bedrock:eu-central-1:123456789012:guardrail/x of 123456789012"}`,
			fault.Upstream, "see *** of ***"},
		"aFutureException":      {`{"message":"new"}`, fault.Upstream, "new"},
		"modelTimeoutException": {`{}`, fault.Upstream, "The model's server answered modelTimeoutException"},
	} {
		t.Run(exception, func(t *testing.T) {
			t.Parallel()
			a := answerOf(t, modeltest.Text("half ").Raw(modeltest.Frame("exception", exception, row.payload)).Text("never"))
			if a.Err == nil || fault.KindOf(a.Err) != row.kind || fault.Detail(a.Err) != row.detail || a.Text != "half " {
				t.Errorf("text %q, error %v, public text %q", a.Text, a.Err, fault.Detail(a.Err))
			}
			if strings.Contains(a.Err.Error(), "123456789012") {
				t.Errorf("the log's text contains the account: %v", a.Err)
			}
		})
	}
}

func TestAnAnswerWithStopReasonIsCompleteWhateverFollows(t *testing.T) {
	t.Parallel()
	stop := modeltest.Frame("event", "messageStop", `{"stopReason":"end_turn"}`)
	for name, script := range map[string]modeltest.Script{
		"a clean end":       modeltest.Text("done").Raw(stop).Truncate(),
		"a lost connection": modeltest.Text("done").Raw(stop).Drop(),
		"an unknown event":  modeltest.Text("done").Raw(modeltest.Frame("event", "mood", `{"x":1}`)).Raw(stop).Truncate(),
		"an unknown block": modeltest.Text("done").
			Raw(modeltest.Frame("event", "contentBlockDelta", `{"delta":{"song":{}}}`)).Raw(stop).Truncate(),
	} {
		a := answerOf(t, script)
		if a.Err != nil || a.Text != "done" || a.End.FinishReason != "end_turn" || a.End.Usage != (model.Usage{}) {
			t.Errorf("%s: %q %v %+v", name, a.Text, a.Err, a.End)
		}
	}
	if a := answerOf(t, modeltest.Text("done").Raw(stop).Raw(damaged(-1))); fault.Detail(a.Err) != noAnswer {
		t.Errorf("a damaged frame after the stop reason: error %v", a.Err)
	}
}

// The reasoning that a model of another vendor than Anthropic sends has no signature.
func TestReasoningIsShownBesideTheText(t *testing.T) {
	t.Parallel()
	a := answerOf(t, modeltest.Script{}.
		Raw(modeltest.Frame("event", "messageStart", `{"role":"assistant"}`)).
		Raw(reasoning(`{"text":"h"}`)).Raw(reasoning(`{"text":""}`)).Raw(reasoning(`{"text":"m"}`)).
		Text("42").ToolCall("f", "{}"))
	if a.Err != nil || a.Text != "42" || a.Reasoning != "hm" || a.End.Opaque != nil {
		t.Errorf("text %q, reasoning %q, end %+v, error %v", a.Text, a.Reasoning, a.End, a.Err)
	}
	whole := wholeAnswerOf(t, modeltest.NewServer(t, modeltest.Script{}.Raw(`{"output":{"message":{"role":"assistant",`+
		`"content":[{"reasoningContent":{"reasoningText":{"text":"hm"}}},{"text":"42"}]}},"stopReason":"end_turn"}`)))
	if whole.Err != nil || whole.Text != "42" || whole.Reasoning != "hm" || len(whole.Parts) != 3 {
		t.Errorf("in one piece: %+v, error %v", whole.Parts, whole.Err)
	}
}

// Claude on Bedrock requires its reasoning back, unchanged and in its order, with the results of its calls.
func TestSignedReasoningIsSentBackWithTheToolsResults(t *testing.T) {
	t.Parallel()
	stream := modeltest.Script{}.
		Raw(modeltest.Frame("event", "messageStart", `{"role":"assistant"}`)).
		Raw(reasoning(`{"text":"hm"}`)).Raw(reasoning(`{"signature":"c2ln"}`)).
		Raw(hidden).
		Raw(modeltest.Frame("event", "contentBlockDelta", `{"contentBlockIndex":2,"delta":{"text":"42"}}`)).
		Raw(modeltest.Frame("event", "contentBlockStart",
			`{"contentBlockIndex":3,"start":{"toolUse":{"toolUseId":"a","name":"f"}}}`)).
		Finish("tool_use")
	const whole = `{"output":{"message":{"role":"assistant","content":[` +
		`{"reasoningContent":{"reasoningText":{"text":"hm","signature":"c2ln"}}},` +
		`{"reasoningContent":{"redactedContent":"AAEC"}},{"text":"42"},` +
		`{"toolUse":{"toolUseId":"a","name":"f","input":{}}}]}},"stopReason":"tool_use"}`
	for name, end := range map[string]*model.End{
		"streamed":     answerOf(t, stream).End,
		"in one piece": wholeAnswerOf(t, modeltest.NewServer(t, modeltest.Script{}.Raw(whole))).End,
	} {
		const id = "call_0123456789abcdef0123456789abcdef"
		if end == nil {
			t.Fatalf("%s: no end", name)
		}
		end.ToolCalls[0].ID = id
		srv := modeltest.NewServer(t, modeltest.Text("done"))
		r := modeltest.Ask("hello")
		r.Messages = append(r.Messages,
			model.Message{Role: model.Assistant, Content: "42", ToolCalls: end.ToolCalls, Opaque: end.Opaque},
			model.Message{Role: model.ToolRole, ToolCallID: id, Content: "7"})
		modeltest.Collect(t.Context(), t, bedrock.NewOnce(optionsFor(t, srv)), r)
		messages, _ := srv.Requests()[0].Body["messages"].([]any)
		want := map[string]any{"role": "assistant", "content": []any{
			map[string]any{"reasoningContent": map[string]any{
				"reasoningText": map[string]any{"text": "hm", "signature": "c2ln"}}},
			map[string]any{"reasoningContent": map[string]any{"redactedContent": "AAEC"}},
			map[string]any{"text": "42"},
			map[string]any{"toolUse": map[string]any{"toolUseId": id, "name": "f", "input": map[string]any{}}},
		}}
		if diff := cmp.Diff(want, messages[1]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// hidden is a frame with encrypted reasoning.
var hidden = modeltest.Frame("event", "contentBlockDelta",
	`{"contentBlockIndex":1,"delta":{"reasoningContent":{"redactedContent":"AAEC"}}}`)

// A run may continue with another provider's model than before its pause.
func TestTheOpaqueOfAnotherProviderIsNotSent(t *testing.T) {
	t.Parallel()
	const id = "call_0123456789abcdef0123456789abcdef"
	for _, opaque := range []string{
		`[{"type":"thinking","text":"hm","seal":"s"},{"type":"text","text":"x"},{"type":"tool_use"}]`, `{"ids":["a"]}`,
		`[{"type":"toolUse","call":1}]`, `[{"type":"toolUse"},{"type":"toolUse"}]`, `[1]`,
	} {
		srv := modeltest.NewServer(t, modeltest.Text("done"))
		r := modeltest.Ask("hello")
		r.Messages = append(r.Messages, model.Message{
			Role: model.Assistant, ToolCalls: []model.ToolCall{{ID: id, Name: "f", Arguments: "{bad"}}, Opaque: []byte(opaque),
		})
		modeltest.Collect(t.Context(), t, bedrock.NewOnce(optionsFor(t, srv)), r)
		messages, _ := srv.Requests()[0].Body["messages"].([]any)
		want := map[string]any{"role": "assistant", "content": []any{
			map[string]any{"toolUse": map[string]any{"toolUseId": id, "name": "f", "input": map[string]any{}}},
		}}
		if diff := cmp.Diff(want, messages[1]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", opaque, diff)
		}
	}
}

// reasoning returns a frame with a piece of the model's reasoning.
func reasoning(content string) string {
	return modeltest.Frame("event", "contentBlockDelta",
		`{"contentBlockIndex":0,"delta":{"reasoningContent":`+content+`}}`)
}

// The stop reason is passed on. An answer that stopped at a limit is complete.
func TestStopReasons(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		for reason, want := range map[string]string{
			"end_turn": "", "stop_sequence": "", "max_tokens": "", "model_context_window_exceeded": "",
			"guardrail_intervened": "", "content_filtered": "",
			"malformed_model_output": "The model's answer is malformed (malformed_model_output); try again",
			"malformed_tool_use":     "The model's answer is malformed (malformed_tool_use); try again",
		} {
			srv := modeltest.NewServer(t, modeltest.Text("Sorry.").Finish(reason))
			r := modeltest.Ask("hello")
			r.Whole = whole
			a := modeltest.Collect(t.Context(), t, bedrock.NewOnce(optionsFor(t, srv)), r)
			if (a.Err == nil) != (want == "") || a.Err != nil && fault.Detail(a.Err) != want {
				t.Errorf("%s: error %v, want %q", reason, a.Err, want)
			}
			if a.Text != "Sorry." && (a.Err == nil || !whole) {
				t.Errorf("%s: text %q", reason, a.Text)
			}
			if a.End != nil && (a.End.FinishReason != reason || a.End.Usage.Total != 15) {
				t.Errorf("%s: %+v", reason, a.End)
			}
		}
	}
}

func TestAWithheldAnswerWithoutTextIsAnError(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"guardrail_intervened", "content_filtered"} {
		a := answerOf(t, modeltest.Script{}.Finish(reason))
		want := "The model's answer was withheld (" + reason + ")"
		if fault.Detail(a.Err) != want || fault.KindOf(a.Err) != fault.Upstream {
			t.Errorf("%s: error %v, want %q", reason, a.Err, want)
		}
	}
	if a := answerOf(t, modeltest.Script{}); a.Err != nil || a.Text != "" || a.End.FinishReason != "end_turn" {
		t.Errorf("an empty answer: %v %+v", a.Err, a.End)
	}
}

func TestAnEmptyPagePointsAtBaseURL(t *testing.T) {
	t.Parallel()
	a := answerOf(t, modeltest.Script{}.Raw("").Header("Content-Type", "text/html").Truncate())
	want := "The model's server did not answer with an event stream: check base_url"
	if fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
}

func TestACallThatWasCutIsNeverMade(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"max_tokens", "model_context_window_exceeded"} {
		a := answerOf(t, modeltest.ToolCall("f", `{"half":`).Finish(reason))
		want := "The model's answer ended within a tool call (" + reason + "); ask for less at once"
		if fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != want {
			t.Errorf("error %v, want %q", a.Err, want)
		}
	}
}

func TestAnAnswerThatEndedBeforeAnyTextIsAnError(t *testing.T) {
	t.Parallel()
	a := answerOf(t, modeltest.Script{}.Raw(reasoning(`{"text":"hm"}`)).Finish("max_tokens"))
	if want := "The model's answer ended before it had any text (max_tokens)"; fault.Detail(a.Err) != want {
		t.Errorf("error %v, want %q", a.Err, want)
	}
}

func TestCallsThatHaveOneIndexAreCallsOfTheirOwn(t *testing.T) {
	t.Parallel()
	var s modeltest.Script
	for _, id := range []string{"a", "b"} {
		s = s.Raw(modeltest.Frame("event", "contentBlockStart",
			`{"contentBlockIndex":0,"start":{"toolUse":{"toolUseId":"`+id+`","name":"f"}}}`)).
			Raw(modeltest.Frame("event", "contentBlockDelta",
				`{"contentBlockIndex":0,"delta":{"toolUse":{"input":"{\"id\":\"`+id+`\"}"}}}`))
	}
	a := answerOf(t, s.Finish("tool_use"))
	want := []model.ToolCall{{ID: "a", Name: "f", Arguments: `{"id":"a"}`}, {ID: "b", Name: "f", Arguments: `{"id":"b"}`}}
	if a.Err != nil || !cmp.Equal(want, a.End.ToolCalls) {
		t.Errorf("%v %+v", a.Err, a.End)
	}
}
