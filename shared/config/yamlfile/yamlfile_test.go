package yamlfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

// fields compares two configurations by the fields that others can read.
var fields = cmpopts.IgnoreUnexported(config.Config{})

func load(t *testing.T, name string) *config.Config {
	t.Helper()
	c, err := yamlfile.Load(filepath.Join("testdata", name), config.Options{Lookup: environment})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := yamlfile.Parse("keyway.yaml", []byte(text), config.Options{Lookup: environment})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func agent(id, name, model string) config.Agent {
	provider, id2, _ := strings.Cut(model, ":")
	return config.Agent{
		ID: id, Name: name, Model: config.Model{Provider: provider, ID: id2},
		Markdown: true, NumHistoryRuns: 3, Timeout: 10 * time.Minute,
	}
}

func auth(key config.Key) config.Auth {
	return config.Auth{
		Algorithms: []string{"HS256"}, Keys: []config.Key{key}, Audience: []string{"my-agent-os"}, RequireExp: true,
		Leeway: 10 * time.Second, Claims: config.Claims{
			Scopes: config.Sources{{Claim: "scopes"}}, Subject: config.ClaimSource{Claim: "sub"},
			Session: config.ClaimSource{Claim: "session_id"},
		},
		AdminScope: "agent_os:admin", UserIsolation: true,
	}
}

var fromVariable = config.Key{Literal: config.Secret(strings.Repeat("k", 32)), FromVariable: true}

// The files of testdata are five programs of the Agno documents, written as keyway.yaml.
func TestAgnoExamplesLoad(t *testing.T) {
	t.Parallel()
	mcp := agent("agno-agent", "Agno Agent", "openai:gpt-4.1")
	mcp.AddHistoryToContext, mcp.Tools = true, []config.Tool{{
		MCP: &config.MCP{URL: "https://docs.agno.com/mcp", Timeout: time.Minute},
	}}
	searching := func(a config.Agent, tool string, history bool) config.Agent {
		a.Tools, a.AddHistoryToContext = []config.Tool{{Name: tool}}, history
		return a
	}
	analyst := agent("analyst-agent", "Data Analyst Agent", "openai:gpt-4o")
	analyst.Model.Temperature = new(0.2)
	asymmetric := auth(config.Key{JWKSFile: filepath.Join("testdata", "keys.json")})
	asymmetric.Algorithms = []string{"RS256"}
	mapped := auth(fromVariable)
	mapped.AdminScope = "app:superadmin"
	mapped.ScopeMappings = []config.ScopeMapping{
		{Method: "GET", Pattern: "/agents", Scopes: []string{"app:read"}},
		{Method: "GET", Pattern: "/agents/*", Scopes: []string{"app:read"}},
		{Method: "POST", Pattern: "/agents/*/runs", Scopes: []string{"app:run", "app:execute"}},
		{Method: "GET", Pattern: "/sessions", Scopes: []string{"app:admin"}},
		{Method: "GET", Pattern: "/sessions/*", Scopes: []string{"app:read", "sessions:read"}},
		{Method: "GET", Pattern: "/memories", Scopes: []string{"memory:admin"}},
		{Method: "POST", Pattern: "/memories", Scopes: []string{"memory:write"}},
		{Method: "GET", Pattern: "/config", Scopes: []string{"app:admin"}},
	}
	local := config.Database{URL: "postgresql://ai:ai@localhost:5532/ai", Schema: "keyway"}
	hidden := config.Database{URL: "postgresql://u:hunter2@db/x", Schema: "keyway"}
	for name, want := range map[string]config.Config{
		"per-agent-permissions.yaml": {
			Description: "Per-Agent Permissions AgentOS", Database: local,
			Auth: auth(config.Key{Literal: config.PublishedSecret}),
			Agents: []config.Agent{
				searching(agent("web-search-agent", "Web Search Agent", "openai-responses:gpt-5.2"), "hackernews", false),
				agent("finance-agent", "Finance Agent", "openai-responses:gpt-5.2"),
			},
		},
		"agent-permissions.yaml": {
			Description: "RBAC Protected AgentOS", Database: local, Auth: auth(fromVariable),
			Agents: []config.Agent{searching(agent("web-search-agent", "Web Search Agent", "openai:gpt-4o"), "websearch", true),
				mcp},
		},
		"advanced-scopes.yaml": {
			Name: "Production AgentOS", Database: hidden, Auth: auth(fromVariable),
			Agents: []config.Agent{
				searching(agent("web-search-agent", "Web Search Agent", "openai:gpt-4o"), "websearch", false),
				analyst,
				searching(agent("admin-agent", "Admin Agent", "openai:gpt-4o"), "websearch", false),
			},
		},
		"basic-rbac-asymmetric.yaml": {
			Description: "RBAC Protected AgentOS", Database: local, Auth: asymmetric,
			Agents: []config.Agent{searching(agent("research-agent", "Research Agent", "openai:gpt-4o"), "websearch", true)},
		},
		"custom-scope-mappings.yaml": {
			Description: "Custom Scope Mappings AgentOS", Database: hidden, Auth: mapped, // the address comes from $DATABASE_URL
			Agents: []config.Agent{searching(agent("research-agent", "Research Agent", "openai:gpt-4o"), "websearch", false)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := *load(t, name)
			want.ID, want.Digest, want.Unset, want.Warnings = "my-agent-os", got.Digest, got.Unset, got.Warnings
			want.KeyPaths, want.Bounds = got.KeyPaths, got.Bounds
			open := config.Door{Enabled: new(true)}
			want.Doors = config.Doors{MCP: config.MCPDoor{Enabled: open.Enabled}, OpenAI: open, AGUI: open}
			if name == "basic-rbac-asymmetric.yaml" { // its first key is a PEM key, of which only the first line is compared
				if pem := got.Auth.Keys[0]; !strings.HasPrefix(string(pem.Literal), "-----BEGIN PUBLIC KEY-----\n") ||
					len(got.Warnings) != 2 || !strings.Contains(got.Warnings[1].Text, "for other services") {
					t.Errorf("key %q, warnings %v", string(pem.Literal), got.Warnings)
				}
				got.Auth.Keys = got.Auth.Keys[1:]
			}
			if diff := cmp.Diff(want, got, fields); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestMissingModelKeyIsInUnset(t *testing.T) {
	t.Parallel()
	got := load(t, "advanced-scopes.yaml").Unset
	if diff := cmp.Diff(map[string]string{"agents[1].model.api_key": "ANALYST_KEY"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPublishedSecretCausesAWarning(t *testing.T) {
	t.Parallel()
	got := config.Faults(load(t, "per-agent-permissions.yaml").Warnings).Error()
	want := filepath.Join("testdata", "per-agent-permissions.yaml") +
		":6:10: auth.keys[0]: is the secret printed in the Agno documents, " +
		"so anyone can sign tokens with it; make one with: openssl rand -hex 32"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

const asYAML = `
# comments, order and notation do not matter
auth:
  scope_mappings:
    "POST /agents/*/runs": [app:run]
    GET /agents: [app:read]
  keys: [${JWT_VERIFICATION_KEY}]
  leeway: 5s
id: my-os
agents:
  - {id: a, model: demo:x, num_history_runs: 0x10, markdown: true}
  - id: b
    model: {provider: openai, id: gpt-4o, temperature: 1.50, api_key: ${A}}
    instructions: |
      Say "hello".
      Cost: $${5}
`

const asJSON = "\uFEFF" + `{
	"id": "my-os",
	"agents": [
		{"id": "a", "model": "demo:x", "num_history_runs": 16, "markdown": true},
		{"id": "b", "model": {"provider": "openai", "id": "gpt-4o", "temperature": 1.5, "api_key": "${A}"},
		 "instructions": "Say \"hello\".\nCost: $${5}\n"}
	],
	"auth": {
		"keys": ["${JWT_VERIFICATION_KEY}"],
		"leeway": "5s",
		"scope_mappings": {"POST \/agents\/*\/runs": ["app:run"], "GET /agents": ["app:read"]}
	}
}`

func TestJSONAndYAMLGiveTheSameConfig(t *testing.T) {
	t.Parallel()
	y, j := parse(t, asYAML), parse(t, asJSON)
	if diff := cmp.Diff(y, j, fields); diff != "" {
		t.Errorf("(-YAML +JSON)\n%s", diff)
	}
	if got := y.Agents[1].Instructions; got != "Say \"hello\".\nCost: ${5}\n" {
		t.Errorf("instructions %q", got)
	}
	if got := y.Auth.ScopeMappings[0].Pattern; got != "/agents/*/runs" {
		t.Errorf("the first mapping is %s: the file's order is lost", got)
	}
	canonical, err := yamlfile.Canonical("keyway.yaml", []byte(asYAML))
	if err != nil {
		t.Fatal(err)
	}
	if config.Digest(canonical) != y.Digest || !strings.Contains(string(canonical), `"${JWT_VERIFICATION_KEY}"`) {
		t.Errorf("canonical form %s of digest %s, not %s", canonical, config.Digest(canonical), y.Digest)
	}
	c, faults := config.Parse(canonical, config.Options{Lookup: environment})
	if diff := cmp.Diff(y, c, fields); diff != "" || faults != nil {
		t.Errorf("the canonical form is a different file: %v (-file +canonical)\n%s", faults, diff)
	}
}

func TestPlainScalarsFollowYAML(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ text, want string }{
		{`m: {GET /agents: [app:read, agents:*:run], "POST /x": ["a:b"]}`,
			`{"m":{"GET /agents":["app:read","agents:*:run"],"POST /x":["a:b"]}}`},
		{`c: {origins: [http://localhost:3000, localhost:80]}`,
			`{"c":{"origins":["http://localhost:3000","localhost:80"]}}`},
		{`e: {allow: [::1, fe80::/10, 127.0.0.1]}`, `{"e":{"allow":["::1","fe80::/10","127.0.0.1"]}}`},
		{`d: {url: postgres://${USER}:${PASS}@h/d, s: x}`,
			`{"d":{"s":"x","url":"postgres://${USER}:${PASS}@h/d"}}`},
		{"k: [${A}, \"${B}\", '$${C}'] # ${D}: e:f", `{"k":["${A}","${B}","$${C}"]}`},
		{"t: |\n  a:b ${C}\n  \"d\":e\n", `{"t":"a:b ${C}\n\"d\":e\n"}`},
		{"n: [1e3, -0, -0.0, 1.50, 0x1F, 12345678901234567890123, '1e3']",
			`{"n":[1000,0,0,1.5,31,12345678901234567890123,"1e3"]}`},
		{`{"a":1,"b" :{"c":"d:e"},'f':g:h}`, `{"a":1,"b":{"c":"d:e"},"f":"g:h"}`},
	} {
		got, err := yamlfile.Canonical("keyway.yaml", []byte(row.text))
		if err != nil || string(got) != row.want {
			t.Errorf("%s\ngot  %s, %v\nwant %s", row.text, got, err, row.want)
		}
	}
}

func TestOrderOfScopeMappingsChangesTheDigest(t *testing.T) {
	t.Parallel()
	const first, second = `    "POST /agents/*/runs": [app:run]`, `    GET /agents: [app:read]`
	swapped := strings.Replace(asYAML, first+"\n"+second, second+"\n"+first, 1)
	if parse(t, asYAML).Digest == parse(t, swapped).Digest {
		t.Error("two orders have the same digest")
	}
}

func TestExplicitFieldsPrecedeMergedOnes(t *testing.T) {
	t.Parallel()
	c := parse(t, `
id: os
auth: {keys: [${JWT_VERIFICATION_KEY}]}
agents:
  - &one {id: one, model: demo:x, markdown: true, timeout: &t 5m}
  - &two {id: two, model: demo:y, limits: {concurrent_runs: 2}}
  - {<<: [*one, *two], id: three, timeout: 1m}
  - {id: four, <<: *two, timeout: *t}
`)
	three, four := c.Agents[2], c.Agents[3]
	if three.ID != "three" || three.Model.ID != "x" || !three.Markdown || three.Timeout != time.Minute ||
		three.Limits.ConcurrentRuns != 2 {
		t.Errorf("three is %+v", three)
	}
	if four.ID != "four" || four.Model.ID != "y" || four.Timeout != 5*time.Minute {
		t.Errorf("four is %+v", four)
	}
}

func TestRelativeKeyFilesStartAtTheDirectoryOfTheFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keyway.yaml")
	text := "id: os\nauth: {algorithms: [ES256], keys: [{jwks_file: /etc/keys.json}, {jwks_file: " +
		"sub/k.json}]}\nagents: [{id: a, model: demo:x}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := yamlfile.Load(file, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := c.Auth.Keys[0].JWKSFile, c.Auth.Keys[1].JWKSFile; a != "/etc/keys.json" ||
		b != filepath.Join(filepath.Dir(file), "sub/k.json") {
		t.Errorf("%s and %s", a, b)
	}
}

func TestMissingFileErrorNamesTheFlag(t *testing.T) {
	t.Parallel()
	_, err := yamlfile.Load("nowhere/keyway.yaml", config.Options{})
	if !errors.Is(err, os.ErrNotExist) ||
		!strings.Contains(err.Error(), "nowhere/keyway.yaml does not exist; name the file with --config") {
		t.Error(err)
	}
}
