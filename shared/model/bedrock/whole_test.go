package bedrock_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

func TestAnAnswerInOnePieceIsRequestedFromConverse(t *testing.T) {
	t.Parallel()
	script := modeltest.Text("hi").ToolCall("f", `{"n":12345678901234567890,"é":1.5}`)
	srv := modeltest.NewServer(t, script)
	whole := wholeAnswerOf(t, srv)
	if diff := cmp.Diff(answerOf(t, script).End, whole.End); diff != "" || whole.Err != nil || whole.Text != "hi" {
		t.Errorf("text %q, error %v, end (-streamed +whole):\n%s", whole.Text, whole.Err, diff)
	}
	if got := srv.Requests()[0].Path; got != "/v1/model/eu.anthropic.claude-sonnet-4-v1:0/converse" {
		t.Errorf("request to %s", got)
	}
}

func TestAnInvalidAnswerInOnePieceIsAnError(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script modeltest.Script
		detail string
	}{
		"no stopReason": {modeltest.Script{}.Raw(
			`{"output":{"message":{"role":"assistant","content":[{"text":"x"}]}}}`), noAnswer},
		"members of other types": {modeltest.Script{}.Raw(`{"output":7,"stopReason":{}}`), noAnswer},
		"a withheld answer": {
			modeltest.Script{}.Finish("content_filtered"), "The model's answer was withheld (content_filtered)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := wholeAnswerOf(t, modeltest.NewServer(t, c.script))
			if a.Err == nil || fault.KindOf(a.Err) != fault.Upstream || fault.Detail(a.Err) != c.detail {
				t.Errorf("%v: public text %q, want %q", a.Err, fault.Detail(a.Err), c.detail)
			}
		})
	}
}
