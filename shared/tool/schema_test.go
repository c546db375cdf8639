package tool

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// fitted holds schemas as servers list them, and what the models' vendors receive.
var fitted = []struct{ name, schema, want string }{
	{"no parameters", `{"type":"object","properties":{}}`, `{"type":"object","properties":{}}`},
	{"no properties", `{"type":"object"}`, `{"type":"object","properties":{}}`},
	{"nothing at all", ``, `{"type":"object","properties":{}}`},
	{"an empty schema", `{}`, `{"type":"object","properties":{}}`},
	{"an object or null", `{"type":["object","null"],"properties":{}}`, `{"type":"object","properties":{}}`},
	{"the order of properties", `{"properties":{"z":{"type":"string"},"a":{"type":"integer"},"m":{}},"required":["z"],` +
		`"type":"object"}`, `{"properties":{"z":{"type":"string"},"a":{"type":"integer"},"m":{}},"required":["z"],` +
		`"type":"object"}`},
	{"the text of numbers", `{"type":"object","properties":{"n":{"enum":[9007199254740993,1e2,1.0],"maximum":1e2}}}`,
		`{"type":"object","properties":{"n":{"enum":[9007199254740993,1e2,1.0],"maximum":1e2}}}`},
	{"an optional parameter of pydantic",
		`{"type":"object","properties":{"q":{"anyOf":[{"type":"string"},{"type":"null"}],"default":null,"title":"Q"}}}`,
		`{"type":"object","properties":{"q":{"anyOf":[{"type":"string"},{"type":"null"}],"default":null,"title":"Q"}}}`},
	{"a list of types", `{"type":"object","properties":{"q":{"type":["string","null"]},"r":{"type":["string"]}}}`,
		`{"type":"object","properties":{"q":{"type":["string","null"]},"r":{"type":"string"}}}`},
	{"pydantic's nested model", `{"$defs":{"Inner":{"properties":{"n":{"title":"N","type":"integer"}},"required":["n"],` +
		`"title":"Inner","type":"object"}},"properties":{"inner":{"$ref":"#/$defs/Inner"},"also":{"$ref":"#/$defs/Inner",` +
		`"description":"the other"}},"required":["inner"],"title":"toolArguments","type":"object"}`,
		`{"properties":{"inner":{"properties":{"n":{"title":"N","type":"integer"}},"required":["n"],"title":"Inner",` +
			`"type":"object"},"also":{"properties":{"n":{"title":"N","type":"integer"}},"required":["n"],"title":"Inner",` +
			`"type":"object","description":"the other"}},"required":["inner"],"title":"toolArguments","type":"object"}`},
	{"zod's draft-07", `{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{"p":{"$ref":` +
		`"#/definitions/P"}},"additionalProperties":false,"definitions":{"P":{"type":"array","items":[{"type":"number"},` +
		`{"type":"string"}],"additionalItems":false}}}`,
		`{"type":"object","properties":{"p":{"type":"array","prefixItems":[{"type":"number"},{"type":"string"}],` +
			`"items":{"not":{}}}},"additionalProperties":false}`},
	{"a recursive model", `{"$defs":{"Node":{"type":"object","properties":{"next":{"$ref":"#/$defs/Node"}}}},` +
		`"type":"object","properties":{"tree":{"$ref":"#/$defs/Node"}}}`,
		`{"type":"object","properties":{"tree":{"$ref":"#/$defs/Node"}},` +
			`"$defs":{"Node":{"type":"object","properties":{"next":{"$ref":"#/$defs/Node"}}}}}`},
	{"zod's union at the root", `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","anyOf":[` +
		`{"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"string"}},"required":["kind","x"]},` +
		`{"type":"object","properties":{"kind":{"const":"b"},"y":{"type":"number"}},"required":["kind","y"]}]}`,
		`{"type":"object","properties":{"kind":{"anyOf":[{"const":"a"},{"const":"b"}]},"x":{"type":"string"},` +
			`"y":{"type":"number"}},"required":["kind"]}`},
	{"a closed oneOf without a type",
		`{"description":"D","oneOf":[{"type":"object","properties":{"x":{"type":"string"}},` +
			`"additionalProperties":false},` +
			`{"type":"object","properties":{"x":{"type":"string"}},"additionalProperties":false},` +
			`{"type":"null"}]}`,
		`{"description":"D","additionalProperties":false,"type":"object","properties":{"x":{"type":"string"}}}`},
	{"allOf at the root", `{"type":"object","properties":{"a":{}},"allOf":[{"properties":{"a":{"type":"string"}},` +
		`"required":["a"]},{"$ref":"#/$defs/B"}],"$defs":{"B":{"type":"object","properties":{"b":{"type":"integer"}},` +
		`"required":["b"]}}}`,
		`{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer"}},"required":["a","b"]}`},
	{"a reference at the root", `{"$ref":"#/$defs/A","$defs":{"A":{"type":"object","description":"the A","properties":` +
		`{"a":{"type":"string"}},"required":["a"]}}}`,
		`{"type":"object","description":"the A","properties":{"a":{"type":"string"}},"required":["a"]}`},
	{"if, then and else",
		`{"type":"object","properties":{"k":{"type":"string"}},"if":{"properties":{"k":{"const":"a"}}},` +
			`"then":{"properties":{"a":{"type":"string"}},"required":["a"]},"else":{"properties":{"b":{"type":"string"}}}}`,
		`{"type":"object","properties":{"k":{"type":"string"},"a":{"type":"string"},"b":{"type":"string"}}}`},
	{"enum and not at the root", `{"type":"object","properties":{},"enum":[{}],"not":{"required":["x"]}}`,
		`{"type":"object","properties":{}}`},
	{"a required property that is not described", `{"type":"object","properties":{},"required":["q","q",1]}`,
		`{"type":"object","properties":{"q":{}},"required":["q"]}`},
	{"draft 3 and 4", `{"type":"object","id":"x","properties":{"n":{"type":"number","minimum":1,"exclusiveMinimum":true,` +
		`"required":true}},"required":true}`,
		`{"type":"object","properties":{"n":{"type":"number","minimum":1}}}`},
	{"an array without items", `{"type":"object","properties":{"l":{"type":"array"},"m":{"type":"any"},"t":true,` +
		`"f":false}}`, `{"type":"object","properties":{"l":{"type":"array","items":{}},"m":{},"t":{},"f":{"not":{}}}}`},
	{"references that lead nowhere", `{"type":"object","properties":{"a":{"$ref":"https://example.com/x","title":"A"},` +
		`"b":{"$ref":"#/$defs/none"},"c":{"$ref":"#/properties/c"}}}`,
		`{"type":"object","properties":{"a":{"title":"A"},"b":{},"c":{}}}`},
	{"a name twice", `{"type":"object","properties":{"a":{"type":"string"},"b":{},"a":{"type":"integer"}}}`,
		`{"type":"object","properties":{"a":{"type":"integer"},"b":{}}}`},
}

func TestASchemaIsFittedToEveryVendor(t *testing.T) {
	t.Parallel()
	for _, c := range fitted {
		got, err := FitSchema(json.RawMessage(c.schema))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n%s, want\n%s", c.name, err, got, c.want)
		}
		checkFitted(t, got)
	}
}

// checkFitted checks what holds for each schema that FitSchema returns.
func checkFitted(t *testing.T, fit json.RawMessage) {
	t.Helper()
	if err := strictjson.Check(fit, strictjson.Options{AnyNumber: true}); err != nil {
		t.Fatalf("%s is not JSON: %s", fit, err.Text)
	}
	seen := map[string]bool{}
	for name, value := range strictjson.Root(string(fit)).Members() {
		if seen[name] {
			t.Fatalf("%s has %s twice", fit, name)
		}
		seen[name] = true
		switch name {
		case "anyOf", "oneOf", "allOf", "not", "enum", "const", "if", "then", "else", "$ref", "$schema":
			t.Fatalf("the root of %s has %s", fit, name)
		case "type":
			seen[name] = value.Raw == `"object"`
		case "properties":
			seen[name] = value.Raw[0] == '{'
		}
	}
	if !seen["type"] || !seen["properties"] {
		t.Fatalf("%s is not the schema of an object with properties", fit)
	}
	again, err := FitSchema(fit)
	if err != nil || string(again) != string(fit) {
		t.Fatalf("fitted again, %s becomes %s, %v", fit, again, err)
	}
}

func TestASchemaThatIsNotAnObjectsIsAnError(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"not":`, 70) + "{}" + strings.Repeat("}", 70)
	for schema, want := range map[string]string{
		`{"type":"string"}`: "not the schema of an object", `[]`: "not the schema of an object", `null`: "not the schema",
		`true`: "not the schema", `{"anyOf":[{"type":"string"},{"type":"null"}]}`: "not the schema of an object",
		`{"type":"object","properties":[1]}`: "properties", `{"type":"obj`: "not JSON", deep: "not JSON",
		`{"type":"object","description":"` + strings.Repeat("x", 128<<10) + `"}`: "larger than 128 KiB",
		`{"allOf":[{"type":"array"}]}`:                                           "not the schema of an object",
	} {
		if got, err := FitSchema(json.RawMessage(schema)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %s, %v, want %q", schema, got, err, want)
		}
	}
}

// Definitions that each use the next one twice would grow to 2^30 copies.
func TestDefinitionsThatMultiplyStaySmall(t *testing.T) {
	t.Parallel()
	var defs []string
	for i := range 30 {
		defs = append(defs, fmt.Sprintf(`"D%d":{"type":"object","properties":{"l":{"$ref":"#/$defs/D%d"},`+
			`"r":{"$ref":"#/$defs/D%d"}}}`, i, i+1, i+1))
	}
	all := `"$defs":{` + strings.Join(defs, ",") + `,"D30":{"type":"string"}}`
	for _, schema := range []string{
		`{"type":"object","properties":{"d":{"$ref":"#/$defs/D0"}},` + all + `}`, `{"$ref":"#/$defs/D0",` + all + `}`,
	} {
		got, err := FitSchema(json.RawMessage(schema))
		if err != nil || len(got) > 4*maxInlined {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
}

// The same name escaped in 1,024 ways is one definition.
func TestADefinitionIsWrittenOnceHoweverItsNameIsSpelled(t *testing.T) {
	t.Parallel()
	var properties []string
	for i := range 1024 {
		ref := ""
		for bit := range 10 {
			ref += []string{"d", "%64"}[i>>bit&1]
		}
		properties = append(properties, fmt.Sprintf(`"p%d":{"$ref":"#/$defs/%s"}`, i, ref))
	}
	large := `{"description":"` + strings.Repeat("x", maxInlined) + `"}`
	got, err := FitSchema(json.RawMessage(`{"properties":{` + strings.Join(properties, ",") + `},"$defs":{"dddddddddd":` +
		large + `}}`))
	if err != nil || len(got) > maxSchema || strings.Count(string(got), `"dddddddddd":`) != 1 ||
		strings.Count(string(got), `{"$ref":"#/$defs/dddddddddd"}`) != 1024 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// accepts reports whether arguments fit a schema. ok is false if the schema can't be used to check it.
func accepts(schema, arguments []byte) (fits, ok bool) {
	var s jsonschema.Schema
	var in map[string]any
	if json.Unmarshal(schema, &s) != nil || json.Unmarshal(arguments, &in) != nil || in == nil {
		return false, false
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		return false, false
	}
	return resolved.Validate(in) == nil, true
}

// A branch of a union may be open for properties that another one declares; see FitSchema. So only schemas without a
// union at the root are compared here. TestArgumentsThatFitAUnionFitTheResult has closed unions.
func FuzzFitSchema(f *testing.F) {
	for _, c := range fitted {
		f.Add([]byte(c.schema), []byte(`{"a":1,"q":null,"n":100,"inner":{"n":1},"tree":{"next":{}}}`))
	}
	f.Fuzz(func(t *testing.T, schema, arguments []byte) {
		fit, err := FitSchema(schema)
		if err != nil {
			return
		}
		checkFitted(t, fit)
		if len(schema) == 0 {
			return
		}
		for name := range strictjson.Root(string(schema)).Members() {
			if slices.Contains([]string{"anyOf", "oneOf", "allOf", "$ref", "then", "else"}, name) {
				return
			}
		}
		before, usable := accepts(schema, arguments)
		if after, ok := accepts(fit, arguments); usable && before && ok && !after {
			t.Errorf("%s fits %s and not %s", arguments, schema, fit)
		}
	})
}

// closedObject draws the schema of an object that has no other properties than those it declares.
func closedObject(t *rapid.T) string {
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID).Draw(t, "names")
	var properties, required []string
	for _, name := range names {
		one := rapid.SampledFrom([]string{`{}`, `{"type":"string"}`, `{"const":1}`, `{"type":["integer","null"]}`,
			`{"$ref":"#/$defs/D"}`, `{"anyOf":[{"type":"string"},{"type":"null"}]}`, `true`}).Draw(t, "property")
		properties = append(properties, quote(name)+":"+one)
		if rapid.Bool().Draw(t, "required") {
			required = append(required, quote(name))
		}
	}
	return `{"type":"object","additionalProperties":false,"properties":{` + strings.Join(properties, ",") +
		`},"required":` + list(required) + `}`
}

func TestArgumentsThatFitAUnionFitTheResult(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var draw func(depth int) string
		draw = func(depth int) string {
			if depth == 0 || rapid.Bool().Draw(t, "leaf") {
				return closedObject(t)
			}
			kind := rapid.SampledFrom([]string{"anyOf", "oneOf", "allOf"}).Draw(t, "kind")
			branches := []string{draw(depth - 1), draw(depth - 1)}
			return `{"type":"object",` + quote(kind) + `:` + list(branches) + `}`
		}
		schema := strings.TrimSuffix(draw(3), "}") + `,"$defs":{"D":{"type":"integer","minimum":1}}}`
		var members []string
		for _, name := range []string{"a", "b", "c"} {
			if value := rapid.SampledFrom([]string{"", "1", "0", `"x"`, "null"}).Draw(t, name); value != "" {
				members = append(members, quote(name)+":"+value)
			}
		}
		arguments := "{" + strings.Join(members, ",") + "}"
		fit, err := FitSchema(json.RawMessage(schema))
		before, usable := accepts([]byte(schema), []byte(arguments))
		if err != nil || !usable {
			t.Fatalf("%s: %v", schema, err)
		}
		if after, ok := accepts(fit, []byte(arguments)); !ok || before && !after {
			t.Errorf("%s fits %s and not %s", arguments, schema, fit)
		}
	})
}
