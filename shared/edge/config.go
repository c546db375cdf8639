package edge

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/token"
)

// Outside holds the clock, the environment and the HTTP client of an authorizer.
type Outside struct {
	// Now returns the current time, against which exp and nbf are checked. Required.
	Now func() time.Time
	// Lookup reads the environment, which holds the AWS credentials for keys in
	// Secrets Manager. Required if the configuration has such a key.
	Lookup func(string) (string, bool)
	// HTTP fetches JWKS documents and secrets. Defaults to the verifier's own client.
	HTTP *http.Client
}

// New makes the authorizer of one OS. It makes no network request: a JWKS document or
// a secret is fetched when a token needs it, or by token.Verifier.Fetch. So a cold
// start doesn't depend on the key server.
// The error names every wrong key and mapping, and contains no key material.
func New(c *config.Config, o Outside) (*Authorizer, error) {
	policy, err := Policy(c)
	if err != nil {
		return nil, err
	}
	verifier, err := verifier(c, o)
	if err != nil {
		return nil, err
	}
	a := &Authorizer{
		Verifier: verifier, Policy: policy, Table: policy.Table(), Digest: c.Digest,
		matching: matchingRoutes(policy.Table()),
	}
	for _, agent := range c.Agents {
		a.Agents = append(a.Agents, agent.ID)
	}
	return a, nil
}

// Policy makes the authorization rules of one OS from the route table without the doors that are closed, the
// administrator's scope and the scope mappings of keyway.yaml. The error names a mapping that matches no route or
// needs a text that is not a scope. A configuration from config.Parse has no such mapping, if Options.MatchesRoute
// was set.
func Policy(c *config.Config) (*authz.Policy, error) {
	var mappings []authz.Mapping
	for _, m := range c.Auth.ScopeMappings {
		mappings = append(mappings, authz.Mapping{Method: m.Method, Path: m.Pattern, Scopes: m.Scopes})
	}
	return authz.New(route.Table.Without(closed(c.Doors)...), c.Auth.AdminScope, mappings)
}

// closed returns the doors that keyway.yaml closes.
func closed(d config.Doors) (all []route.Door) {
	for _, door := range []struct {
		name route.Door
		open bool
	}{{route.MCP, d.MCP.Open()}, {route.OpenAI, d.OpenAI.Open()}, {route.AGUI, d.AGUI.Open()}} {
		if !door.open {
			all = append(all, door.name)
		}
	}
	return all
}

// verifier makes the token verifier of auth in keyway.yaml. The audience is checked
// only with auth.verify_audience, as AgentOS does. A literal key is a PEM public key if
// it has a PEM header, and an HMAC secret otherwise.
func verifier(c *config.Config, out Outside) (*token.Verifier, error) {
	o := token.Options{
		Algorithms: c.Auth.Algorithms, Issuer: c.Auth.Issuer, RequireExp: c.Auth.RequireExp, Leeway: c.Auth.Leeway,
		Now: out.Now, Lookup: out.Lookup, HTTP: out.HTTP, MCP: c.MCPAudience(),
	}
	if c.Auth.VerifyAudience {
		o.Audience = c.Auth.Audience
	}
	for _, k := range c.Auth.Keys {
		source := token.KeySource{
			JWKSFile: k.JWKSFile, JWKSURL: k.JWKSURL, Discovery: k.Discovery, Secret: k.Secret,
			CA: k.CA, HTTP: k.HTTP, Rules: rules(c.Auth, k),
		}
		if len(k.Issuer) == 0 && k.Discovery != "" && c.Auth.Issuer != "" {
			source.Issuers = []string{c.Auth.Issuer} // every token must have it, so the metadata document must name it too
		}
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

// rules returns the rules for the tokens of one entry of auth.keys. Its grants replace those of auth as a whole.
func rules(a config.Auth, k config.Key) token.Rules {
	list := func(sources config.Sources) (all []token.ClaimSource) {
		if sources != nil {
			all = []token.ClaimSource{} // an empty list reads no claim, and nil means the default
		}
		for _, s := range sources {
			all = append(all, At(s))
		}
		return all
	}
	c := a.ClaimsOf(k)
	r := token.Rules{
		Issuers: k.Issuers(), Audience: k.Audience, Clients: k.Clients,
		IDTokens: slices.Contains(k.Accept, "id_token"), Bound: slices.Contains(k.Accept, "bound"),
		Scopes: list(c.Scopes), Roles: list(c.Roles), Subject: At(c.Subject), Session: At(c.Session),
		Prefix: k.Prefix, Grants: a.GrantsOf(k), LimitsFrom: At(c.Limits),
	}
	for role, l := range a.LimitsOf(k) {
		if r.Limits == nil {
			r.Limits = map[string]limit.Limits{}
		}
		r.Limits[role] = limit.Limits(l)
	}
	return r
}

// At returns the place in the claims that a source of keyway.yaml names.
func At(s config.ClaimSource) token.ClaimSource {
	return token.ClaimSource{Path: s.Names(), Split: s.Splits()}
}
