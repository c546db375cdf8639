package authz_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/authz/authztest"
	"github.com/keyway-agents/keyway/shared/route"
)

const admin = "agent_os:admin"

// rules returns the rules of one OS twice: as a Policy and as the oracle's.
func rules(t testing.TB, adminScope string, mappings ...authztest.Mapping) (*authz.Policy, authztest.Oracle) {
	t.Helper()
	var ours []authz.Mapping
	for _, m := range mappings {
		ours = append(ours, authz.Mapping(m))
	}
	policy, err := authz.New(route.Table, adminScope, ours)
	if err != nil {
		t.Fatal(err)
	}
	return policy, authztest.Oracle{Admin: adminScope, Mappings: mappings}
}

func TestTheTableIsTheOraclesTable(t *testing.T) {
	t.Parallel()
	line := func(method, pattern string, public, list, admin, token, run bool, needs []string) string {
		return fmt.Sprintf("%s %s public=%t list=%t admin=%t token=%t run=%t %s", method, pattern, public, list, admin, token,
			run, strings.Join(needs, " "))
	}
	var ours, theirs []string
	for r := range route.Table.All() {
		var needs []string
		for _, n := range r.Needs {
			needs = append(needs, n.String())
		}
		ours = append(ours, line(r.Method, r.Pattern, r.Public, r.Lists != "", r.Admin, r.AnyToken,
			r.As == route.CreateRun, needs))
	}
	for _, r := range authztest.Rows {
		theirs = append(theirs, line(r.Method, r.Pattern, r.Public, r.List, r.Admin, r.Token, r.Run, r.Needs))
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("what is served is not what the oracle knows (-oracle +route.Table):\n%s", diff)
	}
}

// atoms are scopes of which every combination is tried. Some grant something, and some
// only look as if they did.
var atoms = []string{
	"agents:run", "agents:read", "agents:*:run", "agents:web:run", "agents:web:read", "agents:runs:read",
	"system:read", "sessions:read", admin,
	"agents:*", "agents::read", "agents:web*:read", "agents:web:run:read", "x " + admin,
}

// others are more scopes of which every combination is tried, apart from the atoms.
var others = []string{
	"app:superadmin", "app:read", "app:run", "app:execute", "agents:cancel:run", "agents:web:run", "agents:*:read",
	"sessions:*:read", "sessions:s:read", "memories:write", "AGENTS:RUN", "agents:run ",
}

func subsets(of []string) (sets [][]string) {
	for bits := range 1 << len(of) {
		var set []string
		for i, s := range of {
			if bits>>i&1 == 1 {
				set = append(set, s)
			}
		}
		sets = append(sets, set)
	}
	return sets
}

// requests returns every row of the oracle's table with each of these ids in place of
// each parameter, and one path of each row with a method that isn't served.
func requests() (out [][2]string) {
	ids := []string{"web", "finance", "runs", "cancel", "agents"}
	for _, row := range authztest.Rows {
		filled := []string{row.Pattern}
		for strings.Contains(filled[0], "{") {
			var next []string
			for _, p := range filled {
				before, rest, _ := strings.Cut(p, "{")
				_, after, _ := strings.Cut(rest, "}")
				for _, id := range ids {
					// Of run ids, one plain and two that are segments of other routes are enough.
					if before == "/agents/" || id == "web" || id == "runs" || id == "cancel" {
						next = append(next, before+id+after)
					}
				}
			}
			filled = next
		}
		for _, path := range filled {
			out = append(out, [2]string{row.Method, path})
		}
		out = append(out, [2]string{"PUT", filled[0]})
	}
	return out
}

// document004 are the mappings in example 004 of AgentOS's documentation. collisions are
// mappings that are hard to order: concrete ids, stars across segments, equal prefixes,
// an exact path that a star matches too, needs of other families and of one agent, the
// old name "system".
var (
	document004 = []authztest.Mapping{
		{Method: "GET", Path: "/agents", Scopes: []string{"app:read"}},
		{Method: "GET", Path: "/agents/*", Scopes: []string{"app:read"}},
		{Method: "POST", Path: "/agents/*/runs", Scopes: []string{"app:run", "app:execute"}},
		{Method: "GET", Path: "/sessions", Scopes: []string{"app:admin"}},
		{Method: "GET", Path: "/sessions/*", Scopes: []string{"app:read", "sessions:read"}},
		{Method: "GET", Path: "/config", Scopes: []string{"app:admin"}},
	}
	collisions = []authztest.Mapping{
		{Method: "POST", Path: "/agents/*", Scopes: []string{"app:run"}},
		{Method: "POST", Path: "/agents/web/*", Scopes: []string{"agents:run"}},
		{Method: "POST", Path: "/agents/*/runs", Scopes: []string{"app:execute"}},
		{Method: "POST", Path: "/agents/cancel/runs", Scopes: []string{"agents:web:run"}},
		{Method: "POST", Path: "/agents/w*/cancel", Scopes: []string{"agents:*:run", "app:read"}},
		{Method: "GET", Path: "/agents/*/runs/runs", Scopes: []string{"agents:read"}},
		{Method: "GET", Path: "/agents*", Scopes: []string{"app:read"}},
		{Method: "GET", Path: "/agents/runs", Scopes: []string{"system:read"}},
		{Method: "GET", Path: "*/runs", Scopes: []string{"sessions:read"}},
		{Method: "DELETE", Path: "/memories/web", Scopes: []string{"memories:write"}},
		{Method: "GET", Path: "/teams", Scopes: []string{admin}},
		{Method: "GET", Path: "/workflows", Scopes: []string{"app:run", "agents:web:run"}},
	}
)

// Every combination of scopes is decided on every route, and compared with the oracle.
func TestEveryScopeSetOnEveryRouteIsDecidedAsTheOracleDoes(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		admin    string
		mappings []authztest.Mapping
		atoms    []string
	}{
		"defaults":                 {admin, nil, atoms},
		"defaults, other scopes":   {admin, nil, others},
		"another admin":            {"app:superadmin", nil, append([]string{"app:superadmin"}, atoms[:10]...)},
		"document 004":             {"app:superadmin", document004, append([]string{admin, "sessions:read"}, others[:8]...)},
		"mappings that collide":    {admin, collisions, append([]string{"agents:run", admin, "system:read"}, others[1:8]...)},
		"no administrator's scope": {"", nil, append([]string{""}, atoms[:9]...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy, oracle := rules(t, row.admin, row.mappings...)
			sets := subsets(row.atoms)
			callers := make([]authztest.Caller, len(sets))
			for i, set := range sets {
				callers[i] = oracle.Caller(set)
			}
			compared := map[bool]int{}
			for _, request := range requests() {
				asked := oracle.Request(request[0], request[1])
				for i, set := range sets {
					got := policy.Decide(&authz.Principal{Subject: "u", Scopes: set}, request[0], request[1])
					want := callers[i].May(asked)
					compared[want]++
					if got.Allow != want || (got.Mapping != "") != asked.Mapped {
						t.Fatalf("%q, %s: allowed %t by %q; the oracle says %t, mapped %t",
							set, request, got.Allow, got.Mapping, want, asked.Mapped)
					}
					if asked.Row == nil || !asked.Row.List {
						continue
					}
					for _, id := range []string{"web", "finance", "runs", "web*", "agents"} {
						compared[want]++
						if got.Lists(id) != callers[i].Lists(asked, id) {
							t.Fatalf("%q, %s: lists %s: %t, and the oracle disagrees", set, request, id, got.Lists(id))
						}
					}
				}
			}
			t.Logf("%d scope sets, %d requests: %d decisions compared, %d of them allowed",
				len(sets), len(requests()), compared[true]+compared[false], compared[true])
			if compared[true] < 10_000 || compared[false] < 10_000 {
				t.Errorf("%v: too few comparisons", compared)
			}
		})
	}
}

// Without a token, only the routes that the oracle calls public are allowed.
func TestWithoutATokenOnlyPublicRoutesAreAllowed(t *testing.T) {
	t.Parallel()
	policy, oracle := rules(t, admin, collisions...)
	for _, request := range requests() {
		asked := oracle.Request(request[0], request[1])
		want := asked.Row != nil && asked.Row.Public
		if got := policy.Decide(nil, request[0], request[1]).Allow; got != want {
			t.Errorf("%s without a token: %t", request, got)
		}
	}
}
