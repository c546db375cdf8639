package authz_test

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/authz"
)

// FuzzDecide compares Decide with the oracle, without mappings and with mappings that
// collide. The text contains one scope a line.
func FuzzDecide(f *testing.F) {
	for _, path := range []string{
		"/agents/a/runs", "//agents", "/agents//runs", "/agents//runs/", "/agents/a//runs/r", "/agents/../sessions",
		"/agents/a/../b/runs", "/agents/%2F", "/agents/a\x00", "/agents/a;x/runs", "/agents/a/runs/", "/agents/*/runs",
		"/agents/?", "/agents/$/runs", "/AGENTS", "/agents/web/runs/runs/cancel", "/agents/arn:aws:x/runs",
		"/agents/${aws:username}/runs", "/",
	} {
		f.Add("agents:a:run\nagents:read", "POST", path)
		f.Add("agents:*:run\nagents:*:read", "GET", path)
		f.Add("agents:*:run\n\nsessions:read", "POST", path)
	}
	defaults, oracle := rules(f, admin)
	mapped, mappedOracle := rules(f, admin, collisions...)
	f.Fuzz(func(t *testing.T, text, method, path string) {
		if len(path) > 100 {
			return // the oracle's globs are slow
		}
		scopes := strings.Split(text, "\n")
		p := &authz.Principal{Subject: "u", Scopes: scopes}
		got, want := defaults.Decide(p, method, path), oracle.Caller(scopes).May(oracle.Request(method, path))
		if got.Allow != want {
			t.Errorf("%q, %s %q: %t; the oracle says %t", scopes, method, path, got.Allow, want)
		}
		got, want = mapped.Decide(p, method, path), mappedOracle.Caller(scopes).May(mappedOracle.Request(method, path))
		if got.Allow != want {
			t.Errorf("%q, %s %q: %t by %q; the oracle says %t", scopes, method, path, got.Allow, got.Mapping, want)
		}
	})
}
