package openai_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

var askWhole = model.Request{Messages: []model.Message{{Role: model.User, Content: "hello"}}, Whole: true}

func hearWhole(t *testing.T, scripts ...modeltest.Script) (modeltest.Answer, *modeltest.Server) {
	t.Helper()
	srv := modeltest.NewServer(t, scripts...)
	return modeltest.Listen(t.Context(), t, open(t, srv, openai.Options{}), askWhole), srv
}

func TestAWholeAnswerIsAskedForAndSaysWhatAStreamSays(t *testing.T) {
	t.Parallel()
	script := modeltest.Text("naïve ", "日本").ToolCall("f", `{"é":1}`).ToolCall("g", "{}").Finish("length")
	streamed := hear(t, script)
	whole, srv := hearWhole(t, script)
	if diff := cmp.Diff(streamed.End, whole.End); diff != "" || whole.Err != nil || whole.Text != streamed.Text {
		t.Errorf("%v %q %s", whole.Err, whole.Text, diff)
	}
	if len(whole.Parts) != 2 || string(whole.Parts[0].ProviderData) != `{"id":"chatcmpl-1","system_fingerprint":"fp_modeltest"}` {
		t.Errorf("%+v", whole.Parts)
	}
	body := srv.Requests()[0].Body
	if body["stream"] != nil || body["stream_options"] != nil {
		t.Errorf("%v", body)
	}
}

func TestAWholeAnswerThatIsNoneIsAnError(t *testing.T) {
	t.Parallel()
	const cut = "The model's answer ended before it was complete"
	const none = "The model's server sent something that is not an answer"
	for name, row := range map[string]struct {
		script modeltest.Script
		kind   fault.Kind
		detail string
	}{
		"half a body":            {modeltest.Text("hello").Truncate(), fault.Upstream, cut},
		"a lost connection":      {modeltest.Text("hello").Drop(), fault.Upstream, "Connection error."},
		"HTML":                   {modeltest.Script{}.Raw("<html>"), fault.Upstream, none},
		"nothing":                {modeltest.Script{}.Raw(""), fault.Upstream, cut},
		"an object of no answer": {modeltest.Script{}.Raw("{}"), fault.Upstream, none},
		"no finish_reason":       {modeltest.Script{}.Raw(`{"choices":[{"message":{"content":"x"}}]}`), fault.Upstream, none},
		"an error with 200":      {modeltest.Script{}.Raw(`{"error":{"message":"overloaded"}}`), fault.Upstream, "overloaded"},
		"an answer without end":  {modeltest.Script{}.Huge(11 << 20), fault.Upstream, "The model's server sent an event of more than 10 MB"},
		"an HTTP error":          {modeltest.Fail(http.StatusTooManyRequests, "slow down").Header("Retry-After", "7"), fault.Unavailable, "slow down"},
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
	srv := modeltest.NewServer(t, modeltest.Script{}.Wait(nil))
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	go func() {
		for len(srv.Requests()) == 0 {
			if ctx.Err() != nil {
				return
			}
		}
		cancel(cause)
	}()
	a := modeltest.Listen(ctx, t, open(t, srv, openai.Options{}), askWhole)
	if !errors.Is(a.Err, cause) {
		t.Errorf("%v", a.Err)
	}
	srv.Quiet(t)
}
