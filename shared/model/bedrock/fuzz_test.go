package bedrock_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/bedrock"
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

// Whatever a server sends: the rules of model.Model hold (Listen fails otherwise),
// an error is the vendor's and an end has a reason.
func FuzzAnswer(f *testing.F) {
	frame := modeltest.Frame
	f.Add(frame("event", "messageStart", `{"role":"assistant"}`)+frame("event", "contentBlockDelta", `{"contentBlockIndex":0,"delta":{"text":"é"}}`)+
		frame("event", "messageStop", `{"stopReason":"end_turn"}`)+frame("event", "metadata", `{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3}}`), false)
	f.Add(frame("event", "contentBlockStart", `{"contentBlockIndex":1,"start":{"toolUse":{"toolUseId":"a","name":"f"}}}`)+
		frame("event", "contentBlockDelta", `{"contentBlockIndex":1,"delta":{"toolUse":{"input":"{}"}}}`)+frame("event", "messageStop", `{"stopReason":"tool_use"}`), false)
	f.Add(frame("exception", "throttlingException", `{"message":"slow"}`), false)
	f.Add("\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2\x48\xeb\x7d\x98\xc8\xff", false)
	f.Add(`{"output":{"message":{"role":"assistant","content":[{"text":"x"},{"toolUse":{"toolUseId":"a","name":"f","input":{"n":1e400}}}]}},"stopReason":"tool_use"}`, true)
	f.Add(`{"output":{"message":null},"stopReason":"end_turn","usage":null}`, true)
	f.Fuzz(func(t *testing.T, body string, whole bool) {
		r, contentType := modeltest.Ask("hello"), "application/vnd.amazon.eventstream"
		if r.Whole = whole; whole {
			contentType = "application/json"
		}
		m := bedrock.Once(bedrock.Options{ID: "m", Region: "eu-central-1", HTTPClient: canned(contentType, body), Credentials: credentials})
		a := modeltest.Listen(t.Context(), t, m, r)
		if kind := fault.KindOf(a.Err); a.Err != nil && kind != fault.Upstream && kind != fault.Unavailable {
			t.Errorf("%v is of kind %d", a.Err, kind)
		}
		if a.End != nil && a.End.FinishReason == "" {
			t.Errorf("%+v", a.End)
		}
	})
}
