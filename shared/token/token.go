// Package token verifies and signs JSON Web Tokens (RFC 7519), and it reads, fetches
// and generates the keys for both. It decides whether a token is genuine, valid at this
// time and intended for this OS, and which claims it makes. It doesn't know what a scope
// grants, and of a request it sees only the values of one header. Its rules follow RFC
// 8725 (best practices for JSON Web Tokens); its refusals have AgentOS's texts.
package token

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
)

// Claims are the claims of a verified token that Keyway uses. An absent claim is the
// zero value.
type Claims struct {
	// Subject is the user that the caller acts for. It has at most 1,024 bytes.
	Subject string
	// SessionID is the only session that the token is for. It has at most 255 bytes.
	SessionID string
	// Issuer is the claim iss. It has at most 1,024 bytes. If the source of the key lists several spellings of one
	// issuer, it is the first of them.
	Issuer string
	// Realm is the issuer that the source of the key names, or "" if it names none. Subjects are unique in a realm.
	Realm string
	// Source names the source of the key that verified the token, such as keys[0].
	Source string
	// ID is the claim jti. It has at most 255 bytes.
	ID string
	// Scopes are those of the token and those that its roles grant, in the order in which they were found. Each is there
	// once, unless all of them are from the only claim that is read: then they are as the token has them.
	Scopes []string
	// Origins say where each of Scopes is from: the name of a claim, or "claim=role" for what a role grants. It is nil if
	// all of them are from the only claim that is read.
	Origins []string
	// ScopesClaim is the only claim that scopes are read from, if that is another one than "scopes". It is cut to a name
	// that fits into a log line.
	ScopesClaim string
	// SubjectClaim is the claim that Subject is read from. It is set only if Subject is empty, to explain that.
	SubjectClaim string
	// Absent are the claims that are read for scopes and roles and that the token doesn't have, such as "scopes" with its
	// quotes. Unread is what the token has instead, such as "it has scope, realm_access"; it contains names of claims and
	// no values. Both are set only if Scopes is empty, and have 2 KB at most.
	Absent, Unread string
	// Limits are what the caller's runs may use: the largest of each limit that the caller's roles set, else that of every
	// caller, lowered to the claim with limits.
	Limits limit.Limits
	// For is what the token is accepted for, by its audience.
	For For
	// IssuedAt is the claim iat, in UTC and in whole seconds. It is zero if the token has none.
	IssuedAt time.Time
	// ExpiresAt is in UTC and in whole seconds. It is zero if the token never expires.
	ExpiresAt time.Time
}

// Limits in bytes, except for maxScopes. API Gateway limits all headers of a request
// to 10,240 bytes; the local server accepts longer tokens, and these bound its work. The
// names become columns of the database and parts of log lines.
const (
	maxToken      = 64 << 10 // the size of a token in bytes
	maxScopes     = 4096     // the number of scopes that a token gives, after roles are replaced by what they grant
	maxScopeBytes = 32 << 10 // the size of these scopes together in bytes
	maxName       = 1024     // the size of sub and of iss in bytes
	maxID         = 255      // the size of session_id and of jti in bytes
)

var errTooManyScopes = denyToken("More than %d scopes or %d bytes of scopes", maxScopes, maxScopeBytes)

// check refuses claims that the rest of the program can't handle. Verify and Sign share
// it, so that Sign produces no token that Verify would refuse.
func (c Claims) check(sessionClaim string) error {
	total := 0
	for _, s := range c.Scopes {
		total += len(s)
	}
	switch {
	case c.ExpiresAt.Unix() >= lastDate:
		// Such a value is almost always in milliseconds. As seconds, a token for one hour
		// would be valid for ever.
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
		return errTooManyScopes
	case slices.ContainsFunc(c.Scopes, func(s string) bool { return !utf8.ValidString(s) }):
		return denyToken("Scopes must be UTF-8")
	}
	return nil
}

// unfit reports whether s is too long or can't be stored: PostgreSQL's text has neither
// NUL nor invalid UTF-8.
func unfit(s string, limit int) bool {
	return len(s) > limit || strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s)
}

// reserved reports whether AgentOS 3.1.10 uses the subject for an actor of its own: a
// service account, an OAuth client or the scheduler. AgentOS refuses a token with such a
// subject. The comparison is exact, as it is there.
func reserved(subject string) bool {
	return strings.HasPrefix(subject, "sa:") || strings.HasPrefix(subject, "__oauth__:") ||
		subject == "__scheduler__"
}

// deny returns a 401 with this detail. Every caller can read the detail without a valid
// token, so that it must not contain a key, a configured value or content of the token.
func deny(detail string) error { return fault.Public(fault.Unauthenticated, detail, nil) }

// Cause is what the operator should know about a refusal, and no caller: after a good signature which issuer,
// audience or client the token has and which are expected; otherwise which keys can't be used. It identifies no
// person.
type Cause string

// Error returns the text.
func (c Cause) Error() string { return string(c) }

// denyBecause is deny with a cause for the operator's log.
func denyBecause(cause Cause, detail string) error {
	return fault.Public(fault.Unauthenticated, detail, cause)
}

// denyToken is deny with the prefix that AgentOS uses for PyJWT's errors.
func denyToken(format string, args ...any) error {
	return deny("Invalid token: " + fmt.Sprintf(format, args...))
}
