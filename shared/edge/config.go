package edge

import (
	"net/http"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/token"
)

// Outside is what an authorizer needs of the world. Lookup is the environment, which
// holds the AWS credentials for keys kept in Secrets Manager, and may be nil without
// such keys; HTTP fetches keys, nil is a client of its own.
type Outside struct {
	Now    func() time.Time
	Lookup func(string) (string, bool)
	HTTP   *http.Client
}

// New makes the authorizer of one OS. It fetches nothing; see token.Verifier.Fetch.
// Its errors name every key or mapping that is wrong, and no key material.
func New(c *config.Config, o Outside) (*Authorizer, error) {
	policy, err := Policy(c)
	if err != nil {
		return nil, err
	}
	verifier, err := verifier(c, o)
	if err != nil {
		return nil, err
	}
	a := &Authorizer{Verifier: verifier, Policy: policy, Table: route.Table, Digest: c.Digest, reached: reaching(route.Table)}
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

func verifier(c *config.Config, out Outside) (*token.Verifier, error) {
	o := token.Options{
		Algorithms: c.Auth.Algorithms, Issuer: c.Auth.Issuer, RequireExp: c.Auth.RequireExp, Leeway: c.Auth.Leeway,
		ScopesClaim: c.Auth.Claims.Scopes, SubjectClaim: c.Auth.Claims.Subject, SessionClaim: c.Auth.Claims.Session,
		Now: out.Now, Lookup: out.Lookup, HTTP: out.HTTP,
	}
	if c.Auth.VerifyAudience {
		o.Audience = c.Auth.Audience
	}
	for _, k := range c.Auth.Keys {
		source := token.KeySource{JWKSFile: k.JWKSFile, JWKSURL: k.JWKSURL, Secret: k.Secret, Issuer: k.Issuer, Audience: k.Audience}
		switch literal := []byte(k.Literal); {
		case strings.Contains(string(k.Literal), "-----BEGIN "):
			source.PEM = literal
		case len(literal) > 0:
			source.HMAC = literal
		}
		o.Keys = append(o.Keys, source)
	}
	return token.NewVerifier(o)
}
