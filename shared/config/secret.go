package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
)

// mask replaces a secret in all output.
const mask = "***"

// Secret is a text that prints as *** with every verb of package fmt, every logger and every encoder,
// so that it cannot get into a log or an answer by accident. string(s) returns the text itself.
type Secret string

// String implements fmt.Stringer. It returns *** for any text but the empty one, so that a reader sees
// whether the secret is set.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// Format implements fmt.Formatter, and masks the text for every verb. A Stringer alone would not be
// enough, because %d and %#v do not use it.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue implements slog.LogValuer, and masks the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, and masks the text in JSON and other encodings.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// URL is an address that prints without its password and its query, since both can contain keys.
// string(u) returns the whole address.
type URL string

// String implements fmt.Stringer. It masks the password and the query, drops the fragment, and masks
// the whole address if it cannot be parsed.
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

// Format implements fmt.Formatter, and masks the address for every verb.
func (u URL) Format(f fmt.State, _ rune) { fmt.Fprint(f, u.String()) }

// LogValue implements slog.LogValuer, and masks the address.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// MarshalText implements encoding.TextMarshaler, and masks the address in JSON and other encodings.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }
