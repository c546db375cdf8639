package edge_test

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/token"
)

// signed returns a token with these claims, or "" if no token can have them.
func signed(t *testing.T, c token.Claims) string {
	t.Helper()
	s, err := token.LoadSigner(token.SigningKey{HMAC: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Sign(token.Draft{Claims: c})
	if err != nil {
		return ""
	}
	return raw
}

// The input is any text: scopes (one per line), mappings ("METHOD /path scope…", one per
// line) and a path. Either the mappings are rejected, or the policy contains only routes of
// the table and plain ids, and is never narrower than the decision.
func FuzzPolicy(f *testing.F) {
	f.Add("agents:a:run\nagents:read", "", "POST", "/agents/a/runs")
	f.Add("agents:a*:run\nagents:${aws:username}:read\nagents:a/../b:run", "GET /agents/*/runs agents:run", "GET",
		"/agents/a*/runs/runs")
	f.Add("app:read\nagent_os:admin", "GET /agents* app:read\nPOST */runs agents:a:run app:read", "POST",
		"/agents/runs/runs/")
	f.Add("agents:runs:run\nagents:?:run", "POST /agents/runs/* agents:*:run", "POST", "/agents/runs/runs/x/cancel")
	f.Add("x agent_os:admin\nagents::read\nagents:\x00:run", "GET /nope a:b", "GET", "//agents/%2F")
	f.Add("agents:read", "GET /agents/\x00 x:y", "GET", "/agents/a") // a mapping with a control character
	f.Fuzz(func(t *testing.T, scopeText, mappingText, method, path string) {
		c := declaring("a", "b", "runs", "agents")
		for line := range strings.Lines(mappingText) {
			if words := strings.Fields(line); len(words) >= 2 {
				c.Auth.ScopeMappings = append(c.Auth.ScopeMappings,
					config.ScopeMapping{Method: words[0], Pattern: words[1], Scopes: words[2:]})
			}
		}
		if len(mappingText) > 100 || strings.Count(mappingText, "*") > 4 || len(path) > 100 {
			return // the oracle's globs are slow on long input
		}
		a, err := edge.New(c, edge.Outside{Now: clock})
		if err != nil {
			return
		}
		scopes := strings.Split(scopeText, "\n")
		if signed(t, claims("ann", scopes...)) == "" {
			return
		}
		w := newWorld(t, c, a, scopes)
		for _, s := range w.policy.Statement {
			for _, r := range s.Resource {
				if !wellFormed(r, scopes) && r != api+"/*" {
					t.Errorf("scopes %q and mappings %q put %q into a policy", scopes, c.Auth.ScopeMappings, r)
				}
			}
		}
		w.decide(t, method, path)
	})
}

var hole = regexp.MustCompile(`\{(\w+)\}`)

// wellFormed reports whether a Resource is the pattern of a route with a star for every
// parameter, or with a plain id of the token or of a declared agent for the agent.
func wellFormed(resource string, scopes []string) bool {
	ids := []string{"*", "a", "b", "runs", "agents"}
	for _, s := range scopes {
		if id := namedID(s); plain.MatchString(id) {
			ids = append(ids, id)
		}
	}
	for _, r := range tableRoutes {
		for _, id := range ids {
			path := hole.ReplaceAllString(strings.ReplaceAll(r.Pattern, "{agent_id}", id), "*")
			if !r.Public && len(resource) <= 512 && resource == api+"/"+r.Method+path {
				return true
			}
		}
	}
	return false
}

// The principal of every valid token is the same behind API Gateway.
func FuzzCaller(f *testing.F) {
	f.Add("ann", "s", "https://issuer", "j", "agents:run\nx agent_os:admin", int64(60), 0, 0.0)
	f.Add("", "", "", "", "", int64(1), 5, 0.5)
	f.Add("ä\u2028<&>", "\"", "\\", "{}", "[\"agent_os:admin\"]\n\n,\n\u0000", int64(1<<31), 1<<40, 1e-6)
	f.Fuzz(func(t *testing.T, sub, session, issuer, id, scopes string, seconds int64, runs int, usd float64) {
		if seconds <= 0 || seconds > 1<<32 || runs < 0 || usd < 0 || math.IsInf(usd, 0) || math.IsNaN(usd) {
			return
		}
		limits := config.Limits{ConcurrentRuns: runs, TokensPerDay: runs / 2, USDPerDay: usd}
		limited := declaring("a")
		limited.Auth.Limits = config.RoleLimits{config.AnyRole: limits}
		c := token.Claims{
			Subject: sub, SessionID: session, Issuer: issuer, ID: id, Scopes: strings.Split(scopes, "\n"),
			ExpiresAt: now.Add(time.Duration(seconds) * time.Second), IssuedAt: now.Add(time.Duration(-seconds/4) * time.Second),
		}
		if signed(t, c) == "" {
			return
		}
		want := verified(t, c)
		want.Limits = limit.Limits(limits)
		sameCaller(t, want, rebuilt(t, newAuthorizer(t, limited), c))
	})
}

// Every context is rejected, or gives exactly the principal that its strings name.
func FuzzContext(f *testing.F) {
	for _, s := range []string{
		`{"sub": "ann", "scopes": "[]", "exp": "12"}`,
		`{"sub": "ann", "scopes": "[\"a:b\",\"\"]", "session_id": "s", "iss": "i", "jti": "j", "exp": ""}`,
		`{"sub": "ann", "scopes": "[null]"}`, `{"sub": "ann", "scopes": ["agent_os:admin"]}`, `{"scopes": "agent_os:admin"}`,
		`{"scopes": "null"}`,
		`{"scopes": "[] ", "exp": "+1"}`, `{"scopes": "[]", "exp": 12}`, `{"scopes": "[\"\\ud800\"]"}`,
		`{"sub": "ann", "scopes": "[\"a:b\"]", "origins": "[\"groups=x\"]", "iat": "12", "realm": "https://i"}`,
		`{"scopes": "[\"a:b\"]", "origins": "[]"}`,
		`{"scopes": "[]", "limits": "{\"concurrent_runs\":5,\"usd_per_day\":0.5}"}`, `{"scopes": "[]", "limits": "{}"}`,
		`{"scopes": "[]", "origins": "[]", "iat": "0"}`,
		`{"sub": {"a": 1}, "scopes": "[]"}`, `{}`, `null`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var context map[string]any
		if json.Unmarshal([]byte(text), &context) != nil {
			return
		}
		before := maps.Clone(context)
		p, err := edge.Principal(context)
		if err != nil {
			if p != nil || !errors.Is(err, fault.Unauthenticated) {
				t.Errorf("%q: %+v, %v", text, p, err)
			}
			return
		}
		seconds := func(at time.Time) string {
			if at.IsZero() {
				return ""
			}
			return strconv.FormatInt(at.Unix(), 10)
		}
		for name, got := range map[string]string{"sub": p.Subject, "session_id": p.SessionID, "iss": p.Issuer,
			"jti": p.TokenID, "tokenHash": p.TokenHash, "realm": p.Realm, "limits": p.Limits.Text(),
			"exp": seconds(p.ExpiresAt), "iat": seconds(p.IssuedAt)} {
			if want, _ := before[name].(string); got != want {
				t.Errorf("%q: %s is %q", text, name, got)
			}
		}
		for name, list := range map[string][]string{"scopes": p.Scopes, "origins": p.Origins} {
			var sent []any
			if s, _ := before[name].(string); s == "" && name == "origins" && list == nil {
				continue
			} else if json.Unmarshal([]byte(s), &sent) != nil ||
				!slices.EqualFunc(sent, list, func(a any, b string) bool { return a == b }) {
				t.Errorf("%q: %s %q", text, name, list)
			}
		}
	})
}
