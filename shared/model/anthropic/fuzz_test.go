package anthropic_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/anthropic"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// canned is a client that gets every request this answer.
func canned(contentType, body string) *http.Client {
	return &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
		_ = r.Body.Close()
		return &http.Response{
			StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	})}
}

// Whatever a server sends: the rules of model.Model hold (Listen fails otherwise), an
// error is the vendor's, an end has a reason, and what it wants back can be sent.
func FuzzAnswer(f *testing.F) {
	f.Add(sse(start, begin, hi, over, stop), false)
	f.Add(sse(begun, arguments, called, stop), false)
	f.Add(sse(thinking...), false)
	f.Add(sse(`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`), false)
	f.Add(thinkingWhole, true)
	f.Add(`{"content":[{"type":"tool_use","id":"a","name":"f","input":{"n":1e400}}],"stop_reason":"tool_use","usage":null}`, true)
	f.Fuzz(func(t *testing.T, body string, whole bool) {
		r, contentType := modeltest.Ask("hello"), "text/event-stream"
		if r.Whole = whole; whole {
			contentType = "application/json"
		}
		m := anthropic.New(anthropic.Options{ID: "m", HTTPClient: canned(contentType, body)})
		a := modeltest.Listen(t.Context(), t, m, r)
		if kind := fault.KindOf(a.Err); a.Err != nil && kind != fault.Upstream && kind != fault.Unavailable {
			t.Errorf("%v is of kind %d", a.Err, kind)
		}
		if a.End == nil {
			return
		}
		if a.End.FinishReason == "" {
			t.Errorf("%+v", a.End)
		}
		r.Messages = append(r.Messages, model.Message{Role: model.Assistant, Content: a.Text, ToolCalls: a.End.ToolCalls, Opaque: a.End.Opaque})
		if again := modeltest.Listen(t.Context(), t, m, r); again.Err != nil {
			t.Errorf("what came back can't be sent: %v", again.Err)
		}
	})
}
