package anthropic_test

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

func TestAnAnswerInOnePieceIsRequestedWithoutStream(t *testing.T) {
	t.Parallel()
	srv := modeltest.NewServer(t, modeltest.Text("hi"))
	if a := wholeAnswerOf(t, srv); a.Err != nil || a.Text != "hi" {
		t.Errorf("text %q, error %v", a.Text, a.Err)
	}
	if body := srv.Requests()[0].Body; body["stream"] != nil {
		t.Errorf("request %v", body)
	}
}

func TestAnInvalidAnswerInOnePieceIsAnError(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body   string
		kind   fault.Kind
		detail string
	}{
		"no stop_reason": {
			`{"content":[{"type":"text","text":"x"}],"stop_reason":null}`, fault.Upstream, noAnswer},
		"an error with status 200": {
			`{"type":"error","error":{"type":"api_error","message":"oops"}}`, fault.Upstream, "oops"},
		"an overload with status 200": {
			`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, fault.Unavailable, "Overloaded"},
		"too many blocks": {
			`{"content":[` + strings.Repeat(`{},`, 400) + `{}],"stop_reason":"end_turn"}`, fault.Upstream, tooLong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := wholeAnswerOf(t, modeltest.NewServer(t, modeltest.Script{}.Raw(c.body)))
			if a.Err == nil || fault.KindOf(a.Err) != c.kind || fault.Detail(a.Err) != c.detail {
				t.Errorf("%v: public text %q, want %q", a.Err, fault.Detail(a.Err), c.detail)
			}
		})
	}
}
