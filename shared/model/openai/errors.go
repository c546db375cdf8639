package openai

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// callError classifies why a request got no stream. resp is nil when the vendor
// was not reached; its body may be read. Cancellation passes through as its cause.
func (o Options) callError(ctx context.Context, resp *http.Response, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if resp != nil && resp.StatusCode >= http.StatusBadRequest {
		return o.statusError(resp)
	}
	return o.vendor().Unreached(err)
}

func (o Options) vendor() upstream.Keyed {
	return upstream.Keyed{Name: "openai", Key: o.APIKey, Variable: "OPENAI_API_KEY", RequestID: "X-Request-Id"}
}

// statusError turns an HTTP error into a fault with the vendor's own words.
func (o Options) statusError(resp *http.Response) error {
	raw, _ := io.ReadAll(resp.Body) // half a body still names the status
	var body struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	_ = json.Unmarshal(raw, &body) // proxies answer in HTML
	return o.vendor().Refused(resp, cmp.Or(vendorText(body.Error), body.Message), false)
}

// vendorText finds the words in an error value: {"message": "…"} (OpenAI) or a
// plain string (Ollama and others).
func vendorText(v json.RawMessage) string {
	var object struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(v, &object) == nil {
		return object.Message
	}
	var text string
	_ = json.Unmarshal(v, &text) // neither form: no words
	return text
}

// public makes a vendor's text fit for the caller.
func (o Options) public(text string) string {
	return o.vendor().Words(text)
}
