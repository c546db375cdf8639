package scope

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/authz/authztest"
)

// FuzzParse compares Parse with the oracle, which shares no code with it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"agents:run", "agents:*:run", "a:b:c:d", "::", "system:read", "*:*", "ä:ö", "agents:web*:read",
		"a:\n:b", "\xff:\xfe",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, ok := Parse(text)
		long, granted := authztest.Read(text)
		if ok != granted {
			t.Fatalf("%q is a scope: %t; the oracle says %t", text, ok, granted)
		}
		if !ok {
			return
		}
		all := n.ID
		if all == "" {
			all = "*"
		}
		if got := n.Resource + ":" + all + ":" + n.Action; got != long {
			t.Errorf("%q reads as %q; the oracle reads %q", text, got, long)
		}
		if again, ok := Parse(n.String()); !ok || again != n {
			t.Errorf("%q reads as %+v, whose text reads as %+v %t", text, n, again, ok)
		}
		if n.Resource == "" || n.Action == "" || strings.ContainsAny(n.Resource+n.Action, ":*") {
			t.Errorf("%q reads as %+v", text, n)
		}
	})
}

// FuzzCovers compares Covers with the oracle, for two scopes and a need of one agent or
// of all agents.
func FuzzCovers(f *testing.F) {
	f.Add("agents:run", "agents:x:read", "agents:read", "x")
	f.Add("agents:*:run", "", "agents:run", "*")
	f.Add("system:read", "config:x:write", "config:write", "")
	f.Add(admin, "x "+admin, "agents:y:run", "x")
	f.Add("agents::run", "agents:x:y:run", "agents:x:run", "x:y")
	f.Fuzz(func(t *testing.T, one, two, needed, id string) {
		n, ok := Parse(needed)
		if !ok {
			return
		}
		scopes := []string{one, two}
		got := NewSet(scopes, admin).Covers(n.On("agents", id))
		if want := (authztest.Oracle{Admin: admin}).Caller(scopes).Covers(needed, id); got != want {
			t.Errorf("%q cover %q of %q: %t; the oracle says %t", scopes, needed, id, got, want)
		}
	})
}
