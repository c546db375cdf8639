package edge

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
)

// The context's members. API Gateway passes strings only; the scopes cross as a
// JSON array, since joined by spaces the one scope "x agent_os:admin" would
// arrive as two.
const (
	ctxSubject = "sub"
	ctxSession = "session_id"
	ctxIssuer  = "iss"
	ctxTokenID = "jti"
	ctxScopes  = "scopes"
	ctxExpiry  = "exp"
	ctxToken   = "tokenHash" // this and the next are for logs: the only members that are safe to print
	ctxHash    = "subHash"
	ctxConfig  = "digest" // by which keyway.yaml the policy was made, which API Gateway may keep over a deployment
)

func contextOf(p *authz.Principal, digest string) map[string]any {
	expiry := ""
	if !p.ExpiresAt.IsZero() {
		expiry = strconv.FormatInt(p.ExpiresAt.Unix(), 10)
	}
	return map[string]any{
		ctxSubject: p.Subject, ctxSession: p.SessionID, ctxIssuer: p.Issuer, ctxTokenID: p.TokenID,
		ctxScopes: scopesText(p.Scopes), ctxExpiry: expiry, ctxToken: p.TokenHash, ctxHash: p.SubjectHash(), ctxConfig: digest,
	}
}

func scopesText(scopes []string) string {
	// A nil and an empty list are the same grant; [] keeps the array an array.
	data, err := json.Marshal(append([]string{}, scopes...))
	if err != nil {
		panic(err) // a list of strings always encodes
	}
	return string(data)
}

// Principal rebuilds the caller from an authorizer's context. A context that
// contextOf did not make is refused (fault.Unauthenticated): no caller is
// better than a guessed one.
func Principal(context map[string]any) (*authz.Principal, error) {
	for _, name := range []string{ctxSubject, ctxSession, ctxIssuer, ctxTokenID, ctxScopes, ctxExpiry, ctxToken} {
		if _, ok := context[name].(string); !ok && context[name] != nil {
			return nil, fmt.Errorf("authorizer context: %s is no text: %w", name, fault.Unauthenticated)
		}
	}
	text := func(name string) string {
		s, _ := context[name].(string)
		return s
	}
	p := &authz.Principal{
		Subject: text(ctxSubject), SessionID: text(ctxSession), Issuer: text(ctxIssuer), TokenID: text(ctxTokenID), TokenHash: text(ctxToken),
	}
	// What decodes to other texts than it holds ([null], half a surrogate) isn't ours.
	if err := json.Unmarshal([]byte(text(ctxScopes)), &p.Scopes); err != nil || scopesText(p.Scopes) != text(ctxScopes) {
		return nil, fmt.Errorf("authorizer context: scopes: %w", fault.Unauthenticated)
	}
	if len(p.Scopes) == 0 {
		p.Scopes = nil
	}
	if s := text(ctxExpiry); s != "" {
		seconds, err := strconv.ParseInt(s, 10, 64)
		p.ExpiresAt = time.Unix(seconds, 0).UTC()
		if err != nil || strconv.FormatInt(seconds, 10) != s || p.ExpiresAt.IsZero() { // zero would never expire
			return nil, fmt.Errorf("authorizer context: exp: %w", fault.Unauthenticated)
		}
	}
	return p, nil
}
