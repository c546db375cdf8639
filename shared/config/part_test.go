package config_test

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
)

// everywhere is a file with a variable in every place that can have one.
var everywhere = file(
	`"name": "${NAME}"`, `"description": "${TEXT}"`,
	`"auth": {"issuer": "${ISSUER}", "keys": ["${KEY}", {"secret": "${JWT_KEY_SECRET}", "issuer": "i"}]}`,
	`"cors": {"origins": ["${ORIGIN}"]}`, `"database": {"url": "${DATABASE_URL}", "schema": "${SCHEMA}"}`,
	`"egress": {"allow": ["${NETWORK}"]}`,
	`"agents": [{"id": "a", "name": "${AGENT}", "model": {"provider": "openai", "id": "${MODEL}",
			"base_url": "${BASE}", "api_key": "${OPENAI_API_KEY}", "headers": {"X-Key": "${GATEWAY}"}},
		"instructions": "${PROMPT}", "timeout": "${LONG}",
		"tools": ["in_stock", "${TOOL}", {"mcp": {"url": "${MCP}", "headers": {"X-Key": "${TOKEN}"}}}]}]`,
)

// A function uses a part of the file. An unset variable of another part must not stop it.
func TestVariablesOfUnusedPartsCanBeUnset(t *testing.T) {
	t.Parallel()
	all := []config.Part{config.Keys, config.Data, config.Shown, config.Runs}
	known := map[string]string{"ISSUER": "i"}
	c := mustParse(t, everywhere, config.Options{Lookup: lookup(known), Without: all})
	if len(c.Agents) != 1 || c.Agents[0].ID != "a" || c.Auth.Issuer != "i" || c.Database.Schema != "keyway" ||
		c.Unset["agents[0].tools[2].mcp.url"] != "MCP" {
		t.Errorf("%+v", c)
	}
	for part, variables := range map[config.Part]string{
		config.Keys: "KEY JWT_KEY_SECRET", config.Data: "DATABASE_URL SCHEMA", config.Shown: "NAME TEXT ORIGIN AGENT MODEL",
		config.Runs: "NETWORK BASE GATEWAY PROMPT LONG TOOL MCP TOKEN",
	} {
		var others []config.Part
		for _, p := range all {
			if p != part {
				others = append(others, p)
			}
		}
		_, faults := config.Parse(everywhere, config.Options{Lookup: lookup(known), Without: others})
		var missing []string
		for _, f := range faults {
			if name, _, found := strings.Cut(strings.TrimPrefix(f.Text, "${"), "} is unset"); found {
				missing = append(missing, name)
			}
		}
		for _, name := range strings.Fields(variables) {
			if !strings.Contains(" "+strings.Join(missing, " ")+" ", " "+name+" ") {
				t.Errorf("with part %d alone, %s is not required, only %q", part, name, missing)
			}
		}
		if len(missing) != len(strings.Fields(variables)) {
			t.Errorf("with part %d alone, %q are required, want %s", part, missing, variables)
		}
	}
}

// The rules for access are in no part, so they are checked for every program.
func TestUnusedPartsAreStillChecked(t *testing.T) {
	t.Parallel()
	without := config.Options{Without: []config.Part{config.Keys, config.Data, config.Shown, config.Runs}}
	wantErrors(t, file(`"auth": {"keys": ["${KEY}"], "scope_mappings": {"GET /agents": ["${SCOPE}"]}}`), without,
		`auth.scope_mappings["GET /agents"][0]: ${SCOPE} is unset or empty; set SCOPE, or write $${ for a literal ${`)
	wantErrors(t, file(`"agents": [{"id": "${ID}", "model": "gpt"}]`), without,
		"agents[0].id: ${ID} is unset or empty; set ID, or write $${ for a literal ${\n"+
			`agents[0].model: is "gpt"; write provider:id, such as openai:gpt-4o`)
	wantErrors(t, file(`"auth": {"keys": [{"secret": "arn:wrong"}]}`), without,
		`auth.keys[0].secret: is not in the required form; it must match `+
			`^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+$`)
}

// Only the operator's own program knows all agents and tools of an OS that declares some of them in Go.
// Programs that do not execute runs accept names that they do not know.
func TestUnknownAgentsAndToolsAreAcceptedWithoutRuns(t *testing.T) {
	t.Parallel()
	data := []byte(strings.Replace(string(file()), `"agents":[{"id":"a","model":"demo:x"}],`, "", 1))
	if strings.Contains(string(data), "agents") {
		t.Fatal(string(data))
	}
	mustParse(t, data, config.Options{Without: []config.Part{config.Runs}})
	wantErrors(t, data, config.Options{}, "agents: is missing; add agents: [{id: assistant, model: openai:gpt-4o}]")
	tools := file(`"agents": [{"id": "a", "model": "demo:x", "tools": ["in_stock"]}]`)
	mustParse(t, tools, config.Options{Without: []config.Part{config.Runs}})
	mustParse(t, tools, config.Options{Without: []config.Part{config.ToolNames}})
	wantErrors(t, tools, config.Options{},
		`agents[0].tools[0]: is not a built-in tool: "in_stock"; use hackernews or websearch`)
}

// Entries with an unset variable keep their issuer, because the number of issuers decides how owners of
// data are named.
func TestIssuersAreKnownWithoutTheKeys(t *testing.T) {
	t.Parallel()
	data := file(`"auth": {"keys": [{"secret": "${ONE}", "issuer": "a"}, {"secret": "${TWO}", "issuer": "b"}]}`)
	if c := mustParse(t, data, config.Options{Without: []config.Part{config.Keys}}); len(c.Auth.Owners().Entries) != 2 {
		t.Errorf("the issuers are lost: %+v", c.Auth.Keys)
	}
}

// On Lambda the template sets the variables.
func TestRemedyOnLambdaNamesTheTemplateParameter(t *testing.T) {
	t.Parallel()
	wantErrors(t, file(`"auth": {"keys": [{"secret": "${JWT_KEY_SECRET}"}]}`),
		config.Options{Lookup: lookup(map[string]string{"AWS_LAMBDA_FUNCTION_NAME": "authorizer"})},
		"auth.keys[0].secret: ${JWT_KEY_SECRET} is unset or empty; set the template's parameter JwtKeySecret, or "+
			"JWT_KEY_SECRET in the function's environment, or write $${ for a literal ${")
	wantErrors(t, file(`"name": "${NAME}"`),
		config.Options{Lookup: lookup(map[string]string{"AWS_LAMBDA_FUNCTION_NAME": "f", "KEY": key["KEY"]})},
		"name: ${NAME} is unset or empty; set NAME in the function's environment, in the template, or write $${ for a "+
			"literal ${")
}

func TestDatabaseAddressCanBeInASecret(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:database-AbCdEf"
	vars := map[string]string{"KEY": key["KEY"], "DATABASE_SECRET": arn, "DATABASE_IAM": "true",
		"DATABASE_ROLE": "keyway_app"}
	for _, data := range [][]byte{file(), file(`"database": {"url": "${DATABASE_URL}"}`)} {
		c := mustParse(t, data, config.Options{Lookup: lookup(vars)})
		if c.Database.Secret != arn || !c.Database.IAM || c.Database.Role != "keyway_app" || c.Database.URL != "" {
			t.Errorf("%+v", c.Database)
		}
	}
	vars["DATABASE_URL"] = "postgres://h/db"
	if c := mustParse(t, file(), config.Options{Lookup: lookup(vars)}); c.Database.Secret != "" ||
		string(c.Database.URL) != "postgresql://h/db" {
		t.Errorf("an address that is set is the one: %+v", c.Database)
	}
	wantErrors(t, file(), config.Options{Lookup: lookup(map[string]string{"KEY": key["KEY"],
		"DATABASE_SECRET": "postgres://h/db", "DATABASE_IAM": "yes", "DATABASE_ROLE": "pg_monitor"})},
		"database.url: is to be read from $DATABASE_SECRET, which is not the ARN of a secret; set it to an ARN such as "+
			`arn:aws:secretsmanager:eu-central-1:123456789012:secret:database-AbCdEf
database: $DATABASE_IAM is "yes"; set it to true or false
database: $DATABASE_ROLE is "pg_monitor", which is not a plain role name; use a-z, 0-9 and _, such as keyway_app`)
}
