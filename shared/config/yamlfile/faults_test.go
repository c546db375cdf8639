package yamlfile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

const good = `id: os
auth:
  keys: [${K}]
agents:
- id: a
  model: demo:x
`

// secrets are the variables. Their values must not appear in any message.
var secrets = map[string]string{
	"K":       "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
	"SHORT":   "hunter2-short",
	"EMPTY":   "",
	"PRIVATE": "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
	"PUBLIC":  "-----BEGIN PUBLIC KEY-----\naHVudGVy\n-----END PUBLIC KEY-----\n",
	"DAMAGED": "-----BEGIN PUBLIC KEY-----\naHVudGVy\n",
}

func faultsOf(text string, o config.Options) string {
	o.Lookup = func(name string) (string, bool) { v, ok := secrets[name]; return v, ok }
	o.MatchesRoute = func(method, pattern string) bool { return method+pattern != "GET/nowhere" }
	_, err := yamlfile.Parse("keyway.yaml", []byte(text), o)
	return strings.ReplaceAll(fmt.Sprint(err), "keyway.yaml:", "")
}

// Each row changes one line of the valid file, and lists all errors that this causes.
func TestEachErrorHasItsPositionAndRemedy(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ line, becomes, faults string }{
		// Fields and types.
		{"id: os", "# none", `2:1: id: is missing; add id: my-agent-os`},
		{"id: os", "id:", `1:1: id: is empty; give it a value`},
		{"id: os", "id: ''", `1:1: id: is empty; give it a value`},
		{"id: os", "id: 12", `1:1: id: is a number; write text, in quotes where needed`},
		{"id: os", "id: " + strings.Repeat("é", 128), `1:1: id: has 256 bytes; use at most 255`},
		{"id: os", `id: "a\0b"`, `1:1: id: has a NUL character; remove it`},
		{"id: os", "id: os\nid: two", `2:1: id: is written twice, first on line 1; keep one of them`},
		{"id: os", "id: os\nverion: 1",
			`2:1: verion: unknown field; use id, name, description, auth, cors, doors, public_url, database, retention, ` +
				`notify, egress, limits, prices, bounds or agents`},
		{"id: os", "id: os\nnmae: x", `2:1: nmae: unknown field; did you mean name?`},
		{"  model: demo:x", "  modle: demo:x", `6:3: agents[0].modle: unknown field; did you mean model?`},
		{"  model: demo:x", "  model: demo:x\n  markdown: yes", `7:3: agents[0].markdown: is "yes"; write true or false`},
		{"  model: demo:x", "  model: demo:x\n  num_history_runs: 0",
			`7:3: agents[0].num_history_runs: is 0; use at least 1`},
		{"  model: demo:x", "  model: demo:x\n  tool_call_limit: 1.5",
			`7:3: agents[0].tool_call_limit: is 1.5; write a whole number`},
		{"  model: demo:x", "  model: demo:x\n  limits: {tokens_per_run: 9999999999999}",
			`7:12: agents[0].limits.tokens_per_run: is 9999999999999; use at most 1000000000000`},
		{"  model: demo:x", "  model: demo:x\n  timeout: 10",
			`7:3: agents[0].timeout: is a number; write a duration with its unit, such as 10s or 5m`},
		{"  model: demo:x", "  model: demo:x\n  timeout: -5s",
			`7:3: agents[0].timeout: is "-5s"; write a duration with its unit, such as 10s or 5m`},
		{"  model: demo:x", "  model: demo:x\n  timeout: 0s", `7:3: agents[0].timeout: is "0s"; use at least 1ms`},
		{"  model: demo:x", "  model: demo:x\n  timeout: 25h", `7:3: agents[0].timeout: is "25h"; use at most 24h`},
		{good, "", "1:1: id: is missing; add id: my-agent-os\n" +
			"1:1: agents: is missing; add agents: [{id: assistant, model: openai:gpt-4o}]\n" +
			`1:1: auth.keys: is missing; add keys: ["${JWT_VERIFICATION_KEY}"], and set that variable; or use --dev`},
		{good, "- a", `1:1: is a list; write its fields: id, name, description, auth, cors, doors, public_url, database, ` +
			`retention, notify, egress, limits, prices, bounds, agents`},

		// Variables.
		{"id: os", "id: ${UNSET}", `1:1: id: ${UNSET} is unset or empty; set UNSET, or write $${ for a literal ${`},
		{"id: os", "id: ${EMPTY}", `1:1: id: ${EMPTY} is unset or empty; set EMPTY, or write $${ for a literal ${`},
		{"id: os", `id: "${a-b}"`,
			`1:1: id: has a ${ that does not begin a variable such as ${NAME}; write $${ for a literal ${`},

		// Keys.
		{"auth:\n  keys: [${K}]", "name: x",
			`1:1: auth.keys: is missing; add keys: ["${JWT_VERIFICATION_KEY}"], and set that variable; or use --dev`},
		{"[${K}]", "[]", `3:3: auth.keys: is missing; add keys: ["${JWT_VERIFICATION_KEY}"], and set that variable; or ` +
			`use --dev`},
		{"[${K}]", "hunter2-in-the-wrong-place", `3:3: auth.keys: is text; write a list`},
		{"[${K}]", "[${UNSET}]", `3:10: auth.keys[0]: ${UNSET} is unset or empty; set UNSET, or write $${ for a literal ${`},
		{"[${K}]", "['']", `3:10: auth.keys[0]: is empty; write ${JWT_VERIFICATION_KEY}, and set that variable`},
		{"[${K}]", "[${SHORT}]", `3:10: auth.keys[0]: is an HMAC secret of fewer than 32 bytes, which can be guessed; ` +
			`make one with: openssl rand -hex 32`},
		{"[${K}]", "[${PRIVATE}]",
			`3:10: auth.keys[0]: is a private key; give the public key, which this command prints: openssl pkey -in ` +
				`private.pem -pubout`},
		{"[${K}]", "[${DAMAGED}]",
			`3:10: auth.keys[0]: is an incomplete PEM key; give all of it, from -----BEGIN to END-----, with its line breaks`},
		{"[${K}]", "[${PUBLIC}]",
			`3:10: auth.keys[0]: is a public key, but auth.algorithms has HS256; set auth.algorithms to the algorithm of the ` +
				`key, such as [RS256]`},
		{"[${K}]", "[jwks_file: k.json]",
			`3:10: auth.keys[0]: is a set of public keys, but auth.algorithms has HS256; set auth.algorithms to the ` +
				`algorithm of the keys, such as [RS256]`},
		{"[${K}]", "[${K}]\n  algorithms: [EdDSA]",
			`3:10: auth.keys[0]: is not a PEM public key, which EdDSA needs; give the text that begins with -----BEGIN ` +
				`PUBLIC KEY-----, or set auth.algorithms to [HS256]`},
		{"[${K}]", "[{}]",
			`3:10: auth.keys[0]: needs exactly one source of keys; set one of key, jwks_file, jwks_url, discovery and secret`},
		{"[${K}]", "[{secret: hunter2}]",
			`3:11: auth.keys[0].secret: is not in the required form; it must match ` +
				`^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+$`},
		{"[${K}]", "\n  - jwks_url: https://a/k\n    jwks_file: k.json\n  algorithms: [RS256]",
			`4:5: auth.keys[0]: needs exactly one source of keys; set one of key, jwks_file, jwks_url, discovery and secret`},
		{"[${K}]", "\n  - jwks_url: http://localhost/k\n  algorithms: [RS256]",
			`4:5: auth.keys[0].jwks_url: is not https, so anyone on the network path could replace the keys; use https; ` +
				`inside a compose network or a cluster, add http: true to this key; with --dev, http on a loopback ` +
				`address is accepted too`},
		{"[${K}]", "\n  - {jwks_url: https://a/k, issuer: https://a}\n  - jwks_url: https://b/k\n  algorithms: [RS256]",
			`5:5: auth.keys[1]: has no issuer, which every jwks_url needs when there are several; add issuer: ` +
				`https://…, the iss claim of its tokens`},

		// The rest of auth.
		{"[${K}]", "[${K}]\n  algorithms: [HS25]", `4:16: auth.algorithms[0]: is "HS25"; did you mean HS256?`},
		{"[${K}]", "[${K}]\n  algorithms: [none]",
			`4:16: auth.algorithms[0]: is "none"; use HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ` +
				`ES384, ES512, EdDSA or Ed25519`},
		{"[${K}]", "[${K}]\n  algorithms: [HS256, RS256]",
			`4:3: auth.algorithms: mixes HMAC and public-key algorithms, so a public key could be used as an HMAC secret; ` +
				`keep one kind`},
		{"[${K}]", "[${K}]\n  verification_keys: [x]", `4:3: auth.verification_keys: unknown field; did you mean keys?`},
		{"[${K}]", "[${K}]\n  audience: []", `4:3: auth.audience: is an empty list; add an element`},
		{"[${K}]", "[${K}]\n  leeway: 1h", `4:3: auth.leeway: is "1h"; use at most 10m`},
		{"[${K}]", "[${K}]\n  admin_scope: a b", `4:3: auth.admin_scope: is "a b"; it must match ^\S+$`},
		{"[${K}]", "[${K}]\n  scope_mappings: {get /agents: [a]}",
			`4:20: auth.scope_mappings["get /agents"]: is not a method and a path; write it as "GET /agents/*": GET, POST, ` +
				`PUT, PATCH or DELETE, one space, and a path in which * is the only special character`},
		{"[${K}]", "[${K}]\n  scope_mappings: {'GET /agents/{id}': [a]}",
			`4:20: auth.scope_mappings["GET /agents/{id}"]: is not a method and a path; write it as "GET /agents/*": GET, ` +
				`POST, PUT, PATCH or DELETE, one space, and a path in which * is the only special character`},
		{"[${K}]", "[${K}]\n  scope_mappings: {GET /agents: [app:read, /web-users, WebSearch.User]}",
			`4:44: auth.scope_mappings["GET /agents"][1]: is "/web-users", which is not a scope; ` + asGrant + "\n" +
				`4:56: auth.scope_mappings["GET /agents"][2]: is "WebSearch.User", which is not a scope; ` + asGrant},
		{"[${K}]", "[${K}]\n  scope_mappings: {GET /nowhere: [a]}",
			`4:20: auth.scope_mappings["GET /nowhere"]: matches no route; compare with the output of keyway routes`},
		{"[${K}]", "[${K}]\n  scope_mappings: {GET /authz/can: [a]}",
			`4:20: auth.scope_mappings["GET /authz/can"]: is an operator route; remove it, since only admin_scope opens ` +
				`operator routes`},
		{"[${K}]", "[${K}]\n  scope_mappings: {GET /agents: []}",
			`4:20: auth.scope_mappings["GET /agents"]: lists no scope, which would open the route to every token; list a scope`},
		{"[${K}]", "[${K}]\n  scope_mappings: {GET /agents: ['']}",
			`4:34: auth.scope_mappings["GET /agents"][0]: is ""; write one scope in each element, without spaces`},
		{"[${K}]", "[${K}]\n  scope_mappings: {GET /agents: a}",
			`4:20: auth.scope_mappings["GET /agents"]: is text; write a list of scopes`},

		// CORS, database and egress.
		{"id: os", "id: os\ncors: {origins: ['*']}",
			`2:18: cors.origins[0]: is a wildcard; list each origin, as scheme://host[:port]`},
		{"id: os", "id: os\ncors: {origins: [localhost:3000]}",
			`2:18: cors.origins[0]: is not an origin; write scheme://host[:port]`},
		{"id: os", "id: os\ncors: {origins: ['https://App.example.com/']}",
			`2:18: cors.origins[0]: is not in the form that browsers send; write https://app.example.com`},
		{"id: os", "id: os\ncors: {origins: ['https://a.example:443']}",
			`2:18: cors.origins[0]: names the default port, which browsers leave out; write https://a.example`},
		{"id: os", "id: os\ndatabase: {url: 'mysql://u:hunter2@h/d'}",
			`2:12: database.url: is not a PostgreSQL address; write postgresql://user:password@host:5432/database`},
		{"id: os", "id: os\ndatabase: {url: 'postgres://u:hunter2%zz@h/d'}",
			`2:12: database.url: is not a valid address; percent-encode the special characters of user and password`},
		{"id: os", "id: os\ndatabase: {schema: Keyway}",
			`2:12: database.schema: is "Keyway"; it must match ^[a-z_][a-z0-9_]{0,62}$`},
		{"id: os", "id: os\ndatabase: {schema: pg_x}",
			`2:12: database.schema: begins with pg_, which PostgreSQL reserves; use another name`},
		{"id: os", "id: os\negress: {allow: [10.1.2.3/8]}", `2:18: egress.allow[0]: is "10.1.2.3/8"; write 10.0.0.0/8`},
		{"id: os", "id: os\negress: {allow: [db.internal]}",
			`2:18: egress.allow[0]: is "db.internal"; write an address or a network, such as 10.1.2.3 or 10.0.0.0/8`},
		{"id: os", "id: os\negress: {allow: ['::ffff:10.0.0.1']}",
			`2:18: egress.allow[0]: is "::ffff:10.0.0.1"; write the IPv4 form`},

		// Agents.
		{"agents:\n- id: a\n  model: demo:x", "agents: []", `4:1: agents: is an empty list; add an element`},
		{"- id: a", "- id: a/b", `5:3: agents[0].id: is "a/b"; it must match ^[A-Za-z0-9._-]{1,64}$`},
		{"- id: a", "- id: ..", `5:3: agents[0].id: is "..", which HTTP clients remove from a path; use another name`},
		{"  model: demo:x", "  model: demo:x\n- {id: a, model: demo:y}",
			`7:4: agents[1].id: is "a", which agents[0] already has; give each agent its own id`},
		{"  model: demo:x", "  model: gpt-4o", `6:3: agents[0].model: is "gpt-4o"; write provider:id, such as openai:gpt-4o`},
		{"  model: demo:x", "  model: opnai:gpt-4o", `6:3: agents[0].model.provider: is "opnai"; did you mean openai?`},
		{"  model: demo:x", "  model: {provider: google, id: g}",
			`6:11: agents[0].model.provider: is "google"; use openai, openai-responses, anthropic, bedrock or demo`},
		{"  model: demo:x", "  model: {provider: openai, id: g, temperature: 2.5}",
			`6:36: agents[0].model.temperature: is 2.5; use at most 2`},
		{"  model: demo:x", "  model: {provider: openai, id: g, base_url: localhost}",
			`6:36: agents[0].model.base_url: is not an http or https address; write https://host/path`},
		{"  model: demo:x", "  model: demo:x\n  tools: [duckduckgo]",
			`7:11: agents[0].tools[0]: is not a built-in tool: "duckduckgo"; use hackernews or websearch`},
		{"  model: demo:x", "  model: demo:x\n  tools: [websearch, websearch]",
			`7:22: agents[0].tools[1]: is listed twice: "websearch"; keep one of them`},
		{"  model: demo:x", "  model: demo:x\n  tools: [5]",
			`7:11: agents[0].tools[0]: is a number; write text, or its fields: mcp`},
		{"  model: demo:x", "  model: demo:x\n  tools: [{mcp: {}}]",
			`7:12: agents[0].tools[0].mcp.url: is missing; add url: https://docs.agno.com/mcp`},
		{"  model: demo:x", "  model: demo:x\n  tools: [{mcp: {url: 'https://u:hunter2@h', allow: []}}]",
			"7:18: agents[0].tools[0].mcp.url: contains credentials; move them to headers or api_key\n" +
				`7:46: agents[0].tools[0].mcp.allow: is an empty list; add an element`},
		{"  model: demo:x", "  model: demo:x\n  tools: [{mcp: {url: https://h, headers: {a b: hunter2, c: " +
			"\"hunter2\\n\"}}}]", `7:44: agents[0].tools[0].mcp.headers["a b"]: is not a header name; use letters, digits ` +
			`and hyphens` + "\n" +
			`7:58: agents[0].tools[0].mcp.headers.c: is empty or has a control character; write it on one line, without a ` +
			`line break at its end`},
		{"  model: demo:x", "  model: {provider: openai, id: x, headers: {a b: hunter2, X-A: \"hunter2\\r\\nX-B: c\", " +
			"x-a: hunter2, Host: hunter2, content-type: hunter2}}",
			`6:46: agents[0].model.headers["a b"]: is not a header name; use letters, digits and hyphens` + "\n" +
				`6:60: agents[0].model.headers.X-A: is empty or has a control character; write it on one line, without a ` +
				`line break at its end` + "\n" +
				`6:86: agents[0].model.headers.x-a: is the same header as X-A; keep one of them` + "\n" +
				`6:100: agents[0].model.headers.Host: is a header that Keyway sets itself; leave it out` + "\n" +
				`6:115: agents[0].model.headers.content-type: is a header that Keyway sets itself; leave it out`},
		{"  model: demo:x", "  model: {provider: openai, id: x, headers: {X-A: " + strings.Repeat("h", 8190) + "}}",
			`6:46: agents[0].model.headers.X-A: is too long; use at most 8192 bytes, the name included`},
		{"  model: demo:x", "  model: {provider: openai, id: x, headers: {" + manyHeaders(33) + "}}",
			`6:36: agents[0].model.headers: has 33 headers; write at most 32`},

		// Notation.
		{"  model: demo:x", "  model: demo:x\n\tname: a",
			`7:1: is indented with a tab, which YAML does not allow; indent with spaces`},
		{"  model: demo:x", "  model: demo:x\n---\nid: b",
			`8:1: begins a second document; keep one in a file: delete the --- line and what follows`},
		{"  model: demo:x", "  model: !!str demo:x", `6:10: agents[0].model: has the tag !!str; remove it`},
		{"  model: demo:x", "  model: *m",
			`6:10: agents[0].model: has the alias *m, but no &m comes before it; define it first`},
		{"- id: a", "- &self\n  <<: *self\n  id: a",
			`6:7: agents[0]: has the alias *self, but no &self comes before it; define it first`},
		{"  model: demo:x", "  model: demo:x\n  <<: 3",
			`7:7: agents[0]: merges a value that is not a mapping; write <<: *anchor, where &anchor marks a mapping`},
		{"  model: demo:x", "  model: demo:x\n  timeout: .inf", `7:12: agents[0].timeout: is not a finite number; write one`},
		{"  model: demo:x", "  model: [demo", `6:10: is not YAML: sequence end token ']' not found`},
		{"  model: demo:x", "  model: é\xff", `6:11: is not UTF-8; save the file as UTF-8`},
		{"id: os", "id: x\uFDD2y", `1:6: contains a Unicode noncharacter; delete it`},
		{"id: os", "? id\n: os", `1:1: has a field name that is not plain text; write name: value`},
		{good, strings.Repeat("[", 100_000), `1:65: is nested too deeply; use fewer levels`},
		{good, strings.Repeat("- ", 100_000), `1:129: is nested too deeply; use fewer levels`},
		{good, "id: " + strings.Repeat("x", 1<<20), `1:1: is larger than 1 MiB; check the name of the file`},
	} {
		t.Run(row.becomes[:min(len(row.becomes), 40)], func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(good, row.line, row.becomes, 1)
			if text == good {
				t.Fatalf("%q is not a line of the valid file", row.line)
			}
			got := faultsOf(text, config.Options{})
			if got != row.faults {
				t.Errorf("got\n%s\nwant\n%s", got, row.faults)
			}
			if strings.Contains(got, "hunter2") || strings.Contains(got, "aHVudGVy") {
				t.Error("a message contains a secret")
			}
		})
	}
}

func TestValidFileHasNoErrors(t *testing.T) {
	t.Parallel()
	if got := faultsOf(good, config.Options{}); got != "<nil>" {
		t.Error(got)
	}
}

func TestAllErrorsAreReportedInTheOrderOfTheFile(t *testing.T) {
	t.Parallel()
	const text = `
agents:
  - id: a
    model: gpt-4o
    timeout: soon
  - id: a
    tools: [hackernew]
    model: openai:gpt-4o
auth:
  algorithms: [HS256, RS265]
  keys: [short, ${UNSET}]
  scope_mappings:
    GET /nowhere: []
database: {url: 'sqlite:///x.db', shcema: x}
cors: {origins: ['*']}
`
	want := strings.Join([]string{
		`2:1: id: is missing; add id: my-agent-os`,
		`4:5: agents[0].model: is "gpt-4o"; write provider:id, such as openai:gpt-4o`,
		`5:5: agents[0].timeout: is "soon"; write a duration with its unit, such as 10s or 5m`,
		`6:5: agents[1].id: is "a", which agents[0] already has; give each agent its own id`,
		`7:13: agents[1].tools[0]: is not a built-in tool: "hackernew"; did you mean hackernews?`,
		`10:23: auth.algorithms[1]: is "RS265"; did you mean RS256?`,
		`11:10: auth.keys[0]: is an HMAC secret of fewer than 32 bytes, which can be guessed; ` +
			`make one with: openssl rand -hex 32`,
		`11:17: auth.keys[1]: ${UNSET} is unset or empty; ` +
			`set UNSET, or set it to an empty value to use only the other keys, or write $${ for a literal ${`,
		`13:5: auth.scope_mappings["GET /nowhere"]: lists no scope, which would open the route to every ` +
			`token; list a scope`,
		`13:5: auth.scope_mappings["GET /nowhere"]: matches no route; compare with the output of keyway routes`,
		`14:12: database.url: is not a PostgreSQL address; write postgresql://user:password@host:5432/database`,
		`14:35: database.shcema: unknown field; did you mean schema?`,
		`15:18: cors.origins[0]: is a wildcard; list each origin, as scheme://host[:port]`,
	}, "\n")
	if got := faultsOf(text, config.Options{}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Ten levels of nine aliases each would produce 3.5 thousand million values.
func TestAliasExpansionIsLimited(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("a0: &a0 x\n")
	for i := 1; i <= 10; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	if got := faultsOf(b.String(), config.Options{}); !strings.Contains(got,
		"has too many values once its aliases are replaced; use fewer aliases") {
		t.Errorf("%.200s", got)
	}
}

// manyHeaders returns n different headers, without braces.
func manyHeaders(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("X-%d: v", i))
	}
	return strings.Join(all, ", ")
}

// asGrant is the remedy for a mapping that names something else than a scope.
const asGrant = "write resource:action or resource:id:action; for the name of a role or group, let auth.grants say " +
	"which " +
	"scopes it grants"
