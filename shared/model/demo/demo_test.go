package demo_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/demo"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var tools = []model.ToolSpec{{Name: "web_search"}, {Name: "docs.read"}}

// send returns the answer to a message while the tools are offered.
func send(t *testing.T, text string) modeltest.Answer {
	t.Helper()
	r := modeltest.Ask(text)
	r.Tools = tools
	return answer(t, r)
}

// answer returns the answer to r and checks the rules that hold for every answer.
func answer(t *testing.T, r model.Request) modeltest.Answer {
	t.Helper()
	a := modeltest.Collect(t.Context(), t, demo.NewWithDelay("", 0), r)
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	if !strings.HasPrefix(a.Text, "This is Keyway's demo model: ") {
		t.Errorf("the answer %q doesn't start with the demo's name", a.Text)
	}
	return a
}

func TestDescribeNamesTheDemo(t *testing.T) {
	t.Parallel()
	want := model.Description{ID: "demo", Name: "Demo", Provider: "Demo", Family: "Demo"}
	if diff := cmp.Diff(want, demo.New("").Describe()); diff != "" {
		t.Error(diff)
	}
	if id := demo.New("small").Describe().ID; id != "small" {
		t.Errorf("id %q, want %q", id, "small")
	}
}

func TestAnAnswerRepeatsTheMessageAndListsTheTools(t *testing.T) {
	t.Parallel()
	a := send(t, "hello  there, 世界")
	for _, want := range []string{"You said: hello  there, 世界", "web_search, docs.read", "call tool NAME {json}"} {
		if !strings.Contains(a.Text, want) {
			t.Errorf("%q does not contain %q", a.Text, want)
		}
	}
	if a.End.FinishReason != "stop" || a.End.ToolCalls != nil {
		t.Errorf("end %+v", a.End)
	}
	if text := answer(t, modeltest.Ask("hello")).Text; !strings.Contains(text, "No tools were offered") {
		t.Errorf("the answer %q doesn't state that there are no tools", text)
	}
}

func TestTheSameConversationGetsTheSameAnswer(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(send(t, "call tool web_search"), send(t, "call tool web_search")); diff != "" {
		t.Errorf("second answer differs:\n%s", diff)
	}
}

func TestACommandInTheMessageCallsATool(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]model.ToolCall{
		`call tool web_search {"query":"cats"}`:            {Name: "web_search", Arguments: `{"query":"cats"}`},
		"call tool web_search":                             {Name: "web_search", Arguments: `{}`},
		"Please call tool docs.read{\"a\":{}} and stop.":   {Name: "docs.read", Arguments: `{"a":{}}`},
		"Call tool docs.read.":                             {Name: "docs.read", Arguments: `{}`},
		"First a line.\ncall tool web_search\n{\n\"q\":1}": {Name: "web_search", Arguments: "{\n\"q\":1}"},
	} {
		a := send(t, said)
		if diff := cmp.Diff([]model.ToolCall{want}, a.End.ToolCalls); diff != "" {
			t.Errorf("%q (-want +got):\n%s", said, diff)
		}
		if a.End.FinishReason != "tool_calls" {
			t.Errorf("%q: finish reason %q", said, a.End.FinishReason)
		}
	}
}

func TestACommandWithAnUnknownToolOrInvalidArgumentsCallsNothing(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]string{
		`call tool rm {"path":"/"}`:          "there is no tool rm. It was offered the tools web_search, docs.read",
		`call tool web_search {"query": oh}`: "it calls web_search only with a JSON object",
		`call tool web_search {"query":`:     "it calls web_search only with a JSON object",
	} {
		a := send(t, said)
		if len(a.End.ToolCalls) != 0 || !strings.Contains(a.Text, want) {
			t.Errorf("%q: %q and %+v, want %q and no calls", said, a.Text, a.End.ToolCalls, want)
		}
	}
}

func TestTheToolsResultIsReported(t *testing.T) {
	t.Parallel()
	call := model.ToolCall{ID: "call_1", Name: "web_search", Arguments: "{}"}
	r := model.Request{Tools: tools, Messages: []model.Message{
		{Role: model.User, Content: "call tool web_search"},
		{Role: model.Assistant, ToolCalls: []model.ToolCall{call}},
		{Role: model.ToolRole, ToolCallID: "call_1", Content: "3 results"},
	}}
	if a := answer(t, r); !strings.HasSuffix(a.Text, "web_search answered: 3 results") || a.End.ToolCalls != nil {
		t.Errorf("%q and %+v, want the result and no further call", a.Text, a.End.ToolCalls)
	}
	r.Messages = append(r.Messages, model.Message{Role: model.User, Content: "call tool web_search"})
	if a := answer(t, r); len(a.End.ToolCalls) != 1 || a.End.ToolCalls[0].ID == call.ID {
		t.Errorf("%+v, want one call with a new id", a.End.ToolCalls)
	}
}

func TestTokensAreWords(t *testing.T) {
	t.Parallel()
	a := answer(t, model.Request{Messages: []model.Message{
		{Role: model.System, Content: "be brief"}, {Role: model.User, Content: "one two three"},
	}})
	out := len(strings.Fields(a.Text))
	if diff := cmp.Diff(model.Usage{Input: 5, Output: out, Total: 5 + out}, a.End.Usage); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
}

func TestTheRepetitionOfALongMessageIsCut(t *testing.T) {
	t.Parallel()
	if a := answer(t, modeltest.Ask(strings.Repeat("é", 5000))); strings.Count(a.Text, "é") != 1000 {
		t.Errorf("%d characters are repeated, want 1000", strings.Count(a.Text, "é"))
	}
}

func TestAnswersStreamWordByWord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		a := modeltest.Collect(t.Context(), t, demo.New(""), modeltest.Ask("one two"))
		words := len(a.Parts) - 1
		if words < 10 || a.Parts[0].Text != "This " {
			t.Errorf("%d parts, the first is %q", words, a.Parts[0].Text)
		}
		if took, want := time.Since(start), time.Duration(words)*15*time.Millisecond; took != want {
			t.Errorf("%d words took %v, want %v", words, took, want)
		}
	})
}

func TestACancelledAnswerReturnsTheCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("the user pressed stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(why) })
		start := time.Now()
		a := modeltest.Collect(ctx, t, demo.NewWithDelay("", time.Hour), modeltest.Ask("hello"))
		if a.Err != why || time.Since(start) != time.Minute { //nolint:errorlint // the cause itself
			t.Errorf("error %v after %v, want the cause at once", a.Err, time.Since(start))
		}
		a = modeltest.Collect(ctx, t, demo.NewWithDelay("", 0), modeltest.Ask("hello"))
		if a.Err != why { //nolint:errorlint // likewise
			t.Errorf("error %v without a delay, want the cause", a.Err)
		}
	})
}
