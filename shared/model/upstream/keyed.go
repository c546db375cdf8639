package upstream

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Keyed is a vendor who takes an API key.
type Keyed struct {
	Name      string // of the provider: "openai"
	Key       string // "": none is sent
	Variable  string // where a key usually is: "OPENAI_API_KEY"
	RequestID string // the header with the vendor's id of a request
}

// RetryMilliseconds is these vendors' own header for when to ask again.
const RetryMilliseconds = "Retry-After-Ms"

// keyLike finds their keys, also masked: sk-proj-****abcd, sk-ant-api03-….
var keyLike = regexp.MustCompile(`sk-[\w*-]+`)

// Words makes the vendor's text fit for the caller.
func (k Keyed) Words(text string) string { return Words(text, keyLike, k.Key) }

// Unreached is for a request that got no response.
func (k Keyed) Unreached(err error) error {
	if _, ok := errors.AsType[*url.Error](err); !ok {
		return fmt.Errorf("%s: %w", k.Name, err) // never left this process: not the vendor's fault
	}
	return Lost(err)
}

// Refused is for an HTTP error. said is the vendor's own words, if it has any; busy that the
// request may come again, as with 429.
func (k Keyed) Refused(resp *http.Response, said string, busy bool) error {
	said = k.Words(said)
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	e := &fault.Error{
		Kind:   fault.Upstream,
		Detail: cmp.Or(said, "The model's server answered "+status),
		Cause:  fmt.Errorf("%s: status %s, request id %q", k.Name, status, resp.Header.Get(k.RequestID)),
	}
	remedy := "check " + k.Variable + " or the model's api_key"
	switch {
	case busy || resp.StatusCode == http.StatusTooManyRequests:
		e.Kind, e.RetryAfter = fault.Unavailable, RetryAfter(resp.Header, RetryMilliseconds)
	case resp.StatusCode == http.StatusUnauthorized && k.Key == "":
		e.Detail = "The model's server wants an API key: " + remedy
	case resp.StatusCode == http.StatusUnauthorized: // the vendor's own text shows parts of the key
		e.Detail = "The model's server rejected the API key: " + remedy
	case resp.StatusCode == http.StatusForbidden:
		e.Detail = fmt.Sprintf("The model's server refuses access with this API key (%s): %s", remedy, cmp.Or(said, status))
	}
	return e
}
