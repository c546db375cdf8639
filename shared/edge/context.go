package edge

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
)

// The members of the context. A REST API passes only strings, numbers and booleans,
// and makes strings of all of them; objects and arrays are not accepted. The scopes
// are therefore one string with a JSON array in it. Joined by spaces, the single
// scope "x agent_os:admin" would arrive as two scopes, one of them the admin scope.
const (
	ctxSubject = "sub"
	ctxSession = "session_id"
	ctxIssuer  = "iss"
	ctxTokenID = "jti"
	ctxScopes  = "scopes"
	ctxExpiry  = "exp"
	ctxIssued  = "iat"
	// ctxRealm is authz.Principal.Realm.
	ctxRealm = "realm"
	// ctxOrigins is authz.Principal.Origins as a JSON array, or "".
	ctxOrigins = "origins"
	// ctxScopesClaim is authz.Principal.ScopesClaim.
	ctxScopesClaim = "scopes_claim"
	// The next three are authz.Principal's fields of these names, of tokens without a subject or without scopes.
	ctxSubjectClaim = "sub_claim"
	ctxAbsent       = "absent"
	ctxUnread       = "unread"
	// ctxLimits is authz.Principal.Limits as its text.
	ctxLimits = "limits"

	// ctxAudience is authz.Principal.Audience as one of the texts below, and absent for a token that is meant for the API
	// alone, as in contexts of earlier versions.
	ctxAudience = "audience"

	// The remaining members are for logs. They hold hashes and no personal data, so
	// that the template's access log can print them.

	ctxToken = "tokenHash"
	ctxHash  = "subHash"
	// ctxConfig is the digest of the keyway.yaml that made the policy. API Gateway can
	// keep a policy in its cache over a deployment, and the log shows when it did.
	ctxConfig = "digest"
)

// audiences are the texts of ctxAudience.
var audiences = map[string]authz.Audience{"": authz.ForAPI, "both": authz.ForBoth, "mcp": authz.ForMCP}

// maxOrigins is the size in bytes of the longest text of origins that crosses. A longer one is left out: it only
// explains decisions.
const maxOrigins = 8 << 10

// severalClaims stands for origins that were left out.
const severalClaims = "several claims"

// member is a member of a context.
type member struct{ name, text string }

// membersOf encodes p and the configuration's digest as the members of an authorizer context, in the order of their
// names. exp and iat are in Unix seconds, and "" for a token without them. The members that explain why a principal
// has no subject or no scopes are there only then.
func membersOf(p *authz.Principal, digest string) []member {
	all := make([]member, 0, 16)
	add := func(name, text string) { all = append(all, member{name, text}) }
	addSome := func(name, text string) {
		if text != "" {
			add(name, text)
		}
	}
	unexplained := p.Subject != "" && len(p.Scopes) > 0
	if !unexplained {
		addSome(ctxAbsent, p.Absent)
	}
	addSome(ctxAudience, audienceText(p.Audience))
	add(ctxConfig, digest)
	add(ctxExpiry, seconds(p.ExpiresAt))
	addSome(ctxIssued, seconds(p.IssuedAt))
	add(ctxIssuer, p.Issuer)
	add(ctxTokenID, p.TokenID)
	addSome(ctxLimits, p.Limits.Text())
	origins, claim := originsText(p.Origins), p.ScopesClaim
	if origins == "" && p.Origins != nil {
		claim = severalClaims
	}
	addSome(ctxOrigins, origins)
	addSome(ctxRealm, p.Realm)
	add(ctxScopes, scopesText(p.Scopes))
	addSome(ctxScopesClaim, claim)
	add(ctxSession, p.SessionID)
	add(ctxSubject, p.Subject)
	add(ctxHash, p.Hash)
	if !unexplained {
		addSome(ctxSubjectClaim, p.SubjectClaim)
	}
	add(ctxToken, p.TokenHash)
	if !unexplained {
		addSome(ctxUnread, p.Unread)
	}
	return all
}

// audienceText returns the text of an audience.
func audienceText(a authz.Audience) string {
	switch a {
	case authz.ForAPI:
		return ""
	case authz.ForBoth:
		return "both"
	case authz.ForMCP:
		return "mcp"
	}
	return "unknown" // which no principal has
}

// contextOf is membersOf in the form of AWS's type.
func contextOf(members []member) map[string]any {
	context := make(map[string]any, len(members))
	for _, m := range members {
		context[m.name] = m.text
	}
	return context
}

// originsText returns the origins as a JSON array, or "" if there are none or their text is too long.
func originsText(origins []string) string {
	size := 0
	for _, origin := range origins {
		// Two quotes and a comma. Escapes make the text longer still, so that this never leaves out a text that fits.
		if size += len(origin) + 3; size > maxOrigins {
			return ""
		}
	}
	if size == 0 {
		return ""
	}
	text := scopesText(origins)
	if len(text) > maxOrigins {
		return ""
	}
	return text
}

// seconds returns t in Unix seconds, and "" for the zero time.
func seconds(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.Unix(), 10)
}

// parseSeconds is the reverse of seconds.
func parseSeconds(text string) (t time.Time, ok bool) {
	if text == "" {
		return t, true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	t = time.Unix(n, 0).UTC()
	// The zero time means that there is no claim, so a text that gives it is rejected.
	return t, err == nil && strconv.FormatInt(n, 10) == text && !t.IsZero()
}

// scopesText encodes scopes as a JSON array. A nil list is the same grant as an empty
// one, so both become [] and never null.
func scopesText(scopes []string) string {
	if scopes == nil {
		return "[]"
	}
	size := 2
	for _, scope := range scopes {
		if !isPlain(scope) {
			return escapedScopesText(scopes)
		}
		size += len(scope) + len(`"",`)
	}
	text := append(make([]byte, 0, size), '[')
	for i, scope := range scopes {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(append(text, '"'), scope...), '"')
	}
	return string(append(text, ']'))
}

// isPlain reports whether encoding/json writes a text as it is.
func isPlain(text string) bool {
	for _, c := range []byte(text) {
		if c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// escapedScopesText is scopesText for scopes with any characters.
func escapedScopesText(scopes []string) string {
	data, err := json.Marshal(scopes)
	if err != nil {
		panic(err) // a list of strings always encodes
	}
	return string(data)
}

// Context is an authorizer context that is being read. Set its members and call Principal.
type Context struct {
	texts [len(crossing)]string
	// wrong is the first member of crossing that is not a string, counted from the end; 0 if there is none.
	wrong int
	some  bool
}

// crossing are the members from which a principal is rebuilt.
var crossing = [...]string{
	ctxSubject, ctxSession, ctxIssuer, ctxTokenID, ctxScopes, ctxExpiry, ctxIssued, ctxRealm, ctxOrigins, ctxToken,
	ctxHash, ctxSubjectClaim, ctxAbsent, ctxUnread, ctxLimits, ctxScopesClaim, ctxAudience,
}

// The places of these members in Context.texts.
const (
	atSubject = iota
	atSession
	atIssuer
	atTokenID
	atScopes
	atExpiry
	atIssued
	atRealm
	atOrigins
	atToken
	atHash
	atSubjectClaim
	atAbsent
	atUnread
	atLimits
	atScopesClaim
	atAudience
)

// Set sets a member of a context to a string. Of the other members that API Gateway adds, nothing is kept.
func (c *Context) Set(name, value string) {
	c.some = true
	if i := slices.Index(crossing[:], name); i >= 0 {
		c.texts[i] = value
	}
}

// SetOther says that a member is no string and not null.
func (c *Context) SetOther(name string) {
	c.some = true
	if i := slices.Index(crossing[:], name); i >= 0 {
		c.wrong = max(c.wrong, len(crossing)-i)
	}
}

// SetNull says that a member is null.
func (c *Context) SetNull() { c.some = true }

// Empty reports whether the context has no members, which means that the event has none.
func (c *Context) Empty() bool { return !c.some }

// Principal rebuilds the principal from an authorizer context, as contextOf encoded
// it. Any other context is an error of the kind fault.Unauthenticated: the function
// then serves the request as anonymous, which is safer than a guessed principal.
func Principal(context map[string]any) (*authz.Principal, error) {
	var c Context
	for name, value := range context {
		switch v := value.(type) {
		case string:
			c.Set(name, v)
		case nil:
			c.SetNull()
		default:
			c.SetOther(name)
		}
	}
	return c.Principal()
}

// Principal is the function of that name for a context whose members were set.
func (c *Context) Principal() (*authz.Principal, error) {
	if c.wrong > 0 {
		return nil, fmt.Errorf("authorizer context: %s is not a string: %w", crossing[len(crossing)-c.wrong],
			fault.Unauthenticated)
	}
	wrong := func(name string) error { return fmt.Errorf("authorizer context: %s: %w", name, fault.Unauthenticated) }
	t := &c.texts
	p := &authz.Principal{
		Subject: t[atSubject], SessionID: t[atSession], Issuer: t[atIssuer],
		Realm: t[atRealm], TokenID: t[atTokenID], TokenHash: t[atToken], Hash: t[atHash],
		ScopesClaim:  t[atScopesClaim],
		SubjectClaim: t[atSubjectClaim], Absent: t[atAbsent], Unread: t[atUnread],
	}
	var ok bool
	if p.Scopes, ok = scopesOf(t[atScopes]); !ok {
		return nil, wrong(ctxScopes)
	}
	if origins := t[atOrigins]; origins != "" {
		if p.Origins, ok = scopesOf(origins); !ok || len(p.Origins) != len(p.Scopes) {
			return nil, wrong(ctxOrigins)
		}
	}
	if p.Audience, ok = audiences[t[atAudience]]; !ok {
		return nil, wrong(ctxAudience)
	}
	if limits := t[atLimits]; limits != "" {
		if p.Limits, ok = limit.FromText(limits); !ok {
			return nil, wrong(ctxLimits)
		}
	}
	if p.ExpiresAt, ok = parseSeconds(t[atExpiry]); !ok {
		return nil, wrong(ctxExpiry)
	}
	if p.IssuedAt, ok = parseSeconds(t[atIssued]); !ok {
		return nil, wrong(ctxIssued)
	}
	return p, nil
}

// scopesOf is the reverse of scopesText. It is false for any text that scopesText doesn't write, and nil for an empty
// list.
func scopesOf(text string) (list []string, ok bool) {
	// The usual scopes need no escape, so their text is split. Quotes and commas in other places make a text that
	// scopesText does not give back.
	if strings.IndexByte(text, '\\') < 0 && len(text) > 4 {
		inner, ok := strings.CutPrefix(text, `["`)
		inner, closed := strings.CutSuffix(inner, `"]`)
		if ok && closed {
			list = strings.Split(inner, `","`)
			return list, scopesText(list) == text
		}
	}
	// encoding/json replaces what it can't represent: null becomes "", half of a
	// surrogate pair becomes U+FFFD. Encoding the result again shows such a change.
	err := json.Unmarshal([]byte(text), &list)
	if err != nil || scopesText(list) != text {
		return nil, false
	}
	if len(list) == 0 {
		return nil, true
	}
	return list, true
}
