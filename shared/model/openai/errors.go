package openai

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"

	"github.com/keyway-agents/keyway/shared/fault"
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
	if _, ok := errors.AsType[*url.Error](err); !ok {
		return fmt.Errorf("openai: %w", err) // never left this process: not the vendor's fault
	}
	return upstream.Lost(err)
}

// statusError turns an HTTP error into a fault with the vendor's own words.
func (o Options) statusError(resp *http.Response) error {
	raw, _ := io.ReadAll(resp.Body) // half a body still names the status
	var body struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	_ = json.Unmarshal(raw, &body) // proxies answer in HTML
	said := o.public(cmp.Or(vendorText(body.Error), body.Message))
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	e := &fault.Error{
		Kind:   fault.Upstream,
		Detail: cmp.Or(said, "The model's server answered "+status),
		Cause:  fmt.Errorf("openai: status %s, request id %q", status, resp.Header.Get("X-Request-Id")),
	}
	const remedy = "check OPENAI_API_KEY or the model's api_key"
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		e.Kind, e.RetryAfter = fault.Unavailable, upstream.RetryAfter(resp.Header, "Retry-After-Ms")
	case resp.StatusCode == http.StatusUnauthorized && o.APIKey == "":
		e.Detail = "The model's server wants an API key: " + remedy
	case resp.StatusCode == http.StatusUnauthorized: // the vendor's own text shows parts of the key
		e.Detail = "The model's server rejected the API key: " + remedy
	case resp.StatusCode == http.StatusForbidden:
		e.Detail = fmt.Sprintf("The model's server refuses access with this API key (%s): %s", remedy, cmp.Or(said, status))
	}
	return e
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

// keyLike finds OpenAI's keys, also as OpenAI masks them: sk-proj-****abcd.
var keyLike = regexp.MustCompile(`sk-[\w*-]+`)

// public makes a vendor's text fit for the caller.
func (o Options) public(text string) string {
	return upstream.Words(text, keyLike, o.APIKey)
}
