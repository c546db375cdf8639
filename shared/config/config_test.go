package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/owner"
)

// file returns a valid keyway.yaml in JSON with one agent. Each argument is `"field": value`, and
// replaces or adds a top-level field.
func file(members ...string) []byte {
	fields := map[string]json.RawMessage{
		"id": []byte(`"os"`), "auth": []byte(`{"keys": ["${KEY}"]}`), "agents": []byte(`[{"id": "a", "model": "demo:x"}]`),
	}
	for _, m := range members {
		name, value, _ := strings.Cut(m, ":")
		fields[strings.Trim(name, `"`)] = json.RawMessage(value)
	}
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return b
}

func lookup(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

var key = map[string]string{"KEY": strings.Repeat("k", 32)}

// mustParse parses data, and fails the test if it has an error.
func mustParse(t *testing.T, data []byte, o config.Options) *config.Config {
	t.Helper()
	if o.Lookup == nil {
		o.Lookup = lookup(key)
	}
	c, faults := config.Parse(data, o)
	if faults != nil {
		t.Fatalf("%v", config.Faults(faults))
	}
	return c
}

// wantErrors checks that data has exactly these errors, one on each line of want.
func wantErrors(t *testing.T, data []byte, o config.Options, want string) {
	t.Helper()
	if o.Lookup == nil {
		o.Lookup = lookup(key)
	}
	c, faults := config.Parse(data, o)
	if got := config.Faults(faults).Error(); got != want || c != nil {
		t.Errorf("config %v, faults\n%s\nwant\n%s", c, got, want)
	}
}

func TestInvalidJSONIsRejected(t *testing.T) {
	t.Parallel()
	const remedy = "; run keyway config check on the keyway.yaml that it was built from"
	wantErrors(t, []byte("id: os"), config.Options{},
		"is not JSON: invalid character 'i' looking for beginning of value"+remedy)
	wantErrors(t, []byte("{}{}"), config.Options{}, "is not JSON: invalid character '{' after top-level value"+remedy)
	wantErrors(t, []byte("\"\xff\""), config.Options{}, "is not JSON: not UTF-8"+remedy)
	wantErrors(t, []byte(strings.Repeat("[", 20_000)), config.Options{},
		"is not JSON: invalid character '[' exceeded max depth"+remedy)
	wantErrors(t, bytes.Replace(file(), []byte(`"id":"os"`), []byte(`"id":"os","id":"two"`), 1), config.Options{},
		"id: is written twice; keep one of them")
	if _, err := config.Canonical([]byte(`{"a": {"b": 1, "b": 2}}`)); err == nil || err.Error() != "a.b is written twice" {
		t.Error(err)
	}
}

func TestVariablesAreReplacedInTexts(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"KEY": strings.Repeat("k", 32), "HOST": "h", "PORT": "5432", "T": "90s", "X": "${KEY}"}
	c := mustParse(t, file(
		`"name": "$${HOST} is ${HOST}, $HOST stays, ${X} is not read again"`,
		`"database": {"url": "postgres://${HOST}:${PORT}/d"}`,
		`"agents": [{"id": "a", "model": "demo:${HOST}", "timeout": "${T}"}]`,
	), config.Options{Lookup: lookup(vars)})
	got := []string{c.Name, string(c.Database.URL), c.Agents[0].Model.ID, c.Agents[0].Timeout.String()}
	want := []string{"${HOST} is h, $HOST stays, ${KEY} is not read again", "postgresql://h:5432/d", "h", "1m30s"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDigestDependsOnTheFileOnly(t *testing.T) {
	t.Parallel()
	one := mustParse(t, file(`"name": "${N}"`),
		config.Options{Lookup: lookup(map[string]string{"KEY": strings.Repeat("a", 32), "N": "1"})})
	two := mustParse(t, file(`"name": "${N}"`),
		config.Options{Lookup: lookup(map[string]string{"KEY": strings.Repeat("b", 32), "N": "2"})})
	other := mustParse(t, file(`"name": "1"`), config.Options{})
	if one.Digest != two.Digest || one.Digest == other.Digest || len(one.Digest) != 64 {
		t.Errorf("%s, %s and %s", one.Digest, two.Digest, other.Digest)
	}
	canonical, err := config.Canonical(file(`"name": "${N}"`))
	if err != nil || config.Digest(canonical) != one.Digest {
		t.Errorf("the canonical form has another digest (%v)", err)
	}
}

func TestSQLAlchemyAddressesAreAccepted(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2",
		"postgresql+asyncpg"} {
		c := mustParse(t, file(`"database": {"url": "`+scheme+`://ai:ai@h:5532/ai?sslmode=require"}`), config.Options{})
		if c.Database.URL != "postgresql://ai:ai@h:5532/ai?sslmode=require" {
			t.Errorf("%s: %s", scheme, string(c.Database.URL))
		}
	}
}

func TestDatabaseURLVariableIsUsedIfTheFileHasNoAddress(t *testing.T) {
	t.Parallel()
	with := func(url string) config.Options {
		return config.Options{Lookup: lookup(map[string]string{"KEY": strings.Repeat("k", 32), "DATABASE_URL": url})}
	}
	if c := mustParse(t, file(), with("postgres://h/d")); c.Database.URL != "postgresql://h/d" {
		t.Error(string(c.Database.URL))
	}
	if c := mustParse(t, file(`"database": {"url": "postgres://other/d"}`),
		with("postgres://h/d")); c.Database.URL != "postgresql://other/d" {
		t.Error(string(c.Database.URL))
	}
	if c := mustParse(t, file(), config.Options{}); c.Database.URL != "" {
		t.Error(string(c.Database.URL))
	}
	wantErrors(t, file(), with("mysql://u:hunter2@h/d"),
		"database.url: from $DATABASE_URL is not a PostgreSQL address; write postgresql://user:password@host:5432/database")
}

func TestPEMKeyOnOneLineIsAccepted(t *testing.T) {
	t.Parallel()
	one := map[string]string{"KEY": `-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n`}
	c := mustParse(t, file(`"auth": {"algorithms": ["RS256"], "keys": ["${KEY}"]}`), config.Options{Lookup: lookup(one)})
	if got := string(c.Auth.Keys[0].Literal); got != "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n" {
		t.Errorf("%q", got)
	}
}

func TestEmptyOriginsDifferFromAbsentOnes(t *testing.T) {
	t.Parallel()
	if c := mustParse(t, file(), config.Options{}); c.CORS.Origins != nil {
		t.Errorf("%v", c.CORS.Origins)
	}
	if c := mustParse(t, file(`"cors": {"origins": []}`), config.Options{}); c.CORS.Origins == nil ||
		len(c.CORS.Origins) != 0 {
		t.Errorf("%v", c.CORS.Origins)
	}
}

func TestEgressAcceptsAddressesAndNetworks(t *testing.T) {
	t.Parallel()
	c := mustParse(t, file(`"egress": {"allow": ["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"]}`), config.Options{})
	want := []netip.Prefix{
		netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fd00::/8"),
	}
	if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(c.Egress.Allow)); diff != "" {
		t.Error(diff)
	}
}

func TestModelIDsCanContainColons(t *testing.T) {
	t.Parallel()
	for _, id := range []string{
		"anthropic.claude-v2:1", "anthropic.claude-3-5-sonnet-20240620-v1:0", "eu.anthropic.claude-sonnet-4-20250514-v1:0",
		"arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0",
	} {
		c := mustParse(t, file(`"agents": [{"id": "a", "model": "bedrock:`+id+`"}]`), config.Options{})
		if m := c.Agents[0].Model; m.Provider != "bedrock" || m.ID != id {
			t.Errorf("%+v", m)
		}
	}
}

func TestToolNamesAreThoseOfOptions(t *testing.T) {
	t.Parallel()
	agents := `"agents": [{"id": "a", "model": "demo:x", "tools": ["calculator"]}]`
	c := mustParse(t, file(agents), config.Options{Tools: []string{"calculator"}})
	if diff := cmp.Diff([]config.Tool{{Name: "calculator"}}, c.Agents[0].Tools); diff != "" {
		t.Error(diff)
	}
	wantErrors(t, file(agents), config.Options{},
		`agents[0].tools[0]: is not a built-in tool: "calculator"; use hackernews or websearch`)
}

func TestUnsetVariableIsAnErrorExceptForAModelsKey(t *testing.T) {
	t.Parallel()
	agents := `"agents": [{"id": "a", "model": {"provider": "openai", "id": "x", "api_key": "${NONE}"}}]`
	c := mustParse(t, file(agents), config.Options{})
	if diff := cmp.Diff(map[string]string{"agents[0].model.api_key": "NONE"}, c.Unset); diff != "" ||
		c.Agents[0].Model.APIKey != "" {
		t.Error(diff)
	}
	wantErrors(t, file(`"name": "${NONE}"`), config.Options{},
		"name: ${NONE} is unset or empty; set NONE, or write $${ for a literal ${")
}

func TestDevLeavesOutValuesWithUnsetVariables(t *testing.T) {
	t.Parallel()
	dev := config.Options{Dev: true, Lookup: lookup(nil)}
	c := mustParse(t, file(
		`"name": "${NAME}"`,
		`"auth": {"keys": ["${KEY}", {"jwks_url": "${URL}"}], "issuer": "${ISSUER}", "leeway": "${LEEWAY}"}`,
		`"database": {"url": "${DB}", "schema": "${SCHEMA}"}`,
		`"agents": [{"id": "a", "model": "demo:x", "tools": ["${TOOL}", {"mcp": {"url": "https://h/m", "headers": {"A": `+
			`"${TOKEN}", "B": "b"}}}]}]`,
	), dev)
	if len(c.Auth.Keys) != 0 || c.Auth.Issuer != "" || c.Auth.Leeway.String() != "10s" || c.Database.Schema != "keyway" {
		t.Errorf("%v", c)
	}
	tools := []config.Tool{{MCP: &config.MCP{
		URL: "https://h/m", Headers: map[string]config.Secret{"B": "b"}, Timeout: time.Minute,
	}}}
	if diff := cmp.Diff(tools, c.Agents[0].Tools); diff != "" {
		t.Error(diff)
	}
	want := map[string]string{
		"name": "NAME", "auth.keys[0]": "KEY", "auth.keys[1].jwks_url": "URL", "auth.issuer": "ISSUER",
		"auth.leeway":  "LEEWAY",
		"database.url": "DB", "database.schema": "SCHEMA", "agents[0].tools[0]": "TOOL",
		"agents[0].tools[1].mcp.headers.A": "TOKEN",
	}
	if diff := cmp.Diff(want, c.Unset); diff != "" {
		t.Error(diff)
	}
}

func TestDevStillRequiresFieldsAndScopes(t *testing.T) {
	t.Parallel()
	dev := config.Options{Dev: true, Lookup: lookup(nil)}
	wantErrors(t, []byte(`"${ALL}"`), dev, "${ALL} is unset or empty; set ALL, or write $${ for a literal ${")
	wantErrors(t, file(`"id": "${ID}"`), dev, "id: is required, but ${ID} is not set; add id: my-agent-os")
	wantErrors(t, file(`"agents": ["${AGENT}"]`), dev, "agents[0]: is not an agent; write its id and model")
	wantErrors(t, file(`"auth": {"scope_mappings": {"GET /agents": ["app:read", "${MORE}"]}}`), dev,
		`auth.scope_mappings["GET /agents"][1]: ${MORE} is unset or empty; set MORE, or write $${ for a literal ${`)
	wantErrors(t, file(`"auth": {"audience": ["${AUD}"], "verify_audience": true}`), dev,
		"auth.audience: is an empty list; add an element")
	wantErrors(t, file(`"auth": {"keys": [{"issuer": "x"}]}`), dev,
		"auth.keys[0]: needs exactly one source of keys; set one of key, jwks_file, jwks_url, discovery and secret")
}

func TestDevNeedsNoKeyAndAcceptsHTTPOnLoopback(t *testing.T) {
	t.Parallel()
	dev := config.Options{Dev: true}
	if c := mustParse(t, file(`"auth": {}`), dev); len(c.Auth.Keys) != 0 {
		t.Errorf("%v", c.Auth.Keys)
	}
	for _, host := range []string{"localhost:9000", "127.0.0.1", "[::1]:80"} {
		mustParse(t, file(`"auth": {"algorithms": ["RS256"], "keys": [{"jwks_url": "http://`+host+`/k"}]}`), dev)
	}
	for _, host := range []string{"localhost.example.com", "10.0.0.1", "127.0.0.1.nip.io"} {
		wantErrors(t, file(`"auth": {"algorithms": ["RS256"], "keys": [{"jwks_url": "http://`+host+`/k"}]}`), dev,
			"auth.keys[0].jwks_url: is not https, so anyone on the network path could replace the keys; use https; "+
				"inside a compose network or a cluster, add http: true to this key; with --dev, http on a loopback "+
				"address is accepted too")
	}
}

func TestUnwiseSettingsCauseWarnings(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ settings, want string }{
		{`"auth": {"keys": ["${KEY}"]}`, ""},
		{`"auth": {"keys": ["0123456789abcdef0123456789abcdef"]}`,
			"auth.keys[0]: is a secret written in the file; " +
				"write ${JWT_VERIFICATION_KEY} instead, and set that variable"},
		{`"auth": {"keys": ["` + config.PublishedSecret + `"]}`,
			"auth.keys[0]: is the secret printed in the Agno documents, so anyone can sign tokens with it; " +
				"make one with: openssl rand -hex 32"},
		{`"auth": {"keys": ["${KEY}"], "audience": ["a"]}`,
			"auth.audience: has no effect while verify_audience is false; set verify_audience: true"},
		{`"egress": {"allow": ["0.0.0.0/0"]}`,
			"egress.allow[0]: allows a model to reach every private network and the cloud's metadata service; " +
				"list the networks that tools need"},
		{`"agents": [{"id": "a", "model": {"provider": "openai", "id": "x", "api_key": "sk-1"}}]`,
			"agents[0].model.api_key: is a secret written in the file; " +
				"write ${OPENAI_API_KEY} or another variable instead, and set that variable"},
		{`"auth": {"algorithms": ["RS256"], "keys": [{"jwks_url": "https://i/k"}]}`,
			"auth.keys[0]: accepts tokens that its issuer made for other services; " +
				"set verify_audience: true, or set audience on this key"},
		{`"auth": {"algorithms": ["RS256"], "keys": [{"jwks_url": "https://i/k", "audience": ["os"]}]}`, ""},
	} {
		c := mustParse(t, file(row.settings), config.Options{})
		if got := config.Faults(c.Warnings).Error(); got != row.want {
			t.Errorf("%s\ngot  %s\nwant %s", row.settings, got, row.want)
		}
	}
}

func TestConfigMasksSecretsInEveryOutput(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"KEY": "hunter2-hunter2-hunter2-hunter2-", "API": "hunter2-api", "TOKEN": "Bearer hunter2"}
	c := mustParse(t, file(
		`"auth": {"keys": ["${KEY}", {"secret": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:jwt"}]}`,
		`"database": {"url": "postgresql://ai:hunter2@db:5432/x?sslpassword=hunter2"}`,
		`"agents": [{"id": "a", "model": {"provider": "openai", "id": "x", "api_key": "${API}",
			"base_url": "https://b/v1?key=hunter2", "headers": {"X-Key": "${TOKEN}"}, "temperature": 0},
			"tools": ["hackernews", {"mcp": {"url": "https://m/mcp?key=hunter2", "headers": {"Authorization": "${TOKEN}"}}}]}]`,
	), config.Options{Lookup: lookup(vars)})
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c, "key", c.Auth.Keys[0], "url", c.Database.URL, "secret",
		c.Agents[0].Model.APIKey, "headers", c.Agents[0].Model.Headers)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", *c, "agents", c.Agents, "url", c.Database.URL, "secret",
		c.Agents[0].Model.APIKey)
	encoded, err := json.Marshal(map[string]any{"c": c, "auth": c.Auth, "tools": c.Agents[0].Tools})
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		all += fmt.Sprintf(verb+verb+verb+verb, *c, c.Auth, c.Database, c.Agents[0].Model)
		all += fmt.Sprintf(verb, *c.Agents[0].Tools[1].MCP)
	}
	if strings.Contains(all, "hunter2") || strings.Contains(all, fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("a secret is shown: %s", all)
	}
	const want = `{"id":"os","auth":{"algorithms":["HS256"],` +
		`"keys":["***",{"secret":"arn:aws:secretsmanager:eu-west-1:123456789012:secret:jwt"}],` +
		`"verify_audience":false,"audience":["os"],"require_exp":true,"leeway":"10s",` +
		`"claims":{"scopes":"scopes","subject":"sub","session":"session_id"},` +
		`"admin_scope":"agent_os:admin","user_isolation":true},` +
		`"doors":{"mcp":{"enabled":true},"openai":{"enabled":true},"agui":{"enabled":true}},` +
		`"database":{"url":"postgresql://ai:***@db:5432/x?***","schema":"keyway"},` +
		`"bounds":{"message":1048576,"files":50,"file_size":2097152,"files_size":4194304,"tool_results":1048576,` +
		`"session_state":262144,"metadata":65536},` +
		`"agents":[{"id":"a","name":"a",` +
		`"model":{"provider":"openai","id":"x","base_url":"https://b/v1?***","api_key":"***",` +
		`"headers":{"X-Key":"***"},"temperature":0},` +
		`"tools":["hackernews",{"mcp":{"url":"https://m/mcp?***","headers":{"Authorization":"***"},"timeout":"1m"}}],` +
		`"add_history_to_context":false,"num_history_runs":3,"update_memory_on_run":false,` +
		`"add_datetime_to_context":false,"markdown":false,"timeout":"10m"}]}`
	var flat bytes.Buffer
	if err := json.Compact(&flat, []byte(c.String())); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, flat.String()); diff != "" {
		t.Error(diff)
	}
}

// Agents declared in Go are added to those of the file, or replace them.
func TestAgentsCanBeDeclaredInGo(t *testing.T) {
	t.Parallel()
	outside := config.Options{Agents: []config.Agent{{ID: "b"}}}
	ids := func(c *config.Config) (ids []string) {
		for _, a := range c.Agents {
			ids = append(ids, a.ID)
		}
		return ids
	}
	if got := ids(mustParse(t, file(), outside)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("both: %q", got)
	}
	without := []byte(`{"id": "os", "auth": {"keys": ["${KEY}"]}}`)
	if got := ids(mustParse(t, without, outside)); !slices.Equal(got, []string{"b"}) {
		t.Errorf("without agents in the file: %q", got)
	}
	if got := ids(mustParse(t, file(`"agents": []`), outside)); !slices.Equal(got, []string{"b"}) {
		t.Errorf("with an empty list in the file: %q", got)
	}
	wantErrors(t, without, config.Options{}, "agents: is missing; add agents: [{id: assistant, model: openai:gpt-4o}]")
	wantErrors(t, file(`"agents": [{"id": "b", "model": "demo:x"}]`), outside,
		`agents[0].id: is "b", which an agent declared in Go already has; give each agent its own id`)
	outside.Lookup = lookup(nil) // a list with an unset variable does not count as left out
	outside.Dev = true
	wantErrors(t, file(`"agents": "${LIST}"`), outside,
		"agents: is required, but ${LIST} is not set; add agents: [{id: assistant, model: openai:gpt-4o}]")
	for id, valid := range map[string]bool{"a.b_c-1": true, "": false, ".": false, "..": false, "a b": false,
		strings.Repeat("x", 65): false} {
		if config.ValidAgentID(id) != valid {
			t.Errorf("%q: valid is %t", id, !valid)
		}
	}
}

func TestOwnersDependOnTheIssuersOfAllEntries(t *testing.T) {
	t.Parallel()
	data := `"keys": ["${KEY}", {"jwks_url": "https://a/jwks", "issuer": ["https://a", "https://A"]},
		{"discovery": "https://b/.well-known/openid-configuration"}], "home_issuer": "https://A", "algorithms": ["RS256"]`
	key := lookup(map[string]string{"KEY": `-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n`})
	for _, row := range []struct {
		auth string
		want owner.File
	}{
		{data, owner.File{Home: "https://A", Entries: [][]string{nil, {"https://a", "https://A"}, {"https://b"}}}},
		{`"issuer": "https://x", "keys": ["${KEY}", "${KEY}"], "algorithms": ["RS256"]`,
			owner.File{Entries: [][]string{{"https://x"}, {"https://x"}}}},
	} {
		c := mustParse(t, file(`"auth": {`+row.auth+`}`), config.Options{Lookup: key})
		if got := c.Auth.Owners(); !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: %+v, want %+v", row.auth, got, row.want)
		}
	}
}

func TestAHomeIssuerThatNoEntryNamesIsRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ home, entry, want string }{
		{"https://a", `"issuer": "https://a"`, ""},
		{"none", `"issuer": "https://a"`, ""},
		{"https://a", `"audience": ["x"]`, ""}, // no entry names an issuer yet
		{"https://A", `"issuer": "https://a"`, "auth.home_issuer: is named by no entry of auth.keys; write one of their"},
		{"None", `"audience": ["x"]`, "auth.home_issuer: is None, which is no issuer; write none"},
	} {
		_, faults := config.Parse(file(fmt.Sprintf(`"auth": {"home_issuer": %q, "keys": [{"secret": "${ARN}", %s}]}`,
			row.home, row.entry)), config.Options{Lookup: lookup(map[string]string{"ARN": inVault})})
		if got := config.Faults(faults).Error(); (len(faults) == 0) != (row.want == "") || !strings.Contains(got, row.want) {
			t.Errorf("%s: %v", row.home, faults)
		}
	}
}
