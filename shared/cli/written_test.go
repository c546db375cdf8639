package cli

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// everyText is a configuration with a text in every place where a variable can stand and that a command may print.
const everyText = `
id: planted-os
name: Planted
description: for tests
agents:
  - id: web
    name: Web
    description: searches
    instructions: be brief
    model: {provider: openai, id: gpt-4o, base_url: "https://models.example/v1", headers: {X-A: b}}
    tools: [websearch, {mcp: {url: "https://tools.example/mcp", headers: {X-B: c}, allow: [find], timeout: 20s}}]
  - {id: other, model: "openai:gpt-4o"}
auth:
  algorithms: [HS256]
  keys:
    - secret: arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf
      issuer: [https://issuer.example, https://second.example]
      audience: [planted-os]
      clients: [console]
      prefix: "kw:"
      claims: {scopes: [scope.a, {path: [realm, b.c]}], roles: groups, subject: email, session: sid}
      grants: {editors: ["agents:web:read", "app:run"]}
    - {jwks_file: nowhere.json}
    - {jwks_url: "https://keys.example/jwks", issuer: https://third.example, ca: ca.pem}
    - {discovery: "https://fourth.example"}
    - PLANTED-KEY-of-at-least-32-characters
  audience: [planted-os, second]
  home_issuer: https://issuer.example
  admin_scope: app:admin
  leeway: 10s
  scope_mappings: {"GET /sessions": ["app:run"], "POST /agents/*/runs": ["app:run", "app:more"]}
cors: {origins: ["https://console.example"]}
egress: {allow: [10.0.0.0/8]}
database: {url: "postgres://user:word@db.example/keyway", schema: keyway}
`

// rules is a configuration whose decisions print everything that they can.
const rules = `
id: os
agents: [{id: web, model: "demo:echo"}]
auth:
  keys: [a-key-of-at-least-32-characters-for-tests]
  admin_scope: app:admin
  claims: {scopes: scopes, roles: groups}
  grants: {editors: ["agents:web:read", "app:run"]}
  scope_mappings: {"GET /sessions": ["app:run"], "POST /agents/*/runs": ["app:run", "app:more"]}
`

// A person who proposes a keyway.yaml, and reads what CI prints about it, can't read CI's environment.
func TestNoCommandPrintsTheValueOfAVariable(t *testing.T) {
	t.Parallel()
	// These commands read everything; the others decide by the rules, or refuse the file with the same errors.
	checks := [][]string{{"config", "check"}, {"config", "check", "--json"}}
	deciding := [][]string{
		{"config", "check"},
		{"can", "--scopes", "agents:x:read", "GET", "/sessions"}, {"can", "--json", "--scopes", "a:b", "GET", "/sessions"},
		{"can", "--token", "@token", "GET", "/agents"}, {"can", "--token", "@token", "POST", "/agents/web/runs"},
		{"can", "--json", "--token", "@token", "GET", "/agents"},
		{"whoami", "--token", "@token"}, {"whoami", "--json", "--token", "@token"},
		{"policy", "--token", "@token"},
		{"diff", "keyway.yaml", "--log", "log.jsonl"}, {"diff", "keyway.yaml", "--json", "--log", "log.jsonl"},
		{"test", "policies.yaml"}, {"test", "--json", "policies.yaml"},
		{"build", "."},
	}
	for _, tt := range []struct {
		name, file string
		commands   [][]string
	}{{"every text", everyText, checks}, {"rules", rules, deciding}} {
		for i, value := range []string{"ghs_Planted.41", strings.Repeat("https://Planted-41.", 9)} {
			t.Run(fmt.Sprint(tt.name, i), func(t *testing.T) {
				t.Parallel()
				for _, text := range []string{"${PLANTED}", "agents:${PLANTED}:read"} {
					n := 0
					for file, ok := plant(t, tt.file, n, text); ok; file, ok = plant(t, tt.file, n, text) {
						printsNothing(t, file, value, tt.commands)
						n++
					}
					if n < 9 {
						t.Errorf("the file has only %d texts", n)
					}
				}
			})
		}
	}
}

// plant replaces the nth text of a file.
func plant(t *testing.T, file string, n int, text string) (string, bool) {
	t.Helper()
	var root any
	if err := yaml.UnmarshalWithOptions([]byte(file), &root, yaml.UseOrderedMap()); err != nil {
		t.Fatal(err)
	}
	var visit func(v any) any
	visit = func(v any) any {
		switch v := v.(type) {
		case string:
			if n--; n == -1 {
				return text
			}
		case []any:
			for i := range v {
				v[i] = visit(v[i])
			}
		case yaml.MapSlice:
			for i := range v {
				v[i].Value = visit(v[i].Value)
			}
		}
		return v
	}
	out, err := yaml.Marshal(visit(root))
	if err != nil {
		t.Fatal(err)
	}
	return string(out), n < 0
}

// printsNothing runs commands on a file, and looks for the variable's value in what they print.
func printsNothing(t *testing.T, file, value string, commands [][]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"keyway.yaml": file,
		"log.jsonl": `{"msg":"decision","allow":true,"route":"GET /sessions","scopes":["sessions:read"]}
{"msg":"decision","allow":true,"route":"GET /agents","scopes":["agents:read"],"origins":["groups=editors"]}
{"msg":"decision","allow":false,"status":403,"route":"GET /sessions","scopes":["app:run"],"missing":["sessions:read"]}
`,
		"policies.yaml": `callers: {ann: [agents:read], ed: {groups: [editors]}}
tests:
  - ann may GET /sessions
  - ed may not GET /agents
  - ed may GET /agents and sees every agent
  - ed may not POST /agents/web/runs and gets 403 nothing
`,
		"token": hmacToken("a-key-of-at-least-32-characters-for-tests",
			`{"sub":"ann","groups":["editors"],"scopes":["agents:run"],"exp":4102444800,"aud":"os"}`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range commands {
		args = append([]string{"--config", "keyway.yaml"}, args...)
		if args[2] == "test" { // its table names the file
			args = args[2:]
		}
		for i, arg := range args {
			at, name := "", strings.TrimPrefix(arg, "@")
			if name != arg {
				at = "@"
			}
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				args[i] = at + filepath.Join(dir, name)
			}
		}
		var out bytes.Buffer
		e := testEnv(map[string]string{"PLANTED": value})
		e.out, e.err = &out, &out
		execute(t.Context(), args, e)
		// A part of a long value is as bad as all of it.
		if secret := strings.ToLower(value[:min(len(value), 26)]); strings.Contains(strings.ToLower(out.String()), secret) {
			t.Fatalf("keyway %s prints the variable:\n%s\nof the file\n%s", strings.Join(args, " "), &out, file)
		}
	}
}

// hmacToken signs claims with HS256.
func hmacToken(key, claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}
