package anthropic_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/anthropic"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var askWhole = model.Request{Messages: []model.Message{{Role: model.User, Content: "hello"}}, Whole: true}

func hearWhole(t *testing.T, scripts ...modeltest.Script) (modeltest.Answer, *modeltest.Server) {
	t.Helper()
	srv := modeltest.NewServer(t, scripts...)
	return modeltest.Listen(t.Context(), t, anthropic.New(on(t, srv)), askWhole), srv
}

func TestAWholeAnswerIsAskedForAndSaysWhatAStreamSays(t *testing.T) {
	t.Parallel()
	script := modeltest.Text("naïve ", "日本").ToolCall("f", `{"é":1}`).ToolCall("g", "{}")
	streamed := hear(t, script)
	whole, srv := hearWhole(t, script)
	if diff := cmp.Diff(streamed.End, whole.End); diff != "" || whole.Err != nil || whole.Text != streamed.Text {
		t.Errorf("%v %q %s", whole.Err, whole.Text, diff)
	}
	if len(whole.Parts) != 2 {
		t.Errorf("%+v", whole.Parts)
	}
	if body := srv.Requests()[0].Body; body["stream"] != nil {
		t.Errorf("%v", body)
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
		"no stop_reason":         {modeltest.Script{}.Raw(`{"content":[{"type":"text","text":"x"}],"stop_reason":null}`), fault.Upstream, noAnswer},
		"an error with 200":      {modeltest.Script{}.Raw(`{"type":"error","error":{"type":"api_error","message":"oops"}}`), fault.Upstream, "oops"},
		"an overload with 200":   {modeltest.Script{}.Raw(`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`), fault.Unavailable, "Overloaded"},
		"an answer without end":  {modeltest.Script{}.Huge(11 << 20), fault.Upstream, tooLong},
		"blocks without end":     {modeltest.Script{}.Raw(`{"content":[` + strings.Repeat(`{},`, 400) + `{}],"stop_reason":"end_turn"}`), fault.Upstream, tooLong},
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
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	srv := modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		cancel(cause)
		return modeltest.Script{}.Wait(nil)
	})
	a := modeltest.Listen(ctx, t, anthropic.New(on(t, srv)), askWhole)
	if !errors.Is(a.Err, cause) {
		t.Errorf("%v", a.Err)
	}
	srv.Quiet(t)
}
