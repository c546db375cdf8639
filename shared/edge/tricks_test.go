package edge_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/route"
)

// asking makes an OS with the agents web and finance, and a token with these scopes.
func asking(t *testing.T, scopes ...string) world {
	t.Helper()
	c := declaring("web", "finance")
	return newWorld(t, c, newAuthorizer(t, c), scopes)
}

// The paths are percent-decoded once. Each is tried with the scopes of one agent, and then
// with those of every agent. Where the policy allows a request that the decision denies, no
// route serves the path: a * in a policy matches slashes too.
func TestPathTricksNeverWiden(t *testing.T) {
	t.Parallel()
	const (
		allowed  = "allowed"
		refused  = "refused" // by the decision and by the policy
		unserved = "not served, though the policy would let it through"
	)
	one, all := asking(t, "agents:web:run", "agents:web:read"), asking(t, "agents:*:run", "agents:*:read")
	for _, row := range []struct{ request, one, all string }{
		{"POST /agents/web/runs", allowed, allowed},
		{"POST /agents/finance/runs", refused, allowed},
		{"post /agents/web/runs", refused, refused},
		// Slashes.
		{"POST /agents/web/runs/", allowed, allowed},
		{"POST /agents/web/runs///", allowed, allowed},
		{"POST /agents/finance/runs/", refused, allowed},
		{"POST //agents/web/runs", refused, refused},
		{"POST /agents//web/runs", refused, unserved},
		{"POST /agents/web//runs", refused, unserved},
		{"POST /agents//runs", refused, unserved},
		{"POST agents/web/runs", unserved, unserved}, // no HTTP request has such a path
		{`POST /agents\web\runs`, refused, refused},
		// Dots are text.
		{"POST /agents/web/../finance/runs", refused, unserved},
		{"POST /agents/./web/runs", refused, unserved},
		{"POST /agents/../agents/web/runs", refused, unserved},
		{"POST /agents/../runs", refused, allowed}, // an agent with that name
		{"POST /agents/web/runs/../../finance/runs", refused, unserved},
		{"POST /agents/web/runs/r/../../../finance/runs/r/cancel", unserved, unserved},
		{"POST /agents/web/runs/../cancel", allowed, allowed}, // a run with that name
		{"GET /agents/web/../../sessions", refused, unserved},
		{"DELETE /agents/web/../../sessions", refused, refused},
		// A slash that was encoded twice stays encoded; one that was encoded once is a slash.
		{"POST /agents/web%2Fruns", refused, refused},
		{"POST /agents/finance%2F..%2Fweb/runs", refused, allowed},
		{"POST /agents/%77eb/runs", refused, allowed},
		{"POST /%61gents/web/runs", refused, refused},
		{"POST /agents/web/x/runs", refused, unserved},
		{"POST /agents/web%00/runs", refused, allowed},
		{"POST /agents/web\x00/runs", refused, allowed},
		{"POST /agents/web\x00finance/runs", refused, allowed},
		{"POST /agents/web/runs\x00", refused, refused},
		// Upper and lower case, and endings that other servers remove.
		{"POST /AGENTS/web/runs", refused, refused},
		{"POST /agents/WEB/runs", refused, allowed},
		{"POST /agents/web/RUNS", refused, refused},
		{"POST /agents/web;x/runs", refused, allowed},
		{"POST /agents/web/runs;x", refused, refused},
		{"POST /agents/web /runs", refused, allowed},
		{"POST /agents/web./runs", refused, allowed},
		{"POST /agents/web?/runs", refused, allowed},
		{"POST /agents/web#/runs", refused, allowed},
		{"POST /agents/ｗeb/runs", refused, allowed}, // a full-width w
		// Characters with a meaning in a policy.
		{"POST /agents/*/runs", refused, allowed},
		{"POST /agents/w*/runs", refused, allowed},
		{"POST /agents/we?/runs", refused, allowed},
		{"POST /agents/$/runs", refused, allowed},
		{"POST /agents/${aws:username}/runs", refused, allowed},
		{"POST *", refused, refused},
		{"POST /*", refused, refused},
		{"POST /agents/arn:aws:iam::1:root/runs", refused, allowed},
		{"POST /" + strings.TrimPrefix(api, "arn:") + "/POST/agents/web/runs", refused, refused},
		{"POST /agents/" + api + "/POST/agents/web/runs", refused, unserved},
		// Ids that equal a path segment.
		{"POST /agents/runs/runs", refused, allowed},
		{"POST /agents/web/runs/web/runs", refused, unserved},
		{"GET /agents/runs", refused, allowed},
		{"GET /agents/web/runs/runs", allowed, allowed},
		{"GET /agents/finance/runs/web", refused, allowed},
		{"POST /agents/cancel/runs/web/cancel", refused, allowed},
	} {
		method, path, _ := strings.Cut(row.request, " ")
		for _, asked := range []struct {
			w    world
			want string
		}{{one, row.one}, {all, row.all}} {
			d, passed := asked.w.decide(t, method, path)
			got := map[[2]bool]string{{true, true}: allowed, {false, false}: refused,
				{true, false}: "allowed, and the policy is narrower", {false, true}: "let through"}[[2]bool{d.Allow, passed}]
			if got == "let through" && d.Route == nil {
				got = unserved
			}
			if got != asked.want {
				t.Errorf("%q with %q is %s, want %s (%s)", row.request, asked.w.scopes, got, asked.want,
					strings.Join(d.Reasons(strings.Clone), "; "))
			}
		}
	}
}

// A scope for an odd id opens only that id. No other agent, list entry or route opens, by the
// decision or by the policy, and the policy never names the id.
func TestOddIDInAScopeOpensNothingElse(t *testing.T) {
	t.Parallel()
	odd := []string{
		"*", "w*", "**", "*web", "?", "we?", "w?b", "$", "$web", "${web}", "web*", "WEB", "Web", "web ", " web", "web;x",
		"web/", "/web", "web/runs",
		"../web", "..", ".", "finance/../web", "web%2F", "%77eb", "web%00", "web\x00", "\x00", "web\n", "web,finance",
		`web"`, "{agent_id}", "ｗeb",
		"runs", "agents", "cancel", "arn", strings.Repeat("w", 255), strings.Repeat("w", 256), strings.Repeat("w", 600),
		strings.ReplaceAll(api, ":", "_") + "/POST/agents/web/runs", "aws/execute-api",
	}
	for _, id := range odd[1:] { // the first is the control: it means every agent
		w := asking(t, "agents:"+id+":run", "agents:"+id+":read")
		for path, ok := range opened(t, w) {
			if ok && path != "GET /agents" && !isDoor("Allow "+strings.Replace(path, " ", "", 1)) {
				t.Errorf("a scope for %q opens %s", id, path)
			}
		}
		d, _ := w.decide(t, "GET", "/agents")
		if slices.ContainsFunc(w.authorizer.Agents, d.Lists) {
			t.Errorf("a scope for %q makes another agent visible", id)
		}
		// The id's own paths, if a path can contain it.
		own, passed := w.decide(t, "POST", "/agents/"+id+"/runs")
		if want := !strings.Contains(id, "/"); own.Allow != want {
			t.Errorf("the decision for a scope of %q allows its run: %t", id, own.Allow)
		}
		if passed != plain.MatchString(id) {
			t.Errorf("the policy for a scope of %q allows its run: %t", id, passed)
		}
		for _, line := range lines(w.policy) {
			if !plain.MatchString(id) && line != "Allow GET/agents" && !slices.Contains(opensAlways, line) && !isDoor(line) {
				t.Errorf("a scope for %q puts %q into the policy", id, line)
			}
		}
	}
	control := opened(t, asking(t, "agents:"+odd[0]+":run", "agents:"+odd[0]+":read"))
	if !control["POST /agents/web/runs"] || !control["GET /agents/finance/runs/r"] || control["GET /sessions"] {
		t.Errorf("the scopes of every agent open %v", control)
	}
	// With a colon in the id the scope has another form, which grants nothing.
	for _, id := range []string{"arn:aws:iam::1:root", "${aws:username}", "web:run", ":", "web:"} {
		if got := lines(asking(t, "agents:"+id+":run").policy); !slices.Equal(got, opensAlways) {
			t.Errorf("a scope for %q gives %q", id, got)
		}
	}
}

// opened returns, for every route and plain agent, whether the decision or the policy allows
// it.
func opened(t *testing.T, w world) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, r := range tableRoutes {
		for _, agent := range append([]string{"other", "we", "webs"}, w.authorizer.Agents...) {
			path := r.Path(func(param string) string {
				if param == "agent_id" {
					return agent
				}
				return "r"
			})
			if r.Public || r.AnyToken {
				continue
			}
			d, passed := w.decide(t, r.Method, path)
			out[r.Method+" "+route.Clean(path)] = d.Allow || passed
		}
	}
	return out
}

// The property test found these two cases, in which the policy was wider than necessary.
func TestDeclaredAgentIsProtectedByDeny(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		mappings []config.ScopeMapping
		request  string
	}{
		"a run whose id is a segment": {
			[]config.ScopeMapping{{Method: "GET", Pattern: "/agents/web/runs", Scopes: []string{"app:read"}}},
			"GET /agents/finance/runs/runs",
		},
		"a mapping that a more specific one always overrules": {
			[]config.ScopeMapping{
				{Method: "POST", Pattern: "/agents/*/runs/*b/cancel", Scopes: []string{"app:admin"}},
				{Method: "POST", Pattern: "/*/runs/*b/cancel", Scopes: []string{"app:read"}},
				{Method: "POST", Pattern: "/agents/web/runs/*", Scopes: []string{"app:read"}},
			},
			"POST /agents/finance/runs/b/cancel",
		},
	} {
		c := declaring("web", "finance")
		c.Auth.ScopeMappings = row.mappings
		w := newWorld(t, c, newAuthorizer(t, c), []string{"app:read"})
		method, path, _ := strings.Cut(row.request, " ")
		if d, passed := w.decide(t, method, path); d.Allow || passed {
			t.Errorf("%s: %s is decided %t, and the policy says %t:\n%s", name, row.request, d.Allow, passed,
				strings.Join(lines(w.policy), "\n"))
		}
	}
}
