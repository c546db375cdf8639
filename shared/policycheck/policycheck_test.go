package policycheck

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

const examples = "../../examples"

// documents are the examples for the five documents of AgentOS. Each has a table of promises.
var documents = []string{"per-agent-permissions", "agent-permissions", "advanced-scopes", "basic-rbac-asymmetric",
	"custom-scope-mappings"}

// check checks a table against a configuration without its keys.
func check(t *testing.T, table, configuration string) []Result {
	t.Helper()
	promises, err := Read(table)
	if err != nil {
		t.Fatal(err)
	}
	c, err := yamlfile.Load(configuration, config.Options{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	results, err := promises.Check(c, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// write writes a file into a temporary directory, and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The example for a deployment has a table too.
func TestExamplesKeepTheirPromises(t *testing.T) {
	t.Parallel()
	for _, name := range append(slices.Clone(documents), "deploy") {
		tables, err := filepath.Glob(filepath.Join(examples, name, "policies*.yaml"))
		if err != nil || !slices.Contains(tables, filepath.Join(examples, name, "policies.yaml")) {
			t.Errorf("examples/%s has no policies.yaml (%v)", name, err)
		}
		for _, path := range tables {
			table, err := Read(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range check(t, path, table.Config) {
				if !r.OK || r.Note != "" {
					t.Errorf("%s:%d: %s: expected %s, got %s (%s) %s", path, r.Line, r.Text, r.Expected, r.Got,
						strings.Join(r.Reasons, "; "), r.Note)
				}
			}
		}
	}
}

// Each change allows or denies at least one more request. A row of the table must fail.
func TestTablesDetectChangedConfigurations(t *testing.T) {
	t.Parallel()
	// Each of these removes one scope mapping.
	mapping := func(line string) [3]string { return [3]string{"custom-scope-mappings", "\n    " + line, ""} }
	for _, m := range [][3]string{
		mapping(`"GET /agents/*/runs*": [app:admin]`), mapping(`"GET /agents": [app:read]`),
		mapping(`"GET /agents/*": [app:read]`),
		mapping(`"POST /agents/*/runs": [app:run, app:execute]`), mapping(`"GET /sessions": [app:admin]`),
		mapping(`"GET /sessions/*": [app:read, sessions:read]`), mapping(`"GET /memories": [memory:admin]`),
		mapping(`"POST /memories": [memory:write]`), mapping(`"GET /config": [app:admin]`),
		{"custom-scope-mappings", "[app:run, app:execute]", "[app:run]"},
		{"custom-scope-mappings", "[app:run, app:execute]", "[app:run, app:execute, app:more]"},
		{"custom-scope-mappings", "[app:read, sessions:read]", "[app:read]"},
		{"custom-scope-mappings", "admin_scope: app:superadmin", "admin_scope: agent_os:admin"},
		{"custom-scope-mappings", "admin_scope: app:superadmin", "admin_scope: app:read"},
		{"custom-scope-mappings", `"GET /agents/*": [app:read]`, `"GET /agents/research-agent": [agents:read]`},
		{"per-agent-permissions", "auth:", "auth:\n  scope_mappings: {\"POST /agents/*/runs\": [agents:read]}"},
		{"per-agent-permissions", "auth:", "auth:\n  scope_mappings: {\"POST /agents/finance-agent/runs\": [agents:read]}"},
		{"per-agent-permissions", "auth:", "auth:\n  admin_scope: agents:read"},
		{"per-agent-permissions", "auth:",
			"auth:\n  claims: {scopes: permissions, subject: sub}\n  scope_mappings: {\"GET /sessions\": [agents:read]}"},
		{"per-agent-permissions", "auth:", "auth:\n  scope_mappings: {\"GET /config\": [agents:read]}"},
		{"agent-permissions", "auth:", "auth:\n  admin_scope: root:root"},
		{"agent-permissions", "auth:", "auth:\n  scope_mappings: {\"GET /agents\": [agents:run]}"},
		{"advanced-scopes", "auth:", "auth:\n  scope_mappings: {\"GET /agents\": [agents:read]}"},
		{"advanced-scopes", "auth:", "auth:\n  scope_mappings: {\"DELETE /sessions/*\": [sessions:write]}"},
		{"advanced-scopes", "auth:", "auth:\n  admin_scope: system:read"},
		{"basic-rbac-asymmetric", "auth:", "auth:\n  require_exp: false"},
		{"basic-rbac-asymmetric", "auth:", "auth:\n  claims: {subject: name}"},
		{"basic-rbac-asymmetric", "auth:", "auth:\n  scope_mappings: {\"GET /config\": [agents:run]}"},
	} {
		before, err := os.ReadFile(filepath.Join(examples, m[0], "keyway.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		after := strings.Replace(string(before), m[1], m[2], 1)
		if after == string(before) {
			t.Fatalf("%s has no %q", m[0], m[1])
		}
		changed := write(t, "keyway.yaml", after)
		table, err := Read(filepath.Join(examples, m[0], "policies.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := yamlfile.Load(changed, config.Options{Dev: true})
		if err != nil {
			t.Fatal(err)
		}
		results, err := table.Check(c, time.Now)
		if _, refused := errors.AsType[config.Faults](err); refused { // the table has a claim that is no longer read
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(results, func(r Result) bool { return !r.OK }) {
			t.Errorf("%s: no row fails although %q became %q", m[0], m[1], m[2])
		}
	}
}

// checkRow checks one row about one caller against a configuration with these settings of auth.
func checkRow(t *testing.T, auth, caller, row string) Result {
	t.Helper()
	configuration := write(t, "keyway.yaml",
		"id: os\nauth: {"+auth+"}\nagents: [{id: a, model: 'demo:x'}, {id: b, model: 'demo:x'}]\n")
	return check(t, write(t, "policies.yaml", "callers: {ann: "+caller+"}\ntests: ['ann "+row+"']\n"), configuration)[0]
}

func TestConfigurationDecidesAboutClaims(t *testing.T) {
	t.Parallel()
	const secret = "keys: [0123456789abcdef0123456789abcdef0123456789abcdef]"
	for _, row := range []struct{ auth, caller, row string }{
		{"", "[agents:read]", "may GET /agents"},
		{secret, "[agents:read]", "may GET /agents"},
		{"algorithms: [RS256]", "[agents:read]", "may GET /agents"},
		{"verify_audience: true", "[agents:read]", "may GET /agents"},
		{"verify_audience: true", "{aud: null}", "may not GET /agents and gets 401"},
		{"verify_audience: true, audience: [x, y]", "{aud: [y], scopes: [agents:read]}", "may GET /agents"},
		{"verify_audience: true", "{aud: elsewhere, scopes: [agents:read]}", "may not GET /agents and gets 401"},
		{"", "{aud: elsewhere, scopes: [agents:read]}", "may GET /agents"},
		{"issuer: https://i", "[agents:read]", "may GET /agents"},
		{"issuer: https://i", "{iss: https://j, scopes: [agents:read]}", "may not GET /agents and gets 401"},
		{"claims: {scopes: permissions, subject: name}", "{permissions: [agents:read]}", "may GET /agents"},
		{"claims: {scopes: permissions, subject: name}", "[agents:read]", "may GET /agents"},
		{"claims: {scopes: [], roles: groups}, grants: {staff: [agents:read]}", "{roles: [staff]}", "may GET /agents"},
		{"claims: {scopes: [], roles: groups}, grants: {staff: [agents:read]}", "{groups: [agents:read]}",
			"may not GET /agents without agents:read"},
		{"claims: {scopes: [], roles: groups}, grants: {staff: [agents:read]}", "[]",
			"may not GET /agents without agents:read"},
		{"claims: {subject: {claim: '${UNSET}'}}", "[agents:read]", "may GET /agents"},
		{"algorithms: [RS256], issuer: https://z, keys: [{discovery: https://y}]", "[agents:read]", "may GET /agents"},
		{"", "{scopes: 'agents:read'}", "may GET /agents"},
		{"", "{scopes: 'agents:read agents:run'}", "may not GET /agents without agents:read"},
		{"", "{exp: -1h}", "may not GET /agents and gets 401"},
		{"leeway: 10m", "{exp: -5m, scopes: [agents:read]}", "may GET /agents"},
		{"", "{exp: 0}", "may not GET /agents and gets 401"},
		{"", "{exp: null}", "may not GET /agents and gets 401"},
		{"require_exp: false", "{exp: null, scopes: [agents:read]}", "may GET /agents"},
		{"", "{nbf: 1h}", "may not GET /agents and gets 401"},
		{"", "{iat: 1h}", "may not GET /agents and gets 401"},
		{"", "{sub: [x]}", "may not GET /agents and gets 401"},
		{"", "{sub: 7}", "may not GET /agents and gets 401"},
		{"", "{sub: __scheduler__}", "may not GET /agents and gets 401"},
		{"", "{jti: 7}", "may not GET /agents and gets 401"},
		{"", "{session_id: {x: y}}", "may not GET /agents and gets 401"},
		{"", "{sub: null, scopes: [agents:read]}", "may GET /agents"},
		{"", "none", "may not GET /agents and gets 401"},
		{"", "none", "may GET /health"},
		{"", "{exp: -1h}", "may GET /health"}, // a public route needs no token
		{"", "none", "may not GET /nowhere and gets 401"},
		{"", "[agent_os:admin]", "may not GET /nowhere and gets 404"},
		{"", "[agent_os:admin]", "may not PUT /agents and gets 405"},
		{"", "[agents:a:read]", "may GET /agents and sees only a"},
		{"", "['agents:c:read']", "may GET /agents and sees no agent"},
		{"", "[agents:b:read, agents:a:read]", "may GET /agents and sees every agent"},
		{"", "[agents:read]", "may GET /agents and sees only b, a"},
		{"", "[agents:a:read]", "may GET /%61gents/a/"},
	} {
		if r := checkRow(t, row.auth, row.caller, row.row); !r.OK {
			t.Errorf("{%s} %s %s: expected %s, got %s", row.auth, row.caller, row.row, r.Expected, r.Got)
		}
	}
}

// Every part of a row is compared. "may not" alone means 403: a token that is rejected with 401 must not
// keep a promise about scopes.
func TestBrokenPromisesAreReported(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ caller, row, got string }{
		{"[agents:read]", "may not GET /agents", "allowed"},
		{"[]", "may GET /agents", "403 without agents:read"},
		{"[]", "may not GET /agents without agents:run", "403 without agents:read"},
		{"[]", "may not GET /agents/a/runs without agents:a:read", "403 without agents:a:read and agents:a:run"},
		{"none", "may not GET /agents", "401 "},
		{"{exp: -1h}", "may not GET /agents", "401 "},
		{"{exp: -1h}", "may not GET /agents and gets 401 Another text", "401 "},
		{"[]", "may not GET /agents and gets 401", "403 "},
		{"[]", "may not GET /nowhere and gets 405", "404 "},
		{"[agents:a:read]", "may GET /agents and sees every agent", "allowed and sees only a"},
		{"[agents:a:read]", "may GET /agents and sees only b", "allowed and sees only a"},
		{"[agents:read]", "may GET /agents and sees no agent", "allowed and sees every agent"},
		{"[agents:c:read]", "may GET /agents and sees only a", "allowed and sees no agent"},
	} {
		if r := checkRow(t, "", row.caller, row.row); r.OK || !strings.HasPrefix(r.Got, row.got) {
			t.Errorf("%s %s: %t, got %q, want %q", row.caller, row.row, r.OK, r.Got, row.got)
		}
	}
}

// A key that is restricted to one issuer and audience stays restricted when it is replaced.
func TestReplacedKeysKeepTheirIssuerAndAudience(t *testing.T) {
	t.Parallel()
	const auth = "algorithms: [RS256], keys: [{jwks_file: k.json, issuer: https://i, audience: [api]}]"
	for _, row := range []struct{ caller, row string }{
		{"[agents:read]", "may GET /agents"},
		{"{iss: https://j, scopes: [agents:read]}", "may not GET /agents and gets 401"},
		{"{aud: other, scopes: [agents:read]}", "may not GET /agents and gets 401"},
	} {
		if r := checkRow(t, auth, row.caller, row.row); !r.OK {
			t.Errorf("%s %s: got %s", row.caller, row.row, r.Got)
		}
	}
}

// The authorizer's policy is compared as well. One that denies more fails the row, and one that allows
// more is noted.
func TestAuthorizerPolicyIsCheckedToo(t *testing.T) {
	t.Parallel()
	c, err := yamlfile.Parse("keyway.yaml", []byte("id: os\nagents: [{id: a, model: 'demo:x'}]\n"),
		config.Options{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	k, err := newChecker(c, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	statement := func(effect string) events.APIGatewayCustomAuthorizerPolicy {
		return events.APIGatewayCustomAuthorizerPolicy{Statement: []events.IAMPolicyStatement{{Effect: effect,
			Resource: []string{api + "/*"}}}}
	}
	ann := &authz.Principal{Subject: "ann", Scopes: []string{"agents:a:read"}}
	allowed := Test{Method: "GET", Path: "/agents/a", Allow: true}
	if r := k.check(allowed, admission{principal: ann, policy: statement("Deny")}); r.OK ||
		!strings.Contains(r.Got, "denied by the authorizer's policy") {
		t.Errorf("a narrower policy: %+v", r)
	}
	if r := k.check(allowed, admission{principal: ann, policy: statement("Allow")}); !r.OK || r.Note != "" {
		t.Errorf("the same policy: %+v", r)
	}
	denied := Test{Method: "POST", Path: "/agents/a/runs", Status: 403}
	if r := k.check(denied, admission{principal: ann, policy: statement("Allow")}); !r.OK ||
		!strings.Contains(r.Note, "allows this request") {
		t.Errorf("a wider policy: %+v", r)
	}
}

// A caller that is a list of scopes would get a token whose scopes are not read.
func TestAListOfScopesIsAnErrorWhereNoClaimHoldsScopes(t *testing.T) {
	t.Parallel()
	promises, err := Read(write(t, "policies.yaml", "callers: {ann: [agents:read]}\ntests: ['ann may GET /agents']\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := yamlfile.Load(write(t, "keyway.yaml", "id: os\nauth: {claims: {scopes: [], roles: groups}, grants: {}}\n"+
		"agents: [{id: a, model: 'demo:x'}]\n"), config.Options{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	const want = "policies.yaml:1:11: callers.ann: is a list of scopes, but this OS reads no claim with scopes; " +
		"write the roles of the caller, such as {roles: [web-users]}"
	if _, err := promises.Check(c, time.Now); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
