package edge

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

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

	// The remaining members are for logs. They hold hashes and no personal data, so
	// that the template's access log can print them.

	ctxToken = "tokenHash"
	ctxHash  = "subHash"
	// ctxConfig is the digest of the keyway.yaml that made the policy. API Gateway can
	// keep a policy in its cache over a deployment, and the log shows when it did.
	ctxConfig = "digest"
)

// maxOrigins is the size in bytes of the longest text of origins that crosses. A longer one is left out: it only
// explains decisions.
const maxOrigins = 8 << 10

// severalClaims stands for origins that were left out.
const severalClaims = "several claims"

// contextOf encodes p and the configuration's digest as an authorizer context. exp and
// iat are in Unix seconds, and "" for a token without them.
func contextOf(p *authz.Principal, digest string) map[string]any {
	context := make(map[string]any, 12)
	context[ctxSubject], context[ctxSession], context[ctxIssuer] = p.Subject, p.SessionID, p.Issuer
	context[ctxTokenID], context[ctxScopes], context[ctxExpiry] = p.TokenID, scopesText(p.Scopes), seconds(p.ExpiresAt)
	context[ctxToken], context[ctxHash], context[ctxConfig] = p.TokenHash, p.Hash, digest
	if !p.IssuedAt.IsZero() {
		context[ctxIssued] = seconds(p.IssuedAt)
	}
	if p.Realm != "" {
		context[ctxRealm] = p.Realm
	}
	claim := p.ScopesClaim
	if origins := originsText(p.Origins); origins != "" {
		context[ctxOrigins] = origins
	} else if p.Origins != nil {
		claim = severalClaims
	}
	if claim != "" {
		context[ctxScopesClaim] = claim
	}
	if limits := p.Limits.Text(); limits != "" {
		context[ctxLimits] = limits
	}
	if p.Subject == "" || len(p.Scopes) == 0 {
		explain(context, p)
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

// explain adds why the principal has no subject or no scopes.
func explain(context map[string]any, p *authz.Principal) {
	for name, text := range map[string]string{
		ctxSubjectClaim: p.SubjectClaim, ctxAbsent: p.Absent, ctxUnread: p.Unread,
	} {
		if text != "" {
			context[name] = text
		}
	}
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
	data, err := json.Marshal(scopes)
	if err != nil {
		panic(err) // a list of strings always encodes
	}
	return string(data)
}

// Principal rebuilds the principal from an authorizer context, as contextOf encoded
// it. Any other context is an error of the kind fault.Unauthenticated: the function
// then serves the request as anonymous, which is safer than a guessed principal.
func Principal(context map[string]any) (*authz.Principal, error) {
	for _, name := range []string{
		ctxSubject, ctxSession, ctxIssuer, ctxTokenID, ctxScopes, ctxExpiry, ctxIssued, ctxRealm, ctxOrigins, ctxToken,
		ctxHash, ctxSubjectClaim, ctxAbsent, ctxUnread, ctxLimits, ctxScopesClaim,
	} {
		if _, ok := context[name].(string); !ok && context[name] != nil {
			return nil, fmt.Errorf("authorizer context: %s is not a string: %w", name, fault.Unauthenticated)
		}
	}
	text := func(name string) string {
		s, _ := context[name].(string)
		return s
	}
	p := &authz.Principal{
		Subject: text(ctxSubject), SessionID: text(ctxSession), Issuer: text(ctxIssuer),
		Realm: text(ctxRealm), TokenID: text(ctxTokenID), TokenHash: text(ctxToken), Hash: text(ctxHash),
		ScopesClaim:  text(ctxScopesClaim),
		SubjectClaim: text(ctxSubjectClaim), Absent: text(ctxAbsent), Unread: text(ctxUnread),
	}
	// encoding/json replaces what it can't represent: null becomes "", half of a
	// surrogate pair becomes U+FFFD. Encoding the result again shows such a change.
	err := json.Unmarshal([]byte(text(ctxScopes)), &p.Scopes)
	if err != nil || scopesText(p.Scopes) != text(ctxScopes) {
		return nil, fmt.Errorf("authorizer context: scopes: %w", fault.Unauthenticated)
	}
	if len(p.Scopes) == 0 {
		p.Scopes = nil
	}
	if origins := text(ctxOrigins); origins != "" {
		err := json.Unmarshal([]byte(origins), &p.Origins)
		if err != nil || scopesText(p.Origins) != origins || len(p.Origins) != len(p.Scopes) {
			return nil, fmt.Errorf("authorizer context: origins: %w", fault.Unauthenticated)
		}
	}
	var ok bool
	if p.Limits, ok = limit.FromText(text(ctxLimits)); !ok {
		return nil, fmt.Errorf("authorizer context: limits: %w", fault.Unauthenticated)
	}
	if p.ExpiresAt, ok = parseSeconds(text(ctxExpiry)); !ok {
		return nil, fmt.Errorf("authorizer context: exp: %w", fault.Unauthenticated)
	}
	if p.IssuedAt, ok = parseSeconds(text(ctxIssued)); !ok {
		return nil, fmt.Errorf("authorizer context: iat: %w", fault.Unauthenticated)
	}
	return p, nil
}
