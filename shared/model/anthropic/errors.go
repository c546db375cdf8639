package anthropic

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// callError returns the error for a request that got no answer. resp is nil if the
// provider wasn't reached; otherwise its body is still unread. A cancelled context
// yields its cause, as model.Model requires.
func (o Options) callError(ctx context.Context, resp *http.Response, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if resp != nil && !isAnswer(resp) {
		return o.statusError(resp)
	}
	return o.provider().SendError(err)
}

// provider returns what all errors of the Messages API have in common.
func (o Options) provider() upstream.KeyedProvider {
	return upstream.KeyedProvider{
		Name: "anthropic", Key: o.APIKey, Headers: o.Headers, Variable: "ANTHROPIC_API_KEY", RequestID: "Request-Id",
	}
}

// apiError is the API's own form of an error
// (https://platform.claude.com/docs/en/api/errors).
type apiError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// busy holds the error types of requests that may be repeated later.
var busy = map[string]bool{"rate_limit_error": true, "overloaded_error": true}

// statusOverloaded is Anthropic's own HTTP status for overloaded_error.
const statusOverloaded = 529

// statusError returns the error for an HTTP error response, with the provider's error
// text if it has one. Gateways put the text beside "error", and proxies answer with
// HTML, which has none.
func (o Options) statusError(resp *http.Response) error {
	raw, _ := io.ReadAll(resp.Body) // if the body breaks off, the status is still known
	var body struct {
		Error   apiError `json:"error"`
		Message string   `json:"message"`
	}
	_ = json.Unmarshal(raw, &body) // if it isn't JSON, there is no text
	repeatable := resp.StatusCode == statusOverloaded || busy[body.Error.Type]
	return o.provider().StatusError(resp, cmp.Or(body.Error.Message, body.Message), repeatable)
}

// streamError returns the error for an error object that came in place of an answer, or
// within a stream.
func (o Options) streamError(raw json.RawMessage) error {
	var reported apiError
	_ = json.Unmarshal(raw, &reported) // any other form has no text
	e := &fault.Error{
		Kind:   fault.Upstream,
		Detail: cmp.Or(o.safeText(reported.Message), upstream.NoAnswer),
		Cause:  errors.New("anthropic: an error within the answer"),
	}
	if busy[reported.Type] {
		e.Kind = fault.Unavailable
	}
	return e
}

// safeText returns a provider's text without secrets.
func (o Options) safeText(text string) string { return o.provider().SafeText(text) }
