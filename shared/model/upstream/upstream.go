// Package upstream holds the HTTP behaviour that all providers share: timeouts, limits
// on what is read of a response, reading server-sent events, error texts that are safe
// to show to a caller, and retry delays. What a response means, which of its texts are
// secret, and which headers a provider uses is decided in the packages of the
// providers.
package upstream

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The error texts that callers see where the provider itself gave no reason. Connection
// and Timeout are the texts of AgentOS 3.1.10: clients compare them.
const (
	Connection = "Connection error."
	Timeout    = "Request timed out."

	// CutShort is for an answer that ended, cleanly, without its end mark.
	CutShort = "The model's answer ended before it was complete"
	// NoAnswer is for bytes that can't be decoded.
	NoAnswer = "The model's server sent something that is not an answer"
	// NoStream is for a response with status 200 that is no stream. It is usually the
	// page of a web server, because base_url lacks /v1 or is another service's.
	NoStream = "The model's server did not answer with an event stream: check base_url"
	// TooLong is for an answer beyond the limits for memory.
	TooLong = "The model's server sent an event of more than 10 MB, or more than 128 tool calls at once"
)

// ConnectionError returns the fault.Upstream error for a provider that can't be
// reached, or for a connection that broke. Its public text is Timeout if err is a
// timeout, and Connection otherwise: err itself may name internal addresses and goes
// only to the log, without its URL, which may contain a key.
func ConnectionError(err error) error {
	text := Connection
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		text = Timeout
	}
	return fault.Public(fault.Upstream, text, err)
}

// maxText is the number of characters of a provider's error text that a caller sees.
// Some servers put a whole page or the whole request into the text.
const maxText = 500

// minSecret is the length, in bytes, from which a secret is replaced in error texts. Local
// servers get keys such as "x", and gateways headers such as "openai"; without them an
// error text could not be read, and guessing them is easier.
const minSecret = 8

// SafeText returns a provider's error text in the form that a caller is allowed to see:
// secrets of at least 8 bytes, and what matches secretPattern, are replaced by "***", and
// the text is cut after 500 characters. Replacing comes first, because cutting first could
// leave a part of a secret at the end, which would no longer be recognised. A secret that
// contains another is replaced first, for the same reason.
func SafeText(text string, secretPattern *regexp.Regexp, secrets ...string) string {
	secrets = slices.SortedFunc(slices.Values(secrets), func(a, b string) int { return len(b) - len(a) })
	for _, s := range secrets {
		if len(s) >= minSecret {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	text = strings.TrimSpace(secretPattern.ReplaceAllString(text, "***"))
	if r := []rune(text); len(r) > maxText {
		text = string(r[:maxText])
	}
	return text
}

// RetryAfter returns the delay that a response asks for before the next request, at most
// a day. The first of these headers that holds a valid value counts:
//
//   - Retry-After-Ms (OpenAI, Anthropic, Azure) and X-Amz-Retry-After: milliseconds;
//   - Retry-After: seconds or a date (RFC 9110, section 10.2.3). A date is compared with the
//     response's own Date header, so the clocks of the provider and of this process need not
//     agree;
//   - the same with LiteLLM's prefix for the headers of the server behind it, llm_provider-;
//   - X-Ratelimit-Reset-Requests and X-Ratelimit-Reset-Tokens (OpenAI, Groq): durations such
//     as 1s or 6m0s. They count if X-Ratelimit-Remaining-… says that nothing is left.
//
// A missing, invalid or past value yields 0.
func RetryAfter(h http.Header) time.Duration {
	for _, prefix := range []string{"", "Llm_provider-"} {
		for _, name := range []string{"Retry-After-Ms", "X-Amz-Retry-After"} {
			if wait, err := time.ParseDuration(h.Get(prefix+name) + "ms"); err == nil {
				return delay(wait)
			}
		}
		if wait, ok := retryAfter(h, prefix+"Retry-After"); ok {
			return delay(wait)
		}
	}
	var wait time.Duration
	for _, what := range []string{"Requests", "Tokens"} {
		if h.Get("X-Ratelimit-Remaining-"+what) == "0" {
			reset, _ := time.ParseDuration(h.Get("X-Ratelimit-Reset-" + what)) // 0 if there is none
			wait = max(wait, reset)
		}
	}
	return delay(wait)
}

// delay limits a provider's delay. A longer one is a mistake, and would reach the caller as
// Retry-After.
func delay(wait time.Duration) time.Duration { return min(max(wait, 0), 24*time.Hour) }

// retryAfter reads one header in the form of Retry-After. ok is false if it has no value
// in this form.
func retryAfter(h http.Header, name string) (wait time.Duration, ok bool) {
	value := h.Get(name)
	if wait, err := time.ParseDuration(value + "s"); err == nil {
		return wait, true
	}
	at, err := http.ParseTime(value)
	now, _ := http.ParseTime(h.Get("Date"))
	return at.Sub(now), err == nil
}
