package authz

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Principal is a caller whose token was verified. A nil *Principal is a caller
// without one.
type Principal struct {
	Subject   string    // sub; "" when the token names nobody
	SessionID string    // the session claim; "" when absent
	Issuer    string    // iss
	TokenID   string    // jti
	TokenHash string    // how logs name the token; see token.Hash
	Scopes    []string  // as granted, in the token's order
	ExpiresAt time.Time // zero: the token never expires
}

// SubjectHash is how logs name a caller: 16 hex digits of the SHA-256 of issuer and
// subject.
func (p *Principal) SubjectHash() string {
	sum := sha256.Sum256([]byte(p.Issuer + "\x00" + p.Subject))
	return hex.EncodeToString(sum[:8])
}

type contextKey struct{}

// admitted is what the request's context carries from the decision to the handler.
type admitted struct {
	principal *Principal
	decision  Decision
}

// WithPrincipal puts the caller into ctx, before any decision.
func WithPrincipal(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, admitted{principal: p})
}

// WithDecision puts the caller and an allowing decision about them into ctx.
func WithDecision(ctx context.Context, p *Principal, d Decision) context.Context {
	return context.WithValue(ctx, contextKey{}, admitted{p, d})
}

// From returns the caller and the decision in ctx. Without them it returns nil
// and the zero Decision, which denies.
func From(ctx context.Context) (*Principal, Decision) {
	a, _ := ctx.Value(contextKey{}).(admitted)
	return a.principal, a.decision
}
