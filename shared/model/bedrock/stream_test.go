package bedrock_test

import (
	"net/http"
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

// damaged is a frame of text whose byte at index i, from the end when it is
// negative, has another value: of the length, of the JSON or of a checksum.
func damaged(i int) string {
	frame := []byte(modeltest.Frame("event", "contentBlockDelta", `{"contentBlockIndex":0,"delta":{"text":"forged"}}`))
	if i < 0 {
		i += len(frame)
	}
	frame[i] ^= 0x40
	return string(frame)
}

func TestAFrameThatIsNotWholeIsAnError(t *testing.T) {
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
		"a frame but for its checksum":      {modeltest.Text("ok").Raw(frame[:len(frame)-4]).Truncate(), cutShort},
		"half a head and a clean end":       {modeltest.Text("ok").Raw("\x00\x00").Truncate(), cutShort},
		"half a frame and a lost connection": {
			modeltest.Text("ok").Raw(frame[:60]).Drop(), "Connection error."},
		"JSON that is none":              {modeltest.Text("ok").Raw(modeltest.Frame("event", "contentBlockDelta", `{"contentBlockIndex":`)), noAnswer},
		"a kind of message that is none": {modeltest.Text("ok").Raw(modeltest.Frame("letter", "x", `{}`)), noAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := hear(t, row.script)
			if a.Err == nil || fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != row.detail || a.Text != "ok" {
				t.Errorf("%q, then %v\nwant the public text %q", a.Text, a.Err, row.detail)
			}
		})
	}
}

func TestAnEventWithoutEndIsNotHeldInMemory(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]modeltest.Script{
		"a text":    modeltest.Script{}.Huge(11 << 20),
		"arguments": modeltest.ToolCall("f", "{}").Raw(hugeArguments()).Raw(hugeArguments()),
	} {
		a := hear(t, script)
		if fault.Detail(a.Err) != "The model's server sent an event of more than 10 MB" {
			t.Errorf("%s: %v", name, a.Err)
		}
	}
}

func hugeArguments() string {
	return modeltest.Frame("event", "contentBlockDelta", `{"contentBlockIndex":0,"delta":{"toolUse":{"input":"`+strings.Repeat("x", 6<<20)+`"}}}`)
}

func TestAnExceptionWithinTheStreamIsTheRunsError(t *testing.T) {
	t.Parallel()
	for exception, row := range map[string]struct {
		payload string
		kind    fault.Kind
		detail  string
	}{
		"internalServerException":      {`{"message":"The system encountered an unexpected error"}`, fault.Upstream, "The system encountered an unexpected error"},
		"modelStreamErrorException":    {`{"message":"lost the thread","originalStatusCode":500,"originalMessage":"x"}`, fault.Upstream, "lost the thread"},
		"throttlingException":          {`{"message":"Too many tokens, please wait"}`, fault.Unavailable, "Too many tokens, please wait"},
		"serviceUnavailableException":  {`{"message":"busy"}`, fault.Upstream, "busy"},
		"validationException":          {`{"message":"see arn:aws:bedrock:eu-central-1:123456789012:guardrail/x of 123456789012"}`, fault.Upstream, "see *** of ***"},
		"somethingOfTomorrowException": {`{"message":"new"}`, fault.Upstream, "new"},
		"modelTimeoutException":        {`{}`, fault.Upstream, "The model's server answered modelTimeoutException"},
	} {
		t.Run(exception, func(t *testing.T) {
			t.Parallel()
			a := hear(t, modeltest.Text("half ").Raw(modeltest.Frame("exception", exception, row.payload)).Text("never"))
			if a.Err == nil || fault.KindOf(a.Err) != row.kind || fault.Detail(a.Err) != row.detail || a.Text != "half " {
				t.Errorf("%q, then %v, public %q", a.Text, a.Err, fault.Detail(a.Err))
			}
			if strings.Contains(a.Err.Error(), "123456789012") {
				t.Errorf("the log gets %v", a.Err)
			}
		})
	}
}

func TestWithItsStopReasonAnAnswerIsWhole(t *testing.T) {
	t.Parallel()
	stop := modeltest.Frame("event", "messageStop", `{"stopReason":"end_turn"}`)
	for name, script := range map[string]modeltest.Script{
		"a clean end":            modeltest.Text("done").Raw(stop).Truncate(),
		"a lost connection":      modeltest.Text("done").Raw(stop).Drop(),
		"an event of tomorrow":   modeltest.Text("done").Raw(modeltest.Frame("event", "mood", `{"x":1}`)).Raw(stop).Truncate(),
		"a block that is no one": modeltest.Text("done").Raw(modeltest.Frame("event", "contentBlockDelta", `{"delta":{"song":{}}}`)).Raw(stop).Truncate(),
	} {
		a := hear(t, script)
		if a.Err != nil || a.Text != "done" || a.End.FinishReason != "end_turn" || a.End.Usage != (model.Usage{}) {
			t.Errorf("%s: %q %v %+v", name, a.Text, a.Err, a.End)
		}
	}
	if a := hear(t, modeltest.Text("done").Raw(stop).Raw(damaged(-1))); fault.Detail(a.Err) != noAnswer {
		t.Errorf("junk after the stop reason: %v", a.Err)
	}
}

func TestWhatAModelThinksIsNoPartOfTheAnswer(t *testing.T) {
	t.Parallel()
	a := hear(t, modeltest.Script{}.
		Raw(modeltest.Frame("event", "messageStart", `{"role":"assistant"}`)).
		Raw(modeltest.Frame("event", "contentBlockDelta", `{"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"hm"}}}`)).
		Raw(modeltest.Frame("event", "contentBlockDelta", `{"contentBlockIndex":0,"delta":{"reasoningContent":{"signature":"c2ln"}}}`)).
		Text("42"))
	if a.Err != nil || a.Text != "42" {
		t.Errorf("%q %v", a.Text, a.Err)
	}
}

// Stop reasons are shown as they are; an answer that stops at a limit is whole as
// far as it goes.
func TestWhyAnAnswerStopped(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		for reason, want := range map[string]string{
			"end_turn": "", "stop_sequence": "", "max_tokens": "", "model_context_window_exceeded": "", "guardrail_intervened": "", "content_filtered": "",
			"malformed_model_output": "The model's answer is malformed (malformed_model_output); try again",
			"malformed_tool_use":     "The model's answer is malformed (malformed_tool_use); try again",
		} {
			r := modeltest.Ask("hello")
			r.Whole = whole
			a := modeltest.Listen(t.Context(), t, bedrock.Once(on(t, modeltest.NewServer(t, modeltest.Text("Sorry.").Finish(reason)))), r)
			if fault.Detail(a.Err) != want && a.Err != nil || (a.Err == nil) != (want == "") || a.Text != "Sorry." && (a.Err == nil || !whole) {
				t.Errorf("%s: %q, %v", reason, a.Text, a.Err)
			}
			if a.End != nil && (a.End.FinishReason != reason || a.End.Usage.Total != 15) {
				t.Errorf("%s: %+v", reason, a.End)
			}
		}
	}
}

func TestSilenceIsExplained(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"guardrail_intervened", "content_filtered"} {
		a := hear(t, modeltest.Script{}.Finish(reason))
		if fault.Detail(a.Err) != "The model's answer was withheld ("+reason+")" || fault.KindOf(a.Err) != fault.Upstream {
			t.Errorf("%s: %v", reason, a.Err)
		}
	}
	if a := hear(t, modeltest.Script{}); a.Err != nil || a.Text != "" || a.End.FinishReason != "end_turn" {
		t.Errorf("an empty answer: %v %+v", a.Err, a.End)
	}
}

func TestAnswersThatAreNoStreamPointAtBaseURL(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"<html>welcome to this server</html>\n", ""} {
		a := hear(t, modeltest.Script{}.Raw(page).Header("Content-Type", "text/html").Truncate())
		if want := "The model's server did not answer with an event stream: check base_url"; fault.Detail(a.Err) != want {
			t.Errorf("%q: error %v, want %q", page, a.Err, want)
		}
	}
}

func TestACallCutByTheTokenLimitIsShownAsItIs(t *testing.T) {
	t.Parallel()
	a := hear(t, modeltest.ToolCall("f", `{"half":`).Finish("max_tokens"))
	want := []model.ToolCall{{ID: "call_1_1", Name: "f", Arguments: `{"half":`}}
	if a.Err != nil || !cmp.Equal(want, a.End.ToolCalls) {
		t.Errorf("%v %+v", a.Err, a.End)
	}
}

func TestTheConnectionIsUsedAgain(t *testing.T) {
	t.Parallel()
	var fresh []int
	for range 5 { // the end of a stream is waited for a moment only, which a busy machine may miss
		srv := modeltest.NewServer(t, modeltest.Text("a"), modeltest.Text("b"), modeltest.Text("c"))
		o := on(t, srv)
		counting := &dials{next: o.HTTPClient.Transport}
		o.HTTPClient = &http.Client{Transport: counting}
		m := bedrock.Once(o)
		for _, whole := range []bool{false, true, false} {
			r := modeltest.Ask("hello")
			r.Whole = whole
			if a := modeltest.Listen(t.Context(), t, m, r); a.Err != nil {
				t.Fatal(a.Err)
			}
		}
		if counting.fresh == 1 {
			return
		}
		fresh = append(fresh, counting.fresh)
	}
	t.Errorf("%v connections for 3 requests each, want 1", fresh)
}
