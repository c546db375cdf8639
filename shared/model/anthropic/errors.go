package anthropic

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

// callError classifies why a request got no answer. resp is nil when the vendor was
// not reached; its body may be read. Cancellation passes through as its cause.
func (o Options) callError(ctx context.Context, resp *http.Response, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if resp != nil && !isAnswer(resp) {
		return o.statusError(resp)
	}
	if _, ok := errors.AsType[*url.Error](err); !ok {
		return fmt.Errorf("anthropic: %w", err) // never left this process: not the vendor's fault
	}
	return upstream.Lost(err)
}

// vendorError is the API's own form of an error.
type vendorError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// busy are the types of requests that may come again later.
var busy = map[string]bool{"rate_limit_error": true, "overloaded_error": true}

// statusOverloaded is the vendor's own status for that.
const statusOverloaded = 529

// statusError turns an HTTP error into a fault with the vendor's own words.
func (o Options) statusError(resp *http.Response) error {
	raw, _ := io.ReadAll(resp.Body) // half a body still names the status
	var body struct {
		Error   vendorError `json:"error"`
		Message string      `json:"message"` // a gateway's
	}
	_ = json.Unmarshal(raw, &body) // proxies answer in HTML
	said := o.public(cmp.Or(body.Error.Message, body.Message))
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	e := &fault.Error{
		Kind:   fault.Upstream,
		Detail: cmp.Or(said, "The model's server answered "+status),
		Cause:  fmt.Errorf("anthropic: status %s, request id %q", status, resp.Header.Get("Request-Id")),
	}
	const remedy = "check ANTHROPIC_API_KEY or the model's api_key"
	switch {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == statusOverloaded, busy[body.Error.Type]:
		e.Kind, e.RetryAfter = fault.Unavailable, upstream.RetryAfter(resp.Header, retryMilliseconds)
	case resp.StatusCode == http.StatusUnauthorized && o.APIKey == "":
		e.Detail = "The model's server wants an API key: " + remedy
	case resp.StatusCode == http.StatusUnauthorized:
		e.Detail = "The model's server rejected the API key: " + remedy
	case resp.StatusCode == http.StatusForbidden:
		e.Detail = fmt.Sprintf("The model's server refuses access with this API key (%s): %s", remedy, cmp.Or(said, status))
	}
	return e
}

// streamError is for an error in the place of an answer or within it.
func (o Options) streamError(raw json.RawMessage) error {
	var said vendorError
	_ = json.Unmarshal(raw, &said) // another form: no words
	e := &fault.Error{
		Kind:   fault.Upstream,
		Detail: cmp.Or(o.public(said.Message), upstream.NoAnswer),
		Cause:  errors.New("anthropic: an error within the answer"),
	}
	if busy[said.Type] {
		e.Kind = fault.Unavailable
	}
	return e
}

// keyLike finds Anthropic's keys, also masked: sk-ant-api03-….
var keyLike = regexp.MustCompile(`sk-[\w*-]+`)

// public makes a vendor's text fit for the caller.
func (o Options) public(text string) string { return upstream.Words(text, keyLike, o.APIKey) }
