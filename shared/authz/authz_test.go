package authz

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
)

const admin = "agent_os:admin"

func policy(t *testing.T, adminScope string, mappings ...Mapping) *Policy {
	t.Helper()
	o, err := New(route.Table, adminScope, mappings)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// checker checks decisions: allow("scopes", "METHOD /path") and deny(…, "what is missing").
type checker struct {
	t *testing.T
	o *Policy
}

func (a checker) decide(scopes, request string) Decision {
	a.t.Helper()
	method, path, ok := strings.Cut(request, " ")
	if !ok {
		a.t.Fatalf("%q is not a request", request)
	}
	return a.o.Decide(&Principal{Subject: "u", Scopes: strings.Fields(scopes)}, method, path)
}

func (a checker) allow(scopes, request string) {
	a.t.Helper()
	if d := a.decide(scopes, request); !d.Allow || d.Err("") != nil {
		a.t.Errorf("%s is denied %s: %s", scopes, request, strings.Join(d.Reasons(strings.Clone), "; "))
	}
}

func (a checker) deny(scopes, request, missing string) {
	a.t.Helper()
	d := a.decide(scopes, request)
	if d.Allow || !errors.Is(d.Err(""), fault.Forbidden) {
		a.t.Errorf("%s is allowed %s (%v)", scopes, request, d.Err(""))
	}
	if got := join(d.Missing); got != missing {
		a.t.Errorf("%s, %s: missing %q, want %q", scopes, request, got, missing)
	}
}

func TestAgentScopes(t *testing.T) {
	t.Parallel()
	a := checker{t, policy(t, admin)}
	a.allow("agents:run", "POST /agents/finance-agent/runs")
	a.allow("agents:*:run", "POST /agents/finance-agent/runs")
	a.allow("agents:finance-agent:run", "POST /agents/finance-agent/runs")
	a.allow("agents:finance-agent:run", "POST /agents/finance-agent/runs/r/cancel")
	a.allow("agents:finance-agent:run", "POST /agents/finance-agent/runs/")
	a.allow(admin, "POST /agents/finance-agent/runs")
	a.deny("agents:web-search-agent:run", "POST /agents/finance-agent/runs", "agents:finance-agent:run")
	a.deny("agents:read", "POST /agents/finance-agent/runs", "agents:finance-agent:run")
	a.deny("", "POST /agents/finance-agent/runs", "agents:finance-agent:run")
	a.deny("agents:*", "POST /agents/x/runs", "agents:x:run")
	a.deny("agents::run", "POST /agents/x/runs", "agents:x:run")
	a.deny("agents:x:y:run", "POST /agents/x/runs", "agents:x:run")

	a.allow("agents:x:read", "GET /agents/x")
	a.deny("agents:x:run", "GET /agents/x", "agents:x:read")

	// Reading runs needs both scopes.
	a.allow("agents:x:read agents:run", "GET /agents/x/runs")
	a.allow("agents:read agents:x:run", "GET /agents/x/runs/r")
	a.deny("agents:x:read", "GET /agents/x/runs", "agents:x:run")
	a.deny("agents:run", "GET /agents/x/runs", "agents:x:read")
}

func TestOtherFamilies(t *testing.T) {
	t.Parallel()
	a := checker{t, policy(t, admin)}
	a.allow("sessions:read", "GET /sessions")
	a.allow("sessions:read", "GET /sessions/s/runs/r")
	a.allow("system:read", "GET /config")
	a.deny("sessions:read", "DELETE /sessions/s", "sessions:delete")
	a.deny("agents:read", "GET /sessions", "sessions:read")
	// Only agents have scopes of their own.
	a.deny("sessions:s:read", "GET /sessions/s", "sessions:read")
}

func TestAListShowsOnlyWhatTheCallerCanRead(t *testing.T) {
	t.Parallel()
	a := checker{t, policy(t, admin)}
	for _, row := range []struct {
		scopes string
		shows  string
		hides  string
	}{
		{"agents:read", "a b", ""},
		{"agents:*:read", "a b", ""},
		{admin, "a b", ""},
		{"agents:a:read agents:b:run", "a", "b"},
		{"agents:nope:read", "", "a b"},
		{"agents:web*:read", "", "a b web-search"},
	} {
		a.allow(row.scopes, "GET /agents")
		d := a.decide(row.scopes, "GET /agents")
		for _, id := range strings.Fields(row.shows) {
			if !d.Lists(id) {
				t.Errorf("%s does not list %s", row.scopes, id)
			}
		}
		for _, id := range strings.Fields(row.hides) {
			if d.Lists(id) {
				t.Errorf("%s lists %s", row.scopes, id)
			}
		}
	}
	a.deny("agents:run", "GET /agents", "agents:read")
	a.deny("agents:a:run", "GET /agents", "agents:read")
	a.allow("teams:read", "GET /teams")
	a.deny("agents:read", "GET /workflows", "workflows:read")
	if (Decision{}).Lists("a") {
		t.Error("the zero Decision lists an id")
	}
}

func TestOnlyPublicRoutesNeedNoToken(t *testing.T) {
	t.Parallel()
	o, scopeless := policy(t, admin), &Principal{Subject: "u"}
	for _, row := range []struct {
		request         string
		without, with   error
		withoutIsPublic bool
	}{
		{request: "GET /health", withoutIsPublic: true},
		{request: "GET /agents", without: fault.Unauthenticated, with: fault.Forbidden},
		{request: "GET /agents/nope", without: fault.Unauthenticated, with: fault.Forbidden},
		{request: "GET /nope", without: fault.Unauthenticated, with: fault.NotFound},
		{request: "GET //agents", without: fault.Unauthenticated, with: fault.NotFound},
		{request: "PUT /agents", without: fault.Unauthenticated, with: fault.MethodNotAllowed},
		{request: "POST /health", without: fault.MethodNotAllowed, with: fault.MethodNotAllowed},
	} {
		method, path, _ := strings.Cut(row.request, " ")
		if err := o.Decide(nil, method, path).Err(""); !errors.Is(err, row.without) {
			t.Errorf("%s without a token: %v, want %v", row.request, err, row.without)
		}
		if err := o.Decide(scopeless, method, path).Err(""); !errors.Is(err, row.with) {
			t.Errorf("%s with a token without scopes: %v, want %v", row.request, err, row.with)
		}
		if got := o.Decide(nil, method, path).Allow; got != row.withoutIsPublic {
			t.Errorf("%s is allowed without a token: %t", row.request, got)
		}
	}
}

// custom are the mappings in example 004 of AgentOS's documentation.
var custom = []Mapping{
	{"GET", "/agents", []string{"app:read"}},
	{"GET", "/agents/*", []string{"app:read"}},
	{"POST", "/agents/*/runs", []string{"app:run", "app:execute"}},
	{"GET", "/sessions", []string{"app:admin"}},
	{"GET", "/sessions/*", []string{"app:read", "sessions:read"}},
	{"GET", "/config", []string{"app:admin"}},
}

func TestACustomMappingReplacesTheNeeds(t *testing.T) {
	t.Parallel()
	a := checker{t, policy(t, "app:superadmin", custom...)}
	a.allow("app:read", "GET /agents")
	a.allow("app:read", "GET /agents/research-agent")
	a.allow("app:run app:execute", "POST /agents/research-agent/runs")
	a.allow("app:admin", "GET /sessions")
	a.allow("app:read sessions:read", "GET /sessions/s")
	a.allow("app:superadmin", "POST /agents/research-agent/runs")
	a.allow("app:superadmin", "DELETE /sessions/s")
	a.deny("app:run", "POST /agents/research-agent/runs", "app:execute")
	a.deny("agents:run", "POST /agents/research-agent/runs", "app:run, app:execute")
	a.deny(admin, "POST /agents/research-agent/runs", "app:run, app:execute")
	a.deny("app:read app:run app:execute", "GET /sessions", "app:admin")
	a.deny("app:read", "GET /sessions/s", "sessions:read")
	// A route that no mapping matches keeps its own need.
	a.allow("agents:run", "POST /agents/research-agent/runs/r/cancel")
	a.deny("app:admin", "DELETE /sessions/s", "sessions:delete")
	if d := a.decide("app:read", "GET /agents"); !d.Lists("anything") {
		t.Error("a mapped list is filtered")
	}
}

func TestTheMostSpecificMappingWins(t *testing.T) {
	t.Parallel()
	a := checker{t, policy(t, admin,
		Mapping{"GET", "/agents/*", []string{"x:wide"}},
		Mapping{"GET", "/agents/a*", []string{"x:narrow"}},
		Mapping{"GET", "/agents/a*s", []string{"x:later"}},
		Mapping{"GET", "/agents/abc", []string{"x:exact"}},
		Mapping{"GET", "/agents/*/runs", []string{"agents:run"}},
	)}
	a.allow("x:exact", "GET /agents/abc")
	a.allow("x:exact", "GET /agents/abc/")
	a.allow("x:narrow", "GET /agents/abd")
	a.allow("x:narrow", "GET /agents/abs")
	a.allow("x:wide", "GET /agents/b")
	a.deny("x:wide", "GET /agents/abc", "x:exact")
	a.allow("x:wide", "GET /agents/b/runs") // same prefix: the earlier one
	// A need of the path's own family is covered by a scope for the id in the path.
	b := checker{t, policy(t, admin, Mapping{"GET", "/agents/*/runs", []string{"agents:run"}})}
	b.allow("agents:b:run", "GET /agents/b/runs")
	b.deny("agents:c:run", "GET /agents/b/runs", "agents:b:run")
}

func TestAMappingWithAMistakeIsRefused(t *testing.T) {
	t.Parallel()
	for want, m := range map[string]Mapping{
		"matches no route":     {"GET", "/nope", []string{"a:b"}},
		"matches no route;":    {"GET", "/agents/\x00", []string{"a:b"}},
		"needs no scope":       {"GET", "/agents", nil},
		"which is not a scope": {"GET", "/agents", []string{"read"}},
	} {
		if _, err := New(route.Table, admin, []Mapping{m}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", m, err, want)
		}
	}
	if _, err := New(route.Table, admin, []Mapping{{"GET", "/health", []string{"a:b"}}}); err == nil {
		t.Error("a public route can be mapped")
	}
}

func TestARefusalNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	d := policy(t, admin).Decide(&Principal{}, "POST", "/agents/finance-agent/runs")
	status, header, body := fault.Answer(d.Err("d-1"))
	want := `{"detail":"Insufficient permissions. Required scope(s): agents:run",` +
		`"missing":["agents:finance-agent:run"],"decision_id":"d-1"}`
	if status != 403 || string(body) != want {
		t.Errorf("%d %s", status, body)
	}
	challenge := `Bearer error="insufficient_scope", scope="agents:finance-agent:run"`
	if got := header.Get("WWW-Authenticate"); got != challenge {
		t.Errorf("challenge %q", got)
	}
	_, header, _ = fault.Answer(policy(t, admin).Decide(&Principal{}, "PUT", "/agents").Err(""))
	if got := header.Get("Allow"); got != "GET" {
		t.Errorf("Allow is %q", got)
	}
}

// A space in an id would make two scopes of one, and a client asks its identity provider for each of them.
func TestTheHeaderOfARefusalNamesNoScopeThatTheIDOfAnAgentContains(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"x agent_os:admin y", `a"b`, "a\\b", "\u00f6", "a\x7f"} {
		d := policy(t, admin).Decide(&Principal{}, "POST", "/agents/"+id+"/runs")
		if _, header, _ := fault.Answer(d.Err("")); header.Get("WWW-Authenticate") != `Bearer error="insufficient_scope"` {
			t.Errorf("%q: %s", id, header)
		}
	}
}

// MightAllow is true for each request that Decide allows, so that a policy built with it
// never refuses one.
func TestMightAllowIsNeverNarrowerThanDecide(t *testing.T) {
	t.Parallel()
	ids := []string{"a", "b", "runs", "agents", "a-b"}
	segment := rapid.SampledFrom([]string{"agents", "sessions", "runs", "a", "b", "*", "a*", "*b", "config"})
	allowed := 0
	rapid.Check(t, func(t *rapid.T) {
		var mappings []Mapping
		for _, parts := range rapid.SliceOfN(rapid.SliceOfN(segment, 1, 4), 0, 3).Draw(t, "globs") {
			method := rapid.SampledFrom([]string{"GET", "POST", "DELETE"}).Draw(t, "method")
			need := rapid.SampledFrom([]string{"x:y", "agents:run", "agents:a:read", "sessions:read"}).Draw(t, "need")
			m := Mapping{method, "/" + strings.Join(parts, "/"), []string{need}}
			if Reaches(route.Table, m.Method, m.Path) {
				mappings = append(mappings, m)
			}
		}
		o, err := New(route.Table, admin, mappings)
		if err != nil {
			t.Fatal(err)
		}
		held := rapid.SampledFrom([]string{
			admin, "x:y", "agents:run", "agents:read", "agents:*:read", "agents:a:run", "agents:b:read", "agents:a:read",
			"agents:runs:run", "sessions:read", "sessions:delete", "config:read",
		})
		p := &Principal{Scopes: rapid.SliceOfN(held, 0, 4).Draw(t, "scopes")}
		routes := slices.Collect(route.Table.All())
		r := routes[rapid.IntRange(0, len(routes)-1).Draw(t, "route")]
		id := rapid.SampledFrom(ids).Draw(t, "id")
		path := r.Path(func(name string) string {
			if name == "agent_id" {
				return id
			}
			return rapid.SampledFrom(ids).Draw(t, name)
		})
		d := o.Decide(p, r.Method, path)
		if r.Public || !d.Allow {
			return
		}
		allowed++
		if !o.MightAllow(o.Granted(p), d.Route, id) {
			t.Fatalf("%v are allowed %s %s with mappings %v, and MightAllow is false", p.Scopes, r.Method, path, mappings)
		}
	})
	if allowed == 0 {
		t.Error("no generated request was allowed, so that the property was never tested")
	}
}

// Callers ask these routes what their token lacks, so that no mapping closes them.
func TestNoMappingClosesARouteThatEveryValidTokenOpens(t *testing.T) {
	t.Parallel()
	o := policy(t, admin, Mapping{"GET", "/*", []string{"x:y"}}, Mapping{"POST", "*", []string{"x:y"}})
	for _, request := range []string{"GET /whoami", "POST /can"} {
		method, path, _ := strings.Cut(request, " ")
		for _, scopes := range [][]string{nil, {"x:z"}, {admin}} {
			p := &Principal{Scopes: scopes}
			d := o.Decide(p, method, path)
			if !d.Allow || d.Open || d.Mapping != "" || len(d.Need) > 0 || !o.MightAllow(o.Granted(p), d.Route, "") {
				t.Errorf("%s with %q: %+v", request, scopes, d)
			}
			asWritten := func(text string) string { return text }
			if got := strings.Join(d.Reasons(asWritten), "; "); !strings.HasSuffix(got, "it needs a valid token and no scope") {
				t.Errorf("%s: %s", request, got)
			}
		}
		if d := o.Decide(nil, method, path); d.Allow || d.Err("").Error() != o.Decide(nil, "GET", "/agents").Err("").Error() {
			t.Errorf("%s without a token: %+v", request, d)
		}
		if _, err := New(route.Table, admin, []Mapping{{method, path, []string{"x:y"}}}); err == nil {
			t.Errorf("a mapping of %s alone has no effect and was accepted", request)
		}
	}
}

// A mapping may be older than the routes, and must not open them.
func TestNoMappingAndNoOtherScopeOpensARouteForAdministrators(t *testing.T) {
	t.Parallel()
	o := policy(t, "root:all", Mapping{"GET", "/*", []string{"x:y"}}, Mapping{"POST", "*", []string{"x:y"}})
	for _, request := range []string{
		"GET /revocations", "POST /revocations", "DELETE /revocations", "GET /active-runs", "DELETE /active-runs",
		"GET /user-data", "DELETE /user-data",
		"GET /usage", "GET /decisions", "POST /diff", "POST /dev/token",
	} {
		method, path, _ := strings.Cut(request, " ")
		for _, scopes := range [][]string{
			nil, {"x:y"}, {admin}, {"root:*:all"}, {"root:x:all"}, {"root:all:"}, {"root"},
			{"revocations:read", "revocations:write"},
		} {
			d := o.Decide(&Principal{Scopes: scopes}, method, path)
			if d.Allow || d.Mapping != "" || len(d.Missing) != 1 || d.Missing[0].String() != "root:all" {
				t.Errorf("%s with %q: %+v", request, scopes, d)
			}
		}
		if d := o.Decide(&Principal{Scopes: []string{"root:all"}}, method, path); !d.Allow || !d.Admin {
			t.Errorf("%s for an administrator: %+v", request, d)
		}
		if o.Decide(nil, method, path).Allow {
			t.Errorf("%s without a token is allowed", request)
		}
	}
	if _, err := New(route.Table, admin, []Mapping{{"GET", "/revocations", []string{"x:y"}}}); err == nil {
		t.Error("a mapping of such a route alone has no effect and was accepted")
	}
}
