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

// canned returns a client that answers every request with this body.
func canned(contentType, body string) *http.Client {
	return &http.Client{Transport: modeltest.Transport(func(r *http.Request) (*http.Response, error) {
		_ = r.Body.Close()
		return &http.Response{
			StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {contentType}},
			Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	})}
}

// FuzzAnswer checks, for any body that a server may send, that the rules of model.Model
// hold (Collect checks them), that an error is the provider's, that an End has a finish
// reason, and that its Opaque can be sent back.
func FuzzAnswer(f *testing.F) {
	f.Add(sse(start, textStart, hi, endTurn, stop), false)
	f.Add(sse(callStart, arguments, toolUse, stop), false)
	f.Add(sse(thinking...), false)
	f.Add(sse(`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`), false)
	for _, stream := range oddCalls {
		f.Add(stream, false)
	}
	f.Add("event: error\ndata: {\"code\":500,\"message\":\"m\",\"type\":\"server_error\"}\n\n", false)
	f.Add(thinkingWhole, true)
	const whole = `{"content":[{"type":"tool_use","id":"a","name":"f","input":{"n":1e400}}],"stop_reason":"tool_use",` +
		`"usage":null}`
	f.Add(whole, true)
	f.Fuzz(func(t *testing.T, body string, whole bool) {
		r, contentType := modeltest.Ask("hello"), "text/event-stream"
		if r.Whole = whole; whole {
			contentType = "application/json"
		}
		m := anthropic.New(anthropic.Options{ID: "m", HTTPClient: canned(contentType, body)})
		a := modeltest.Collect(t.Context(), t, m, r)
		if kind := fault.KindOf(a.Err); a.Err != nil && kind != fault.Upstream && kind != fault.Unavailable {
			t.Errorf("the error %v has the kind %d", a.Err, kind)
		}
		if a.End == nil {
			return
		}
		if a.End.FinishReason == "" {
			t.Errorf("the end %+v has no finish reason", a.End)
		}
		r.Messages = append(r.Messages, model.Message{
			Role: model.Assistant, Content: a.Text, ToolCalls: a.End.ToolCalls, Opaque: a.End.Opaque,
		})
		if again := modeltest.Collect(t.Context(), t, m, r); again.Err != nil {
			t.Errorf("the answer can't be sent back: %v", again.Err)
		}
	})
}
