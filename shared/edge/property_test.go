package edge_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/authz/authztest"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/route"
)

// Each seed makes tokensOfASeed tokens, and each token is tried with pathsOfAToken
// requests. So one seed tries 48,000 requests, and compares the oracle, the decision and
// the policy for each.
const (
	tokensOfASeed = 3000
	pathsOfAToken = 16
)

// seeds returns one fixed seed, and with KEYWAY_SEEDS=all three fixed ones and a random
// one. make check sets the variable. One seed takes several seconds of processor time,
// which make test should not spend four times on every change.
func seeds() []uint64 {
	if os.Getenv("KEYWAY_SEEDS") == "all" {
		return []uint64{1, 2, 3, uint64(time.Now().UnixNano())}
	}
	return []uint64{1}
}

// For a declared agent the policy gives the same verdict as the decision wherever an
// Allow and a Deny can express it. For any other id it may be wider, never narrower.
func TestPolicyAgreesWithDecisionForAnyToken(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds() {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			g := generator{rand.New(rand.NewPCG(seed, 0))}
			seen := map[string]int{}
			for range tokensOfASeed {
				g.world(t).examine(t, g, seen)
			}
			t.Logf("of %d requests: %v", tokensOfASeed*pathsOfAToken, seen)
			for _, kind := range []string{
				"allowed", "denied", "public or unserved", "by a mapping", "by a mapping's star", "by a star across segments",
				"mapped and allowed",
				"an id that collides", "an id that collides, allowed", "an odd id", "an odd id, allowed", "slashes at the end",
				"a list", "no id in the path", "past fifty ids", "more than fifty agents",
				"for both", "for mcp alone, allowed", "for mcp alone, denied", "for the api, mcp denied",
				"by roles", "by roles, allowed",
				"declared, equal", "declared, refused by a Deny", "declared, wider: no pattern says it", "undeclared, wider",
			} {
				if seen[kind] < 50 {
					t.Errorf("%q occurred only %d times, too few to test the property", kind, seen[kind])
				}
			}
		})
	}
}

// world is one OS, one token, and the policy that the authorizer returned for it.
type world struct {
	authorizer *edge.Authorizer
	oracle     authztest.Oracle
	scopes     []string
	caller     *authz.Principal
	policy     events.APIGatewayCustomAuthorizerPolicy
	manyIDs    bool   // the token names more ids than a policy names one by one
	byRoles    bool   // some scopes are granted by roles
	audience   string // what the token is for, in the oracle's words
}

// world returns a token with scopes, or in half of the cases one with roles that grant some of them.
func (g generator) world(t *testing.T) world {
	t.Helper()
	c, scopes := g.os(), g.scopes()
	payload := object{"sub": "ann", "exp": now.Unix() + 3600, "scopes": scopes}
	var auth object
	if g.oneIn(2) {
		own, roles, grants := g.roles(scopes)
		payload["scopes"], payload["realm_access"] = own, object{"roles": roles}
		path := []string{"realm_access", "roles"}
		c.Auth.Claims.Roles, c.Auth.Grants = config.Sources{{Path: path}}, grants
		auth = asJSON(t, object{"claims": object{"roles": object{"path": path}}, "grants": grants})
		read := authztest.Reader{Auth: auth}.Scopes(asJSON(t, payload))
		scopes = slices.Sorted(maps.Keys(read))
	}
	w := newWorld(t, c, newAuthorizer(t, c), scopes)
	var accepted bool
	if w.audience, accepted = g.audiences(c, payload); !accepted || len(payload) > 3 || w.audience != "" {
		w.authorizer = newAuthorizer(t, c)
	} else {
		return w
	}
	raw, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(payload)).SignedString([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := w.authorizer.Authorize(t.Context(), event(t, raw))
	if !accepted {
		if err == nil {
			t.Fatalf("a token with these claims is accepted: %v", payload)
		}
		return g.world(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := edge.Principal(answer.Context)
	if err != nil {
		t.Fatal(err)
	}
	w.policy, w.caller, w.byRoles = answer.PolicyDocument, p, len(payload["scopes"].([]string)) < len(scopes)
	return w
}

// newWorld returns a token with these scopes in its claim scopes.
func newWorld(t *testing.T, c *config.Config, a *edge.Authorizer, scopes []string) world {
	t.Helper()
	w := world{authorizer: a, scopes: scopes, oracle: authztest.Oracle{Admin: c.Auth.AdminScope}}
	for _, m := range c.Auth.ScopeMappings {
		w.oracle.Mappings = append(w.oracle.Mappings, authztest.Mapping{Method: m.Method, Path: m.Pattern, Scopes: m.Scopes})
	}
	answer := authorize(t, w.authorizer, w.scopes...)
	w.policy = answer.PolicyDocument
	w.caller = &authz.Principal{Subject: "ann", Scopes: w.scopes}
	ids := map[string]bool{}
	for _, s := range scopes {
		if id := namedID(s); plain.MatchString(id) {
			ids[id] = true
		}
	}
	w.manyIDs = len(ids) > 50
	return w
}

// examine compares the oracle, the decision and the policy for random requests. seen
// counts the kinds of requests.
func (w world) examine(t *testing.T, g generator, seen map[string]int) {
	t.Helper()
	for range pathsOfAToken {
		method, path := g.request(w.authorizer.Agents)
		d, passed := w.decide(t, method, path)
		if d.Route == nil || d.Route.Public {
			seen["public or unserved"]++
			continue
		}
		w.count(d, path, seen)
		id, ofAgent := d.Params["agent_id"]
		declared := ofAgent && slices.Contains(w.authorizer.Agents, id)
		switch {
		case d.Allow && !passed:
			seen["allowed by an id that no policy can name"]++
		case declared && d.Allow == passed:
			seen["declared, equal"]++
			if !passed && edge.Evaluate(allowsOnly(w.policy), edge.MethodARN(api, method, path)) {
				seen["declared, refused by a Deny"]++
			}
		case declared && w.expressible(d.Route, id):
			w.fail(t, "the policy is wider than necessary", method, path)
		case declared && passed:
			seen["declared, wider: no pattern says it"]++
		case passed && !d.Allow && len(d.Params) == 0 && !w.manyIDs:
			w.fail(t, "the policy allows a path without an id that the decision denies", method, path)
		case passed && !d.Allow:
			seen["undeclared, wider"]++
		}
	}
}

// decide returns the decision and whether the policy allows the request. The test fails
// if the oracle decides otherwise, or if the policy is narrower than the decision.
func (w world) decide(t *testing.T, method, path string) (d authz.Decision, passed bool) {
	t.Helper()
	d, passed = w.authorizer.Policy.Decide(w.caller, method, path), w.passes(method, path)
	request := w.oracle.Request(method, path)
	mapped := request.Mapped && w.audience != "mcp" // no scopes are looked at then
	if w.oracle.Caller(w.scopes).For(w.audience).May(request) != d.Allow || mapped != (d.Mapping != "") {
		w.fail(t, "the oracle decides otherwise", method, path)
	}
	if d.Allow && !d.Route.Public && !passed && w.nameable(method, path) {
		w.fail(t, "the policy is narrower than the decision", method, path)
	}
	return d, passed
}

// passes reports whether the policy allows the request. A method ARN has no slashes at
// its end.
func (w world) passes(method, path string) bool {
	return edge.Evaluate(w.policy, edge.MethodARN(api, method, route.Clean(path)))
}

func (w world) fail(t *testing.T, text, method, path string) {
	t.Helper()
	t.Fatalf("%s: %s %q with scopes %q, agents %q and mappings %q: the decision is %t, the policy allows it: %t\n%s",
		text, method, path, w.scopes, w.authorizer.Agents, w.oracle.Mappings,
		w.authorizer.Policy.Decide(w.caller, method, path).Allow, w.passes(method, path), strings.Join(lines(w.policy), "\n"))
}

// count adds the request to the kinds in seen that it belongs to.
func (w world) count(d authz.Decision, path string, seen map[string]int) {
	verdict := map[bool]string{true: "allowed", false: "denied"}[d.Allow]
	seen[verdict]++
	tally := func(kind string, is bool) {
		if is {
			seen[kind]++
		}
	}
	id := d.Params["agent_id"]
	collides := slices.Contains([]string{"runs", "cancel", "agents", "sessions"}, id)
	odd := id != "" && !plain.MatchString(id)
	before, after, star := strings.Cut(d.Mapping, "*")
	tally("by a mapping", d.Mapping != "")
	tally("by a mapping's star", star)
	// If the mapping has fewer slashes than the path, its star matched one.
	tally("by a star across segments", star && strings.Count(before+after, "/") < strings.Count(route.Clean(path), "/"))
	tally("mapped and allowed", d.Mapping != "" && d.Allow)
	tally("an id that collides", collides)
	tally("an id that collides, allowed", collides && d.Allow)
	tally("an odd id", odd)
	tally("an odd id, allowed", odd && d.Allow)
	tally("slashes at the end", strings.HasSuffix(path, "/"))
	tally("a list", d.Route.Lists != "")
	tally("no id in the path", len(d.Params) == 0)
	tally("past fifty ids", w.manyIDs)
	tally("for both", w.audience == "both")
	tally("for mcp alone, allowed", w.audience == "mcp" && d.Allow)
	tally("for mcp alone, denied", w.audience == "mcp" && !d.Allow)
	tally("for the api, mcp denied", w.audience == "" && d.Route.Name == route.MCPCall)
	tally("by roles", w.byRoles)
	tally("by roles, allowed", w.byRoles && d.Allow)
	tally("more than fifty agents", len(w.authorizer.Agents) > 50)
}

// plain matches the ids that a policy can name. A grant for any other id, or for one of
// 256 characters or more, opens nothing through the authorizer.
var plain = regexp.MustCompile(`^[A-Za-z0-9._-]{1,255}$`)

// namedID returns the id of a scope for one resource, or "" for any other scope.
func namedID(scope string) string {
	long, _ := authztest.Read(scope)
	if part := strings.Split(long, ":"); len(part) == 3 && part[1] != "*" {
		return part[1]
	}
	return ""
}

// nameable reports whether the request is allowed without the scopes for ids that a
// policy can't name.
func (w world) nameable(method, path string) bool {
	rest := slices.DeleteFunc(slices.Clone(w.scopes), func(s string) bool {
		id := namedID(s)
		return id != "" && !plain.MatchString(id)
	})
	return w.oracle.Caller(rest).For(w.audience).May(w.oracle.Request(method, path))
}

// expressible reports whether a policy can deny the route for the agent. A Resource is a
// route with an agent's id or a star for it, and a star for every other parameter: run
// ids are unlimited in number, so a policy names none. All requests of one route for one
// declared agent therefore get the same verdict. The policy can deny them if the decision
// allows none of them; otherwise the Deny would cover an allowed path. It needs at most 50
// ids in the token and at most 50 declared agents. The Resource is always within 512
// characters, since a declared id has at most 64.
//
// The oracle decides whether the decision allows one of them. Run ids differ only in the
// mappings that they match, so every sequence of up to three literal pieces of the
// mappings is tried, and one piece that is in no mapping.
func (w world) expressible(r *route.Route, agent string) bool {
	if w.manyIDs || len(w.authorizer.Agents) > 50 {
		return false
	}
	pieces := []string{"zz"}
	for _, m := range w.oracle.Mappings {
		pieces = append(pieces, strings.FieldsFunc(m.Path, func(c rune) bool { return c == '/' || c == '*' })...)
	}
	slices.Sort(pieces)
	pieces = append(slices.Compact(pieces), "")
	caller := w.oracle.Caller(w.scopes).For(w.audience)
	for _, a := range pieces {
		for _, b := range pieces {
			for _, c := range pieces {
				run := a + b + c
				path := r.Path(func(param string) string {
					if param == "agent_id" {
						return agent
					}
					return run
				})
				if run != "" && caller.May(w.oracle.Request(r.Method, path)) {
					return false
				}
			}
		}
	}
	return true
}

// allowsOnly returns the policy without its Deny statements.
func allowsOnly(p events.APIGatewayCustomAuthorizerPolicy) events.APIGatewayCustomAuthorizerPolicy {
	p.Statement = slices.DeleteFunc(slices.Clone(p.Statement), func(s events.IAMPolicyStatement) bool {
		return s.Effect != "Allow"
	})
	return p
}

// lines writes a policy as lines: "Allow GET/agents".
func lines(p events.APIGatewayCustomAuthorizerPolicy) (out []string) {
	for _, s := range p.Statement {
		for _, r := range s.Resource {
			out = append(out, s.Effect+" "+strings.TrimPrefix(r, api+"/"))
		}
	}
	return out
}
