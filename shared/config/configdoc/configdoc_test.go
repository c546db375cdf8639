package configdoc_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/config/configdoc"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

var update = flag.Bool("update", false, "rewrite docs/config.md and docs/keyway.schema.json")

func source(t *testing.T) configdoc.Source {
	t.Helper()
	s, err := configdoc.Read("../config.go")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDocumentsAreUpToDate(t *testing.T) {
	t.Parallel()
	s := source(t)
	for name, want := range map[string][]byte{"config.md": s.Markdown(), "keyway.schema.json": s.Schema()} {
		path := filepath.Join("..", "..", "..", "docs", name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is out of date; run go generate ./shared/config/configdoc (-want +got)\n%s", name, diff)
		}
	}
}

func TestEveryFieldInTheSchemaHasADescription(t *testing.T) {
	t.Parallel()
	var visit func(path string, schema map[string]any)
	visit = func(path string, schema map[string]any) {
		properties, _ := schema["properties"].(map[string]any)
		for name, p := range properties {
			field := p.(map[string]any)
			if text, _ := field["description"].(string); !strings.HasSuffix(text, ".") {
				t.Errorf("%s.%s is described as %q", path, name, text)
			}
			visit(path+"."+name, field)
		}
		for _, inner := range []string{"items", "additionalProperties"} {
			if elements, ok := schema[inner].(map[string]any); ok {
				visit(path+"[]", elements)
			}
		}
		for _, s := range anyOf(schema) {
			visit(path, s)
		}
	}
	visit("", schema(t))
}

func schema(t *testing.T) map[string]any {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal(source(t).Schema(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func canonical(t *testing.T, text string) any {
	t.Helper()
	b, err := yamlfile.Canonical("keyway.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSchemaAcceptsValidFiles(t *testing.T) {
	t.Parallel()
	texts := map[string]string{
		"every field": `
id: ${ID}
name: n
description: d
auth:
  algorithms: [RS256, ${ALGORITHM}]
  keys:
  - ${KEY}
  - {jwks_file: k.json}
  - {jwks_url: https://i/k, issuer: https://i, audience: [x]}
  - {secret: "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x"}
  verify_audience: true
  audience: [x]
  issuer: https://i
  require_exp: false
  leeway: 0
  claims: {scopes: s, subject: u, session: v}
  admin_scope: root
  user_isolation: false
  limits: {"*": {concurrent_runs: 1}, gold: {usd_per_day: 1}}
  scope_mappings: {GET /agents: [app:read]}
cors: {origins: []}
database: {url: ${DATABASE_URL}, schema: ${SCHEMA}}
egress: {allow: [127.0.0.1, 10.0.0.0/8]}
agents:
- id: a
  name: n
  description: d
  model: {provider: ${PROVIDER}, id: g, base_url: http://h/v1, api_key: ${K}, headers: {A: b}, temperature: 0.5}
  instructions: i
  tools: [hackernews, {mcp: {url: https://h, headers: {A: b}, allow: [x], timeout: 2m}}]
  add_history_to_context: true
  num_history_runs: 1
  update_memory_on_run: true
  add_datetime_to_context: true
  markdown: true
  tool_call_limit: 1
  timeout: 1h30m
  limits: {concurrent_runs: 1, tokens_per_run: 1}
limits: {waiting_runs: 1, runs_per_minute: 1, runs_per_day: 1, tokens_per_day: 1000000000000, usd_per_day: 0.5}
prices: {g: {input: 0, output: 0.25}}
`}
	texts["every field"] = strings.Replace(texts["every field"], "leeway: 0", `leeway: "0"`, 1)
	files, err := filepath.Glob("../yamlfile/testdata/*.yaml")
	if err != nil || len(files) != 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(b)
	}
	for name, text := range texts {
		if err := validate(schema(t), canonical(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemaRejectsInvalidFiles(t *testing.T) {
	t.Parallel()
	const good = "id: os\nauth: {keys: [${K}]}\nagents: [{id: a, model: demo:x}]\n"
	if err := validate(schema(t), canonical(t, good)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ text, becomes, want string }{
		{"id: os", "name: x", "id is required"},
		{"id: os", "id: os\nx: 1", "x is unknown"},
		{"id: os", "id: 5", "id: 5 is no string"},
		{"id: a", "id: a/b", "agents[0].id: a/b does not match"},
		{"[{id: a, model: demo:x}]", "[]", "agents has too few"},
		{", model: demo:x", "", "model is required"},
		{"model: demo:x", "model: demo", "agents[0].model matches no alternative"},
		{"model: demo:x", "model: {provider: google, id: x}", "agents[0].model matches no alternative"},
		{"model: demo:x", "model: demo:x, timeout: 10", "timeout: 10 is no string"},
		{"model: demo:x", "model: demo:x, timeout: soon", "timeout: soon does not match"},
		{"model: demo:x", "model: demo:x, limits: {runs_per_day: 0}", "limits.runs_per_day: 0 is too small"},
		{"[${K}]", "[${K}], limits: {gold: {run_per_day: 1}}", "auth.limits.gold.run_per_day is unknown"},
		{"id: os", "id: os\nprices: {m: {input: 1}}", "output is required"},
		{"model: demo:x", "model: demo:x, num_history_runs: 0", "num_history_runs: 0 is too small"},
		{"model: demo:x", "model: demo:x, tools: [{mcp: {}}]", "tools[0] matches no alternative"},
		{"[${K}]", "[${K}], algorithms: [none]", "algorithms[0] matches no alternative"},
		{"[${K}]", "[${K}], scope_mappings: {GET agents: [a:b]}", "GET agents does not match"},
		{"[${K}]", "[${K}], scope_mappings: {GET /agents: []}", "has too few"},
	} {
		text := strings.Replace(good, row.text, row.becomes, 1)
		if err := validate(schema(t), canonical(t, text)); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s\ngot %v, want %q", text, err, row.want)
		}
	}
}

// validate checks v against a schema. It supports the keywords that Schema uses, and returns an error
// for any other.
func validate(schema map[string]any, v any) error { return validateAt("", schema, v) }

func validateAt(path string, schema map[string]any, v any) error {
	keywords := slices.Sorted(maps.Keys(schema))
	slices.SortStableFunc(keywords, func(a, b string) int { // the type first
		return strings.Compare(strings.TrimPrefix(a, "type"), strings.TrimPrefix(b, "type"))
	})
	for _, keyword := range keywords {
		if err := validateKeyword(path, keyword, schema, v); err != nil {
			return err
		}
	}
	return nil
}

func anyOf(schema map[string]any) (all []map[string]any) {
	list, _ := schema["anyOf"].([]any)
	for _, s := range list {
		all = append(all, s.(map[string]any))
	}
	return all
}

func validateKeyword(path, keyword string, schema map[string]any, v any) error {
	text, _ := v.(string)
	list, _ := v.([]any)
	object, _ := v.(map[string]any)
	n, _ := v.(float64)
	limit, _ := schema[keyword].(float64)
	switch keyword {
	case "$schema", "title", "description", "default", "properties":
		return nil
	case "type":
		return validateType(path, schema["type"].(string), v)
	case "pattern":
		if !regexp.MustCompile(schema["pattern"].(string)).MatchString(text) {
			return fmt.Errorf("%s: %s does not match", path, text)
		}
	case "enum":
		if !slices.Contains(schema["enum"].([]any), v) {
			return fmt.Errorf("%s: %v is none of them", path, v)
		}
	case "minLength", "minItems":
		if float64(len(text)+len(list)) < limit {
			return fmt.Errorf("%s has too few", path)
		}
	case "maxLength":
		if float64(len([]rune(text))) > limit {
			return fmt.Errorf("%s is too long", path)
		}
	case "minimum", "maximum":
		if keyword == "minimum" && n < limit || keyword == "maximum" && n > limit {
			return fmt.Errorf("%s: %v is too small or large", path, v)
		}
	case "required":
		for _, name := range schema["required"].([]any) {
			if _, ok := object[name.(string)]; !ok {
				return fmt.Errorf("%s.%s is required", path, name)
			}
		}
	case "items":
		for i, e := range list {
			if err := validateAt(fmt.Sprintf("%s[%d]", path, i), schema["items"].(map[string]any), e); err != nil {
				return err
			}
		}
	case "propertyNames":
		for name := range object {
			if err := validateAt(path, schema["propertyNames"].(map[string]any), name); err != nil {
				return err
			}
		}
	case "additionalProperties":
		return validateMembers(path, schema, object)
	case "anyOf":
		for _, s := range anyOf(schema) {
			if validateAt(path, s, v) == nil {
				return nil
			}
		}
		return fmt.Errorf("%s matches no alternative", path)
	default:
		return fmt.Errorf("the test does not support %s", keyword)
	}
	return nil
}

func validateMembers(path string, schema, object map[string]any) error {
	properties, _ := schema["properties"].(map[string]any)
	for name, v := range object {
		s, known := properties[name].(map[string]any)
		if other, ok := schema["additionalProperties"].(map[string]any); !known && ok {
			s = other
		} else if !known {
			return fmt.Errorf("%s.%s is unknown", path, name)
		}
		if err := validateAt(strings.TrimPrefix(path+"."+name, "."), s, v); err != nil {
			return err
		}
	}
	return nil
}

func validateType(path, want string, v any) error {
	got := map[string]bool{}
	switch x := v.(type) {
	case string:
		got["string"] = true
	case bool:
		got["boolean"] = true
	case float64:
		got["number"], got["integer"] = true, x == float64(int64(x))
	case []any:
		got["array"] = true
	case map[string]any:
		got["object"] = true
	}
	if !got[want] {
		return fmt.Errorf("%s: %v is no %s", path, v, want)
	}
	return nil
}
