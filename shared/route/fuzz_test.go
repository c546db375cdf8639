package route

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/authz/authztest"
)

// FuzzMatch compares Match with the oracle, which finds a route with regular
// expressions, and checks that the parameters are as they were sent.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{
		"/agents/x/runs", "//", "/agents/%2e", "/sessions/\x00", "/agents/a/runs/b/cancel/", "/agents//runs",
		"/agents/../sessions", "/agents/a;x",
		"/agents/*/runs/?", "/agents/$/runs/\n", "/Agents", "/agents/\xff", "agents", "/agents/runs/runs/runs",
	} {
		f.Add("GET", s)
		f.Add("POST", s)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		m := Table.Match(method, path)
		want := authztest.Oracle{}.Request(method, path).Row
		if m.Route == nil || want == nil {
			if m.Route != nil || want != nil {
				t.Errorf("%s %q matches %v; the oracle says %v", method, path, m.Route, want)
			}
			return
		}
		if m.Route.Method != want.Method || m.Route.Pattern != want.Pattern {
			t.Errorf("%s %q matches %s; the oracle says %s %s", method, path, m.Route, want.Method, want.Pattern)
		}
		if again := m.Route.Path(func(name string) string { return m.Params[name] }); again != Clean(path) {
			t.Errorf("%q matched %s, which rebuilds as %q", path, m.Route, again)
		}
	})
}
