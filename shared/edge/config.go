package edge

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/token"
)

// New makes the authorizer of one OS. Its errors name every key or mapping that
// is wrong, and no key material.
func New(c *config.Config, now func() time.Time) (*Authorizer, error) {
	policy, err := Policy(c)
	if err != nil {
		return nil, err
	}
	verifier, err := verifier(c, now)
	if err != nil {
		return nil, err
	}
	a := &Authorizer{Verifier: verifier, Policy: policy, Table: route.Table, reached: reaching(route.Table)}
	for _, agent := range c.Agents {
		a.Agents = append(a.Agents, agent.ID)
	}
	return a, nil
}

// Policy makes the rule set of one OS.
func Policy(c *config.Config) (*authz.Policy, error) {
	var mappings []authz.Mapping
	for _, m := range c.Auth.ScopeMappings {
		mappings = append(mappings, authz.Mapping{Method: m.Method, Path: m.Pattern, Scopes: m.Scopes})
	}
	return authz.New(route.Table, c.Auth.AdminScope, mappings)
}

func verifier(c *config.Config, now func() time.Time) (*token.Verifier, error) {
	o := token.Options{
		Algorithms: c.Auth.Algorithms, Issuer: c.Auth.Issuer, RequireExp: c.Auth.RequireExp, Leeway: c.Auth.Leeway,
		ScopesClaim: c.Auth.Claims.Scopes, SubjectClaim: c.Auth.Claims.Subject, SessionClaim: c.Auth.Claims.Session, Now: now,
	}
	if c.Auth.VerifyAudience {
		o.Audience = c.Auth.Audience
	}
	for i, k := range c.Auth.Keys {
		source := token.KeySource{JWKSFile: k.JWKSFile, Issuer: k.Issuer, Audience: k.Audience}
		switch literal := []byte(k.Literal); {
		case k.JWKSURL != "" || k.Secret != "":
			return nil, fault.Public(fault.Invalid, fmt.Sprintf("auth.keys[%d]: jwks_url and secret are not part of this version; use a literal, ${VAR} or jwks_file", i), nil)
		case strings.Contains(string(k.Literal), "-----BEGIN "):
			source.PEM = literal
		case len(literal) > 0:
			source.HMAC = literal
		}
		o.Keys = append(o.Keys, source)
	}
	return token.NewVerifier(o)
}
