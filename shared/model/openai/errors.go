package openai

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// callError returns the error for a request that got no answer. resp is nil if the
// provider wasn't reached; otherwise its body is still unread. A cancelled context
// yields its cause, as model.Model requires.
func (o Options) callError(ctx context.Context, resp *http.Response, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if resp != nil && resp.StatusCode >= http.StatusBadRequest {
		return o.statusError(resp)
	}
	return o.provider().SendError(err)
}

// provider returns what the errors of OpenAI's two APIs have in common.
func (o Options) provider() upstream.KeyedProvider {
	return upstream.KeyedProvider{
		Name: "openai", Key: o.APIKey, Headers: o.Headers, Variable: "OPENAI_API_KEY", RequestID: "X-Request-Id",
	}
}

// statusError returns the error for an HTTP error response, with the provider's error
// text if it has one. Gateways such as vLLM's put the text beside "error", and proxies
// answer with HTML, which has none.
func (o Options) statusError(resp *http.Response) error {
	raw, _ := io.ReadAll(resp.Body) // if the body breaks off, the status is still known
	var body struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	_ = json.Unmarshal(raw, &body) // if it isn't JSON, there is no text
	return o.provider().StatusError(resp, cmp.Or(errorText(body.Error), body.Message), false)
}

// errorText returns the text of an error value, which is {"message": "…"} from OpenAI
// and a plain string from Ollama and others. Any other form has no text.
func errorText(v json.RawMessage) string {
	var object struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(v, &object) == nil {
		return object.Message
	}
	var text string
	_ = json.Unmarshal(v, &text)
	return text
}

// safeText returns a provider's text without secrets.
func (o Options) safeText(text string) string {
	return o.provider().SafeText(text)
}
