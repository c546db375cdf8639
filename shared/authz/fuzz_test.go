package authz_test

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/authz"
)

// Whatever the scopes (a line each) and the path: it is allowed only if the oracle's
// literal reading of it is, with the defaults and with mappings that collide.
func FuzzDecide(f *testing.F) {
	for _, path := range []string{
		"/agents/a/runs", "//agents", "/agents//runs", "/agents//runs/", "/agents/a//runs/r", "/agents/../sessions", "/agents/a/../b/runs", "/agents/%2F", "/agents/a\x00", "/agents/a;x/runs", "/agents/a/runs/",
		"/agents/*/runs", "/agents/?", "/agents/$/runs", "/AGENTS", "/agents/web/runs/runs/cancel", "/agents/arn:aws:x/runs", "/agents/${aws:username}/runs", "/",
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
		if got, want := defaults.Decide(p, method, path), oracle.Caller(scopes).May(oracle.Request(method, path)); got.Allow != want {
			t.Errorf("%q, %s %q: %t; the oracle says %t", scopes, method, path, got.Allow, want)
		}
		if got, want := mapped.Decide(p, method, path), mappedOracle.Caller(scopes).May(mappedOracle.Request(method, path)); got.Allow != want {
			t.Errorf("%q, %s %q: %t by %q; the oracle says %t", scopes, method, path, got.Allow, got.Mapping, want)
		}
	})
}
