// Package token verifies and signs JSON Web Tokens (RFC 7519) and reads and makes
// the keys for both. It decides whether a token is genuine, in time and meant for
// us, and what it claims. It knows nothing of what a scope grants, and of HTTP only
// the values of one header.
package token

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Claims is what a genuine token says. An absent claim is the zero value.
type Claims struct {
	Subject   string    // whom the caller acts as; at most 1,024 bytes
	SessionID string    // at most 255 bytes
	Issuer    string    // at most 1,024 bytes
	ID        string    // jti; at most 255 bytes
	Scopes    []string  // as written: empty and repeated ones included
	ExpiresAt time.Time // UTC, whole seconds; zero: the token never expires
}

// The names AgentOS 3.1.10 reads when the operator chose no others.
const (
	defaultScopesClaim  = "scopes"
	defaultSubjectClaim = "sub"
	defaultSessionClaim = "session_id"
)

// Limits, in bytes but for maxScopes.
const (
	maxToken      = 64 << 10
	maxScopes     = 4096
	maxScopeBytes = 32 << 10
	maxName       = 1024 // subject, issuer
	maxID         = 255  // session_id, jti
)

// check refuses claims that the rest of the system must never meet. Verify and
// Sign share it, so nothing is signed that would not be accepted.
func (c Claims) check(sessionClaim string) error {
	total := 0
	for _, s := range c.Scopes {
		total += len(s)
	}
	switch {
	case c.ExpiresAt.Unix() >= lastDate:
		// Milliseconds, nearly always: a token meant for an hour would live for ever.
		return denyToken("Expiration Time claim (exp) must be in seconds.")
	case unfit(c.Subject, maxName) || reserved(c.Subject):
		return deny("Invalid token subject")
	case unfit(c.SessionID, maxID):
		return denyToken("%s must be a string of at most %d bytes", sessionClaim, maxID)
	case unfit(c.ID, maxID):
		return denyToken("JWT ID must be a string of at most %d bytes", maxID)
	case unfit(c.Issuer, maxName):
		return denyToken("Invalid issuer")
	case len(c.Scopes) > maxScopes || total > maxScopeBytes:
		return denyToken("More than %d scopes or %d bytes of scopes", maxScopes, maxScopeBytes)
	case slices.ContainsFunc(c.Scopes, func(s string) bool { return !utf8.ValidString(s) }):
		return denyToken("Scopes must be UTF-8")
	}
	return nil
}

// unfit: PostgreSQL stores neither NUL nor broken UTF-8.
func unfit(s string, limit int) bool {
	return len(s) > limit || strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s)
}

// reserved subjects belong to AgentOS 3.1.10's own actors: service accounts, OAuth
// clients and the scheduler. A token that claims one is refused, as there; so are
// only these spellings.
func reserved(subject string) bool {
	return strings.HasPrefix(subject, "sa:") || strings.HasPrefix(subject, "__oauth__:") ||
		subject == "__scheduler__"
}

func deny(detail string) error { return fault.Public(fault.Unauthenticated, detail, nil) }

func denyToken(format string, args ...any) error {
	return deny("Invalid token: " + fmt.Sprintf(format, args...))
}
