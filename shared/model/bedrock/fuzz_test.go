package bedrock_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
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
	frame := modeltest.Frame
	f.Add(frame("event", "messageStart", `{"role":"assistant"}`)+
		frame("event", "contentBlockDelta", `{"contentBlockIndex":0,"delta":{"text":"é"}}`)+
		frame("event", "messageStop", `{"stopReason":"end_turn"}`)+
		frame("event", "metadata", `{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3}}`), false)
	f.Add(frame("event", "contentBlockStart", `{"contentBlockIndex":1,"start":{"toolUse":{"toolUseId":"a","name":"f"}}}`)+
		frame("event", "contentBlockDelta", `{"contentBlockIndex":1,"delta":{"toolUse":{"input":"{}"}}}`)+
		frame("event", "messageStop", `{"stopReason":"tool_use"}`), false)
	f.Add(reasoning(`{"text":"hm"}`)+reasoning(`{"signature":"c2ln"}`)+hidden+
		frame("event", "messageStop", `{"stopReason":"max_tokens"}`), false)
	f.Add(frame("exception", "throttlingException", `{"message":"slow"}`), false)
	f.Add("\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2\x48\xeb\x7d\x98\xc8\xff", false)
	const content = `[{"text":"x"},{"toolUse":{"toolUseId":"a","name":"f","input":{"n":1e400}}}]`
	f.Add(`{"output":{"message":{"role":"assistant","content":`+content+`}},"stopReason":"tool_use"}`, true)
	f.Add(`{"output":{"message":null},"stopReason":"end_turn","usage":null}`, true)
	f.Fuzz(func(t *testing.T, body string, whole bool) {
		r, contentType := modeltest.Ask("hello"), "application/vnd.amazon.eventstream"
		if r.Whole = whole; whole {
			contentType = "application/json"
		}
		m := bedrock.NewOnce(bedrock.Options{
			ID: "m", Region: "eu-central-1", HTTPClient: canned(contentType, body), Credentials: credentials,
		})
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
