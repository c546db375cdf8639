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

// callError classifies why a request got no answer. resp is nil when the vendor was
// not reached; its body may be read. Cancellation passes through as its cause.
func (o Options) callError(ctx context.Context, resp *http.Response, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if resp != nil && !isAnswer(resp) {
		return o.statusError(resp)
	}
	return o.vendor().Unreached(err)
}

func (o Options) vendor() upstream.Keyed {
	return upstream.Keyed{Name: "anthropic", Key: o.APIKey, Variable: "ANTHROPIC_API_KEY", RequestID: "Request-Id"}
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
	return o.vendor().Refused(resp, cmp.Or(body.Error.Message, body.Message), resp.StatusCode == statusOverloaded || busy[body.Error.Type])
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

// public makes a vendor's text fit for the caller.
func (o Options) public(text string) string { return o.vendor().Words(text) }
