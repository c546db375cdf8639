package edge_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/token"
)

func TestPolicyListsRoutesOfToken(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("web-search-agent", "finance-agent"))
	for name, row := range map[string]struct {
		scopes []string
		want   []string
	}{
		"one agent's runs": {[]string{"agents:web-search-agent:run"}, []string{
			"Allow POST/agents/web-search-agent/runs", "Allow POST/agents/web-search-agent/runs/*/cancel",
			"Allow POST/agents/web-search-agent/runs/*/continue",
			"Allow POST/agents/web-search-agent/runs/*/resume", "Allow POST/agents/web-search-agent/agui",
			"Allow POST/agents/web-search-agent/ai-sdk", "Allow GET/agents/web-search-agent/ai-sdk/*/stream",
		}},
		"one agent altogether": {[]string{"agents:web-search-agent:run", "agents:web-search-agent:read"}, []string{
			"Allow GET/agents", "Allow GET/agents/web-search-agent", "Allow POST/agents/web-search-agent/runs",
			"Allow GET/agents/web-search-agent/runs", "Allow GET/agents/web-search-agent/runs/*",
			"Allow POST/agents/web-search-agent/runs/*/cancel", "Allow POST/agents/web-search-agent/runs/*/continue",
			"Allow POST/agents/web-search-agent/runs/*/resume", "Allow POST/agents/web-search-agent/agui",
			"Allow POST/agents/web-search-agent/ai-sdk", "Allow GET/agents/web-search-agent/ai-sdk/*/stream",
		}},
		"every agent seen, one run": {[]string{"agents:read", "agents:web-search-agent:run"}, []string{
			"Allow GET/agents", "Allow GET/agents/*", "Allow POST/agents/web-search-agent/runs",
			"Allow GET/agents/web-search-agent/runs", "Allow GET/agents/web-search-agent/runs/*",
			"Allow POST/agents/web-search-agent/runs/*/cancel", "Allow POST/agents/web-search-agent/runs/*/continue",
			"Allow POST/agents/web-search-agent/runs/*/resume", "Allow POST/agents/web-search-agent/agui",
			"Allow POST/agents/web-search-agent/ai-sdk", "Allow GET/agents/web-search-agent/ai-sdk/*/stream",
			"Deny GET/agents/finance-agent/runs", "Deny GET/agents/finance-agent/runs/*",
			"Deny GET/agents/finance-agent/ai-sdk/*/stream",
		}},
		"an agent that isn't declared": {[]string{"agents:nope:read"}, []string{"Allow GET/agents", "Allow GET/agents/nope"}},
		"another family": {[]string{"sessions:read"},
			[]string{"Allow GET/sessions", "Allow GET/sessions/*", "Allow GET/sessions/*/runs",
				"Allow GET/sessions/*/run-previews", "Allow GET/sessions/*/runs/*"}},
		"the older name":         {[]string{"system:read"}, []string{"Allow GET/config"}},
		"nothing":                {nil, nil},
		"nothing that is served": {[]string{"knowledge:read", "nonsense", "agents:*", "a:b:c:d"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(row.want, byScopes(t, authorize(t, a, row.scopes...))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAdministratorPolicyListsWholeTable(t *testing.T) {
	t.Parallel()
	params := regexp.MustCompile(`\{[^}]*\}`)
	var want []string
	for r := range route.Table.All() {
		if !r.Public {
			want = append(want, "Allow "+r.Method+params.ReplaceAllString(r.Pattern, "*"))
		}
	}
	c := declaring("a", "b")
	c.PublicURL = "https://os.example.com"
	raw := signFor(t, token.Claims{Scopes: []string{admin}}, "https://os.example.com/mcp")
	answer, err := newAuthorizer(t, c).Authorize(t.Context(), event(t, raw))
	if err != nil {
		t.Fatal(err)
	}
	got := statements(t, answer)
	if diff := cmp.Diff(want, got); diff != "" || len(got) < 15 {
		t.Errorf("%d lines: %s", len(got), diff)
	}
}

// API Gateway caches a policy and applies it to the token's next request, whatever its route.
func TestPolicyDoesNotDependOnRequest(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("a", "b"))
	first := authorize(t, a, "agents:a:run", "agents:a:read")
	e := event(t, sign(t, claims("ann", "agents:a:run", "agents:a:read")))
	e.MethodArn, e.HTTPMethod, e.Path = api+"/DELETE/sessions/s", "DELETE", "/sessions/s"
	second, err := a.Authorize(t.Context(), e)
	if diff := cmp.Diff(first, second); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for request, want := range map[string]bool{
		"GET /agents": true, "GET /agents/a": true, "POST /agents/a/runs": true, "GET /agents/a/runs/r": true,
		"POST /agents/b/runs": false, "GET /agents/b": false, "GET /sessions": false, "DELETE /sessions/s": false,
		"POST /agents/a": false, "GET /agents/ab": false, "POST /agents/a/runs/r/cancel": true,
		"POST /agents/b/runs/r/cancel": false,
	} {
		if got := evaluate(first, request); got != want {
			t.Errorf("%s: %t, want %t", request, got, want)
		}
	}
}

func TestIDsInATokenNeverAddWildcards(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("web", "finance"))
	for _, id := range []string{
		"web*", "*web", "**", "w?b", "?", "${x}", "$", "a/b", "../sessions", "a b", "web\n", "wéb", "\x00", "%2F", "a{b}",
		strings.Repeat("x", 256), strings.Repeat("x", 600),
	} {
		got := byScopes(t, authorize(t, a, "agents:"+id+":run", "agents:"+id+":read", "config:read"))
		if diff := cmp.Diff([]string{"Allow GET/config", "Allow GET/agents"}, got); diff != "" {
			t.Errorf("id %q: %s", id, diff)
		}
	}
	for _, scope := range []string{"agents:${aws:username}:run", "agents:a:b:run", "agents::run", "agents:*:*"} {
		if diff := cmp.Diff([]string(nil), byScopes(t, authorize(t, a, scope))); diff != "" {
			t.Errorf("%s: %s", scope, diff)
		}
	}
}

func TestResourcesStayWithinAPIGatewayLimit(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("a"))
	long := strings.Repeat("x", 255)
	e := event(t, sign(t, claims("ann", "agents:"+long+":run", "agents:"+long+":read")))
	// 128: the longest stage name
	e.MethodArn = strings.Replace(api, "/test", "/"+strings.Repeat("s", 128), 1) + "/GET/agents"
	answer, err := a.Authorize(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, r := range answer.PolicyDocument.Statement[0].Resource {
		if strings.Contains(r, "/agents/"+long) {
			named++
		}
		if len(r) > 512 {
			t.Errorf("%d characters: %s", len(r), r)
		}
	}
	if named != 10 {
		t.Errorf("%d resources contain the long id", named)
	}
}

// With more than fifty ids in the token the policy names none of them. A route without any
// grant stays denied.
func TestManyGrantsWidenToWholeRoutes(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("agent-0", "other"))
	scopes := []string{"agents:agent-0:run"}
	for n := range 49 {
		scopes = append(scopes, fmt.Sprintf("agents:reader-%d:read", n))
	}
	named := byScopes(t, authorize(t, a, scopes...))
	if len(named) != 1+49+7 || !slices.Contains(named, "Allow GET/agents/reader-48") ||
		slices.Contains(named, "Allow GET/agents/*") {
		t.Errorf("fifty ids: %q", named)
	}
	wide := byScopes(t, authorize(t, a, append(scopes, "agents:reader-49:read")...))
	if diff := cmp.Diff([]string{
		"Allow GET/agents", "Allow GET/agents/*", "Allow POST/agents/*/runs", "Allow GET/agents/*/runs",
		"Allow GET/agents/*/runs/*",
		"Allow POST/agents/*/runs/*/cancel", "Allow POST/agents/*/runs/*/continue",
		"Allow POST/agents/*/runs/*/resume", "Allow POST/agents/*/agui", "Allow POST/agents/*/ai-sdk",
		"Allow GET/agents/*/ai-sdk/*/stream",
	}, wide); diff != "" {
		t.Error(diff)
	}
	readers := byScopes(t, authorize(t, a, append(scopes[1:], "agents:x:read", "agents:y:read")...))
	if diff := cmp.Diff([]string{"Allow GET/agents", "Allow GET/agents/*"}, readers); diff != "" {
		t.Error(diff)
	}
}

// callers are the callers of the documents, with the scopes that the documents' comments name.
var callers = map[string]map[string][]string{
	"per-agent-permissions": {
		"web_user":     {"agents:read", "agents:web-search-agent:run"},
		"finance_user": {"agents:read", "agents:finance-agent:run"},
		"power_user":   {"agents:read", "agents:web-search-agent:run", "agents:finance-agent:run"},
	},
	"advanced-scopes": {
		"admin_user": {admin},
		"power_user": {"system:read", "agents:read", "agents:run", "sessions:read", "sessions:write"},
		"limited_user": {"agents:web-search-agent:read", "agents:web-search-agent:run", "agents:analyst-agent:read",
			"agents:analyst-agent:run"},
		"readonly_user": {"agents:*:read", "system:read"},
		"wildcard_user": {"agents:read", "agents:*:run"},
	},
	"custom-scope-mappings": {
		"user_123":   {"app:read"},
		"user_456":   {"app:read", "app:run", "app:execute"},
		"admin_789":  {"app:admin", "app:read", "app:run", "app:execute"},
		"superadmin": {"app:superadmin"},
		"agent_os":   {admin},
	},
}

func example(t *testing.T, name string) *config.Config {
	t.Helper()
	env := map[string]string{"JWT_VERIFICATION_KEY": key}
	c, err := yamlfile.Load(filepath.Join("..", "..", "examples", name, "keyway.yaml"), config.Options{
		Lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// For declared agents the policy gives the same verdict as the decision. For other ids it may
// allow a request that the function then denies.
func TestPolicyAgreesWithDecisionForDocumentedCallers(t *testing.T) {
	t.Parallel()
	for name, users := range callers {
		c := example(t, name)
		a := newAuthorizer(t, c)
		for user, scopes := range users {
			answer := authorize(t, a, scopes...)
			p := &authz.Principal{Subject: "ann", Scopes: scopes}
			verdicts := map[bool]int{}
			for r := range route.Table.All() {
				for _, agent := range append(slices.Clone(a.Agents), "undeclared") {
					path := r.Path(func(param string) string {
						if param == "agent_id" {
							return agent
						}
						return "some-id"
					})
					request := r.Method + " " + path
					decided, passed := a.Policy.Decide(p, r.Method, path).Allow, evaluate(answer, request)
					verdicts[decided]++
					if !r.Public && decided && !passed || !r.Public && agent != "undeclared" && decided != passed {
						t.Errorf("%s, %s: %s is decided %t, and the policy says %t", name, user, request, decided, passed)
					}
				}
			}
			if verdicts[true] == 0 || verdicts[false] == 0 && !slices.Contains([]string{"admin_user", "superadmin"}, user) {
				t.Errorf("%s, %s: %v: the requests need both verdicts", name, user, verdicts)
			}
		}
	}
}

func TestTokenForOneAgentDoesNotReachAnother(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, example(t, "per-agent-permissions"))
	for user, agents := range map[string][2]string{
		"web_user": {"web-search-agent", "finance-agent"}, "finance_user": {"finance-agent", "web-search-agent"},
	} {
		answer := authorize(t, a, callers["per-agent-permissions"][user]...)
		for _, request := range []string{"POST /agents/%s/runs", "POST /agents/%s/runs/r/cancel",
			"POST /agents/%s/runs/r/continue", "GET /agents/%s/runs", "GET /agents/%s/runs/r"} {
			if own, other := evaluate(answer, fmt.Sprintf(request, agents[0])),
				evaluate(answer, fmt.Sprintf(request, agents[1])); !own || other {
				t.Errorf("%s, %s: own %t, other's %t", user, request, own, other)
			}
		}
	}
}

var (
	plainIDs  = []string{"a", "b", "a-b", "runs", "agents", "cancel", ".", "..", "sessions"}
	otherIDs  = []string{"*", "a*", "?", "$x", "a b", "ä", "a/b", ""}
	idDraw    = rapid.SampledFrom(slices.Concat(plainIDs, plainIDs, otherIDs))
	scopeDraw = rapid.Custom(func(t *rapid.T) string {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			return admin
		case 1:
			return rapid.SampledFrom([]string{"app:read", "app:run", "app:execute", "app:admin", "sessions:read",
				"sessions:delete", "system:read"}).Draw(t, "scope")
		case 2:
			return rapid.SampledFrom([]string{"agents:read", "agents:run", "agents:*:run", "agents:*", "nonsense", ""}).Draw(t,
				"scope")
		}
		return "agents:" + idDraw.Draw(t, "id") + ":" + rapid.SampledFrom([]string{"read", "run"}).Draw(t, "action")
	})
	mappingDraw = rapid.Custom(func(t *rapid.T) config.ScopeMapping {
		segment := rapid.SampledFrom([]string{"agents", "sessions", "runs", "config", "a", "b", "*", "*", "a*", "*b"})
		return config.ScopeMapping{
			Method:  rapid.SampledFrom([]string{"GET", "POST", "DELETE"}).Draw(t, "method"),
			Pattern: "/" + strings.Join(rapid.SliceOfN(segment, 1, 5).Draw(t, "path"), "/"),
			Scopes: rapid.SliceOfN(rapid.SampledFrom([]string{"app:read", "app:run", "agents:run", "agents:read",
				"agents:a:read", "sessions:read"}), 1, 2).Draw(t, "needs"),
		}
	})
	document004 = []config.ScopeMapping{
		{Method: "GET", Pattern: "/agents", Scopes: []string{"app:read"}},
		{Method: "GET", Pattern: "/agents/*", Scopes: []string{"app:read"}},
		{Method: "POST", Pattern: "/agents/*/runs", Scopes: []string{"app:run", "app:execute"}},
		{Method: "GET", Pattern: "/sessions", Scopes: []string{"app:admin"}},
		{Method: "GET", Pattern: "/sessions/*", Scopes: []string{"app:read", "sessions:read"}},
		{Method: "GET", Pattern: "/config", Scopes: []string{"app:admin"}},
	}
)

// drawOS draws an OS with random agents, and with no mappings, those of document 004, or
// random ones.
func drawOS(t *rapid.T) *config.Config {
	c := declaring(rapid.SliceOfDistinct(rapid.SampledFrom(plainIDs), rapid.ID).Draw(t, "agents")...)
	switch rapid.IntRange(0, 2).Draw(t, "mappings") {
	case 1:
		c.Auth.ScopeMappings = document004
	case 2:
		for _, m := range rapid.SliceOfN(mappingDraw, 1, 4).Draw(t, "mapping") {
			if authz.Reaches(route.Table, m.Method, m.Pattern) {
				c.Auth.ScopeMappings = append(c.Auth.ScopeMappings, m)
			}
		}
	}
	return c
}

// drawScopes draws the scopes of a token. Some have more ids than a policy names one by one.
func drawScopes(t *rapid.T) []string {
	scopes := rapid.SliceOfN(scopeDraw, 0, 5).Draw(t, "scopes")
	if rapid.IntRange(0, 9).Draw(t, "many") == 0 {
		for n := range 60 {
			scopes = append(scopes, fmt.Sprintf("agents:many-%d:read", n))
		}
	}
	return scopes
}

var resourceForm = regexp.MustCompile(`^(Allow|Deny) (\*|[A-Z]+(/([A-Za-z0-9._-]+|\*))+)$`)

// The policy of every token contains only plain ids and whole segments of routes of the table.
func TestPolicyContainsOnlyRoutesAndPlainIDs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := newAuthorizer(t, drawOS(t))
		scopes := drawScopes(t)
		for _, id := range rapid.SliceOfN(rapid.String(), 0, 5).Draw(t, "ids") {
			scopes = append(scopes, "agents:"+id+":run")
		}
		answer := authorize(t, a, scopes...)
		for _, line := range statements(t, answer) {
			if !resourceForm.MatchString(line) {
				t.Fatalf("%q gives %q", scopes, line)
			}
			_, resource, _ := strings.Cut(line, " ")
			method, path, _ := strings.Cut(resource, "/")
			if m := route.Table.Match(method, "/"+path); m.Route == nil || m.Public {
				t.Fatalf("%q is no route of the table", line)
			}
		}
		if _, err := json.Marshal(answer); err != nil {
			t.Fatal(err)
		}
	})
}
