package openai

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The texts of failures that come without one from the vendor. The first two are
// what AgentOS 3.1.10 answers.
const (
	textConnection = "Connection error."
	textTimeout    = "Request timed out."
	textCutShort   = "The model's answer ended before it was complete"
	textNoAnswer   = "The model's server sent something that is not an answer"
	textNoStream   = "The model's server did not answer with an event stream: check base_url"
	textTooLong    = "The model's server sent an event of more than 10 MB"
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
	return connectionError(err)
}

// brokeOff says why a stream ended before its end mark. err is the decoder's.
func (e *events) brokeOff(err error, contentType, mark string) error {
	switch lost := e.err; {
	case errors.Is(lost, bufio.ErrTooLong):
		return fault.Public(fault.Upstream, textTooLong, err)
	case lost == nil: // there was more to read, but not JSON
		return fault.Public(fault.Upstream, textNoAnswer, fmt.Errorf("openai: event: %w", err))
	case lost != io.EOF: //nolint:errorlint // a wrapped EOF is a lost connection
		return connectionError(lost)
	case !e.any && !strings.HasPrefix(contentType, "text/event-stream"):
		return fault.Public(fault.Upstream, textNoStream, fmt.Errorf("openai: content type %q", contentType))
	default:
		return fault.Public(fault.Upstream, textCutShort, errors.New("openai: no "+mark))
	}
}

// connectionError is for a vendor who can't be reached or is lost.
func connectionError(err error) error {
	text := textConnection
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		text = textTimeout
	}
	return fault.Public(fault.Upstream, text, err)
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
		e.Kind, e.RetryAfter = fault.Unavailable, retryAfter(resp.Header)
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

// public makes a vendor's text fit for the caller: without keys and at most 500
// characters, cut last so that no piece of a key survives the cut.
func (o Options) public(text string) string {
	if o.APIKey != "" {
		text = strings.ReplaceAll(text, o.APIKey, "***")
	}
	text = strings.TrimSpace(keyLike.ReplaceAllString(text, "***"))
	if r := []rune(text); len(r) > 500 {
		text = string(r[:500])
	}
	return text
}

// retryAfter reads Retry-After-Ms (OpenAI) or Retry-After, seconds or a date
// (RFC 9110, section 10.2.3), the latter against the response's own Date so that
// clocks need not agree. Unreadable or past: 0.
func retryAfter(h http.Header) time.Duration {
	wait, err := time.ParseDuration(h.Get("Retry-After-Ms") + "ms")
	if err != nil {
		wait, err = time.ParseDuration(h.Get("Retry-After") + "s")
	}
	if err != nil {
		at, _ := http.ParseTime(h.Get("Retry-After"))
		now, _ := http.ParseTime(h.Get("Date"))
		wait = at.Sub(now)
	}
	return max(wait, 0)
}
