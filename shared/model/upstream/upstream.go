// Package upstream is what every provider does alike with its vendor's server: how long
// a connection may take, how much of an answer is read and when it broke off; the texts
// of failures that come without one, which of the vendor's own words a caller may hear,
// and when to ask again.
// It knows no vendor: what an answer means, what is secret in their words, and which
// headers are theirs, is for the providers.
package upstream

import (
	"errors"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The texts of failures. The first two are what AgentOS 3.1.10 answers.
const (
	Connection = "Connection error."
	Timeout    = "Request timed out."
	CutShort   = "The model's answer ended before it was complete"
	NoAnswer   = "The model's server sent something that is not an answer"
	NoStream   = "The model's server did not answer with an event stream: check base_url"
	TooLong    = "The model's server sent an event of more than 10 MB"
)

// Lost is for a vendor who can't be reached, or whose connection broke.
func Lost(err error) error {
	text := Connection
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		text = Timeout
	}
	return fault.Public(fault.Upstream, text, err)
}

// mostWords bounds what of a vendor's text is told, in characters.
const mostWords = 500

// Words makes a vendor's text fit for the caller: without the secrets and what looks
// like one, and cut last, so that no piece of a secret survives the cut.
func Words(text string, secretive *regexp.Regexp, secrets ...string) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	text = strings.TrimSpace(secretive.ReplaceAllString(text, "***"))
	if r := []rune(text); len(r) > mostWords {
		text = string(r[:mostWords])
	}
	return text
}

// RetryAfter reads the vendor's own header in milliseconds, or Retry-After: seconds or a
// date (RFC 9110, section 10.2.3), the latter against the response's own Date so that
// clocks need not agree. Unreadable or past: 0.
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
