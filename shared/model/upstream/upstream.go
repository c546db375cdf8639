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
	TooLong = "The model's server sent an event of more than 10 MB"
)

// ConnectionError returns the fault.Upstream error for a provider that can't be
// reached, or for a connection that broke. Its public text is Timeout if err is a
// timeout, and Connection otherwise: err itself may name internal addresses and goes
// only to the log.
func ConnectionError(err error) error {
	text := Connection
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

// RetryAfter returns the delay that a response asks for before the next request. It
// reads the header named milliseconds, which differs between providers, and otherwise
// Retry-After, which holds seconds or a date (RFC 9110, section 10.2.3). A date is
// compared with the response's own Date header, so the clocks of the provider and of this
// process need not agree.
// A missing, invalid or past value yields 0.
func RetryAfter(h http.Header, milliseconds string) time.Duration {
	wait, err := time.ParseDuration(h.Get(milliseconds) + "ms")
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
