package yamlfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/scope"
)

// seeds adds the files of testdata, and notations that are easy to get wrong.
func seeds(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{
		"", "---\n", "a: &x [*x]\n", "a: {<<: *a}\n", "? [a]\n: b\n", "id: !!str 1\n", "a:\n\t- b\n",
		`{"id": "\ud800", "agents": [{"id": "a", "model": "demo:x"}]}`, "id: ${${A}}\n", "[${A}, $${B}]", "a: 1\n---\nb: 2\n",
		"auth: {keys: [${UNSET}, {jwks_url: ${UNSET}}], scope_mappings: {GET /: [${UNSET}]}}",
		"auth: {algorithms: [RS256], keys: [{discovery: 'https://i', claims: {scopes: [scope, {path: [a, b], split: " +
			"true}], " +
			"roles: groups}, grants: {x y: [a:b]}, prefix: p/, clients: [c], accept: [bound]}], claims: {subject: {path: " +
			"[u]}}}\n" +
			"id: os\nagents: [{id: a, model: demo:x}]",
		"auth: {claims: {scopes: {}, roles: [{}, ''], subject: {split: true}}, grants: {'': [], a: [${UNSET}]}}",
		"id: .inf\n\"a.b\": [1, 0x1F, 1e999]\n",
		"{a: {b: [c:d, 'e':f, ::1]}, \"g\":h:i}", "id: \uFDD0A\uFDD1\n",
	} {
		f.Add([]byte(s))
	}
}

func environment(name string) (string, bool) {
	value, ok := map[string]string{
		"JWT_VERIFICATION_KEY": strings.Repeat("k", 32),
		"DATABASE_URL":         "postgres://u:hunter2@db/x",
		"A":                    "a",
	}[name]
	return value, ok
}

// FuzzParse checks that every input gives either a Config that masks its secrets, or a list of errors
// with positions.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, dev := range []bool{false, true} {
			c, err := yamlfile.Parse("keyway.yaml", data, config.Options{Lookup: environment, Dev: dev})
			faults, ok := errors.AsType[config.Faults](err)
			if (c == nil) != ok || ok && len(faults) == 0 {
				t.Fatalf("dev %v: config %v, error %v", dev, c, err)
			}
			for _, one := range faults {
				if one.Line < 1 || one.Column < 1 || one.Text == "" || one.File != "keyway.yaml" {
					t.Fatalf("an error without a position: %#v", one)
				}
			}
			if c != nil && (!complete(c, dev) || strings.Contains(c.String(), "hunter2")) {
				t.Fatalf("dev %v accepted %v", dev, c)
			}
		}
	})
}

// complete reports whether c has the fields that all users of a Config expect.
func complete(c *config.Config, dev bool) bool {
	noSource := func(k config.Key) bool { return string(k.Literal)+k.JWKSFile+k.JWKSURL+k.Discovery+k.Secret == "" }
	noModel := func(a config.Agent) bool {
		return a.ID == "" || a.Name == "" || a.Model.Provider == "" || a.Model.ID == "" || a.Timeout <= 0
	}
	noScope := func(m config.ScopeMapping) bool { return len(m.Scopes) == 0 || m.Method == "" }
	for _, k := range append([]config.Key{{}}, c.Auth.Keys...) {
		claims, grants := c.Auth.ClaimsOf(k), c.Auth.Grants
		noName := func(s config.ClaimSource) bool { return s.Names() == nil || slices.Contains(s.Names(), "") }
		if slices.ContainsFunc(claims.Scopes, noName) || slices.ContainsFunc(claims.Roles,
			noName) || claims.Subject.Split != nil {
			return false
		}
		if k.Grants != nil {
			grants = k.Grants
		}
		for role, scopes := range grants {
			if role == "" || len(scopes) == 0 {
				return false
			}
			for _, s := range scopes {
				if _, ok := scope.Parse(s); !ok && s != c.Auth.AdminScope {
					return false
				}
			}
		}
	}
	return c.ID != "" && len(c.Agents) > 0 && !slices.ContainsFunc(c.Agents, noModel) &&
		(dev || len(c.Auth.Keys) > 0) && !slices.ContainsFunc(c.Auth.Keys, noSource) &&
		len(c.Auth.Algorithms) > 0 && len(c.Auth.Audience) > 0 && !slices.ContainsFunc(c.Auth.ScopeMappings, noScope)
}

// FuzzCanonical checks that the canonical form is valid as JSON and YAML, and is its own canonical form.
func FuzzCanonical(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := yamlfile.Canonical("keyway.yaml", data)
		if err != nil {
			return // an invalid file has no canonical form
		}
		if twice, err := config.Canonical(once); err != nil || string(twice) != string(once) {
			t.Fatalf("%s became %s, %v", once, twice, err)
		}
		if again, err := yamlfile.Canonical("keyway.yaml", once); err != nil || string(again) != string(once) {
			t.Fatalf("read as YAML, %s became %s, %v", once, again, err)
		}
	})
}
