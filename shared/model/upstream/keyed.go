package upstream

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/keyway-agents/keyway/shared/fault"
)

// KeyedProvider describes a provider that authenticates requests by an API key. Its
// methods build the errors of a failed request. OpenAI and Anthropic share it.
type KeyedProvider struct {
	// Name is the provider's name in the log, such as "openai".
	Name string
	// Key is the API key. Empty means that no key is sent.
	Key string
	// Headers are the operator's own headers, which are sent with each request. Defaults
	// to none.
	Headers http.Header
	// Variable is the environment variable that usually holds the key, such as
	// "OPENAI_API_KEY". Error texts name it.
	Variable string
	// RequestID is the response header with the provider's ID of the request, for the
	// log.
	RequestID string
}

// keyPattern matches API keys of OpenAI and Anthropic, also masked ones:
// sk-proj-****abcd, sk-ant-api03-…. It is compiled when the first error is shown.
var keyPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`sk-[\w*-]+`) })

// SafeText returns the provider's error text without the API key, without the values of
// the operator's headers and their words, and without anything that looks like a key. A
// server that rejects "Bearer TOKEN" quotes the whole value, or only the token.
func (p KeyedProvider) SafeText(text string) string {
	secrets := []string{p.Key}
	for _, values := range p.Headers {
		for _, v := range values {
			secrets = append(append(secrets, v), strings.Fields(v)...)
		}
	}
	return SafeText(text, keyPattern(), secrets...)
}

// SendError returns the error for a request that got no response. If the request failed on
// the network, the error is a ConnectionError. If the request was never sent (because a
// tool's schema isn't JSON, for example), the cause is not the provider, so the error is
// an internal one.
func (p KeyedProvider) SendError(err error) error {
	if _, ok := errors.AsType[*url.Error](err); !ok {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	return ConnectionError(err)
}

// StatusError returns the error for an HTTP error response, whose body is still unread.
//
// The caller sees the provider's text, because it is usually the only explanation
// ("maximum context length is …"). The exception is 401, where OpenAI's text repeats
// parts of the rejected key. 401 and 403 also name the setting that the operator has to
// check. A text that only repeats the status, as FastAPI's "Not Found" does, and the body
// of a redirect explain nothing.
func (p KeyedProvider) StatusError(resp *http.Response) error {
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // if it breaks off, the status is still known
	r := ReportIn(raw)
	text := p.SafeText(r.Text)
	if resp.StatusCode < http.StatusBadRequest || strings.EqualFold(text, http.StatusText(resp.StatusCode)) {
		text = ""
	}
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	e := &fault.Error{
		Kind:   fault.Upstream,
		Detail: cmp.Or(text, "The model's server answered "+status),
		Cause:  fmt.Errorf("%s: status %s, request id %q", p.Name, status, resp.Header.Get(p.RequestID)),
	}
	remedy := "check " + p.Variable + " or the model's api_key"
	if len(p.Headers) > 0 {
		remedy += " and headers"
	}
	switch {
	case r.Busy || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == statusOverloaded:
		e.Kind, e.RetryAfter = fault.Unavailable, RetryAfter(resp.Header)
	case resp.StatusCode == http.StatusUnauthorized && p.Key == "":
		e.Detail = "The model's server requires an API key: " + remedy
	case resp.StatusCode == http.StatusUnauthorized:
		e.Detail = "The model's server rejected the API key: " + remedy
	case resp.StatusCode == http.StatusForbidden:
		e.Detail = fmt.Sprintf("The model's server denies access with this API key (%s): %s", remedy, cmp.Or(text, status))
	}
	return e
}

// statusOverloaded is Anthropic's own HTTP status for overloaded_error.
const statusOverloaded = 529

// ReportError returns the error for a report that came in place of an answer, or within a
// stream. The caller sees the report's text, or NoAnswer if it has none.
func (p KeyedProvider) ReportError(r Report) error {
	e := &fault.Error{
		Kind:   fault.Upstream,
		Detail: cmp.Or(p.SafeText(r.Text), NoAnswer),
		Cause:  errors.New(p.Name + ": an error within the answer"),
	}
	if r.Busy {
		e.Kind = fault.Unavailable
	}
	return e
}
