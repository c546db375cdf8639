package authz

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/route"
)

// Audience is what a token is meant for.
type Audience int

// The audiences. A token of the zero value opens what every accepted token opens that has the scopes.
const (
	// ForAPI is everything but the routes that a token's audience must name.
	ForAPI Audience = iota
	// ForBoth is everything.
	ForBoth
	// ForMCP is the door for MCP, and beside it only what every valid token opens.
	ForMCP
)

// Opens reports whether a token for this audience can open the route, if it has the scopes.
func (a Audience) Opens(r *route.Route) bool {
	switch {
	case r.Public:
		return true
	case r.Addressed:
		return a == ForBoth || a == ForMCP
	case a == ForMCP:
		return r.AnyToken
	}
	return a == ForAPI || a == ForBoth
}

// Principal is the verified identity of a caller. A nil *Principal is a caller without
// a valid token.
type Principal struct {
	// Subject is the claim sub. It is empty if the token names no user.
	Subject string
	// SessionID is the session claim, or empty.
	SessionID string
	// Issuer is the claim iss, or empty.
	Issuer string
	// Realm is the issuer that the entry of auth.keys names, or "" if it names none. The owner of the caller's data
	// depends on it: see api.Isolation.
	Realm string
	// TokenID is the claim jti, or empty.
	TokenID string
	// TokenHash identifies the token in logs; see token.Hash.
	TokenHash string
	// Hash identifies the caller in logs; see loghash.Keys. It is "" if the OS has no key for it.
	Hash string
	// Scopes are the granted scopes.
	Scopes []string
	// Origins say where each of Scopes is from: a claim, or "claim=role" for what a role grants. It is nil if all of them
	// are as the token has them, or if the text was too long to cross to the functions.
	Origins []string
	// ScopesClaim is the only claim that scopes are read from, if that is another one than "scopes". It is
	// "several claims" if Origins was too long to cross.
	ScopesClaim string
	// SubjectClaim is the claim that the subject is read from. It is set only if Subject is empty.
	SubjectClaim string
	// Absent and Unread explain a token without scopes, and are empty for any other one: the claims that are read and that
	// it doesn't have, and what it has instead. Unread names claims of the token only, so that the caller may see it.
	// Neither contains a value of a claim.
	Absent, Unread string
	// Audience is what the token is meant for. Defaults to everything but MCP.
	Audience Audience
	// Limits are what the caller's runs may use: see token.Claims.
	Limits limit.Limits
	// IssuedAt is the claim iat. It is zero for a token without it.
	IssuedAt time.Time
	// ExpiresAt is zero for a token that never expires.
	ExpiresAt time.Time
}

// Admitted returns the caller of a request that a door has admitted, for the decision about what the request names. The
// token is meant for the door, which is enough.
func (p *Principal) Admitted() *Principal {
	if p == nil || p.Audience == ForAPI {
		return p
	}
	out := *p
	out.Audience = ForAPI
	return &out
}

// Origin returns the claim or the role that the scope with this index is from.
func (p *Principal) Origin(i int) string {
	if p.Origins != nil {
		return p.Origins[i]
	}
	return cmp.Or(p.ScopesClaim, "scopes")
}

// NoScopes says for the operator why the token has no scopes, as in: no claim "scopes"; it has scope, realm_access. It
// is empty for a token with scopes, and for one with an empty list.
func (p *Principal) NoScopes() string {
	if p.Absent == "" {
		return p.Unread
	}
	return strings.TrimSuffix("no claim "+p.Absent+"; "+p.Unread, "; ")
}

type contextKey struct{}

// admitted is what a request's context contains.
type admitted struct {
	principal *Principal
	decision  Decision
}

// WithPrincipal returns a context with the caller and no decision yet.
func WithPrincipal(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, admitted{principal: p})
}

// WithDecision returns a context with the caller and the decision about the request.
func WithDecision(ctx context.Context, p *Principal, d Decision) context.Context {
	return context.WithValue(ctx, contextKey{}, admitted{p, d})
}

// From returns the caller and the decision in ctx. If ctx has none, it returns nil and
// the zero Decision, which denies.
func From(ctx context.Context) (*Principal, Decision) {
	a, _ := ctx.Value(contextKey{}).(admitted)
	return a.principal, a.decision
}
