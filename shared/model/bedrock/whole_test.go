package bedrock_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var askWhole = model.Request{Messages: []model.Message{{Role: model.User, Content: "hello"}}, Whole: true}

func hearWhole(t *testing.T, script modeltest.Script) (modeltest.Answer, *modeltest.Server) {
	t.Helper()
	srv := modeltest.NewServer(t, script)
	return modeltest.Listen(t.Context(), t, bedrock.Once(on(t, srv)), askWhole), srv
}

func TestAWholeAnswerIsAskedForAndSaysWhatAStreamSays(t *testing.T) {
	t.Parallel()
	script := modeltest.Text("naïve ", "日本").ToolCall("f", `{"n":12345678901234567890,"é":1.5}`).ToolCall("g", "{}").Finish("max_tokens")
	streamed := hear(t, script)
	whole, srv := hearWhole(t, script)
	if diff := cmp.Diff(streamed.End, whole.End); diff != "" || whole.Err != nil || whole.Text != streamed.Text || len(whole.Parts) != 2 {
		t.Errorf("%v %+v %s", whole.Err, whole.Parts, diff)
	}
	if got := srv.Requests()[0].Path; got != "/v1/model/eu.anthropic.claude-sonnet-4-v1:0/converse" {
		t.Errorf("asked %s", got)
	}
}

func TestAWholeAnswerThatIsNoneIsAnError(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		script modeltest.Script
		kind   fault.Kind
		detail string
	}{
		"half a body":            {modeltest.Text("hello").Truncate(), fault.Upstream, cutShort},
		"a lost connection":      {modeltest.Text("hello").Drop(), fault.Upstream, "Connection error."},
		"HTML":                   {modeltest.Script{}.Raw("<html>"), fault.Upstream, noAnswer},
		"nothing":                {modeltest.Script{}.Raw(""), fault.Upstream, cutShort},
		"an object of no answer": {modeltest.Script{}.Raw("{}"), fault.Upstream, noAnswer},
		"no stopReason":          {modeltest.Script{}.Raw(`{"output":{"message":{"role":"assistant","content":[{"text":"x"}]}}}`), fault.Upstream, noAnswer},
		"members of other types": {modeltest.Script{}.Raw(`{"output":7,"stopReason":{}}`), fault.Upstream, noAnswer},
		"an answer without end":  {modeltest.Script{}.Huge(11 << 20), fault.Upstream, "The model's server sent an event of more than 10 MB"},
		"an HTTP error":          {modeltest.Fail(http.StatusTooManyRequests, "slow down").Header("Retry-After", "7"), fault.Unavailable, "slow down"},
		"a withheld answer":      {modeltest.Script{}.Finish("content_filtered"), fault.Upstream, "The model's answer was withheld (content_filtered)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, _ := hearWhole(t, row.script)
			if a.Err == nil || fault.KindOf(a.Err) != row.kind || fault.Detail(a.Err) != row.detail || strings.Contains(a.Err.Error(), modeltest.APIKey) {
				t.Errorf("%v: %q", a.Err, fault.Detail(a.Err))
			}
		})
	}
}

func TestWaitingForAWholeAnswerCanBeCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	srv := modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		cancel(cause) // the request is here, so its sender waits
		return modeltest.Script{}.Wait(nil)
	})
	a := modeltest.Listen(ctx, t, bedrock.Once(on(t, srv)), askWhole)
	if a.Err != cause { //nolint:errorlint // it must be the cause itself
		t.Errorf("%v", a.Err)
	}
	srv.Quiet(t)
}
