package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
)

const mask = "***"

// Secret is a text that never prints itself, whatever the verb, logger or
// encoder; string(s) is the text.
type Secret string

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// Format masks every verb. A Stringer would not do: %d goes around it.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue masks in slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText masks in JSON and elsewhere.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// URL is an address that prints itself without password and query, where keys
// travel; string(u) is the whole address.
type URL string

func (u URL) String() string {
	if u == "" {
		return ""
	}
	p, err := url.Parse(string(u))
	if err != nil || p.Opaque != "" {
		return mask
	}
	if _, has := p.User.Password(); has {
		p.User = url.UserPassword(p.User.Username(), mask)
	}
	if p.RawQuery != "" {
		p.RawQuery = mask
	}
	p.Fragment = ""
	return strings.Replace(p.String(), url.QueryEscape(mask), mask, 1)
}

// Format masks every verb.
func (u URL) Format(f fmt.State, _ rune) { fmt.Fprint(f, u.String()) }

// LogValue masks in slog.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// MarshalText masks in JSON and elsewhere.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }
