package apidoc_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/apidoc"
	"github.com/keyway-agents/keyway/shared/route"
)

var update = flag.Bool("update", false, "write openapi.json and docs/api.md anew")

func TestGeneratedDocumentsAreCurrent(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]byte{
		filepath.Join("..", "api", "openapi.json"):  apidoc.OpenAPI(),
		filepath.Join("..", "..", "docs", "api.md"): apidoc.Markdown(),
	} {
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
			t.Errorf("%s is stale; run go generate ./shared/apidoc (-want +got)\n%s", path, diff)
		}
	}
}

// The document has every route, every reference has a target, and every component
// has a reference.
func TestTheDocumentIsComplete(t *testing.T) {
	t.Parallel()
	var d struct {
		Paths      map[string]map[route.Name]json.RawMessage
		Components map[string]map[string]json.RawMessage
	}
	var compact bytes.Buffer // the test reads the content, whatever the layout
	if err := json.Compact(&compact, apidoc.OpenAPI()); err != nil {
		t.Fatal(err)
	}
	text := compact.String()
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	for r := range route.Table.All() {
		if d.Paths[r.Pattern][route.Name(strings.ToLower(r.Method))] == nil {
			t.Errorf("%s is not in the document", r)
		}
	}
	named := map[string]bool{}
	for _, part := range strings.Split(text, `"$ref":"#/components/`)[1:] {
		ref, _, _ := strings.Cut(part, `"`)
		named[ref] = true
		if kind, name, _ := strings.Cut(ref, "/"); d.Components[kind][name] == nil {
			t.Errorf("the component %s is missing", ref)
		}
	}
	for kind, all := range d.Components {
		for name := range all {
			if kind != "securitySchemes" && !named[kind+"/"+name] {
				t.Errorf("nothing refers to the component %s/%s", kind, name)
			}
		}
	}
}

func TestSchemasDeclareOptionalAndNullableMembers(t *testing.T) {
	t.Parallel()
	var d any
	if err := json.Unmarshal(apidoc.OpenAPI(), &d); err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(filepath.Join("testdata", "schemas.txt"))
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(string(table)), "\n\n")[1:] // the first one is a comment
	for _, row := range rows {
		path, value, _ := strings.Cut(row, "\n")
		var want any
		if err := json.Unmarshal([]byte(value), &want); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if diff := cmp.Diff(want, at(t, d, path)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", path, diff)
		}
	}
	const encoded = "paths /agents/{agent_id}/runs post requestBody content application/x-www-form-urlencoded schema"
	form, err := json.Marshal(at(t, d, encoded))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(form); strings.Contains(text, `"files"`) || !strings.Contains(text, `"required":["message"]`) {
		t.Errorf("an urlencoded form has files, or does not require a message: %s", text)
	}
}

// at returns the value at a path of member names and indexes, separated by spaces.
func at(t *testing.T, v any, path string) any {
	t.Helper()
	for key := range strings.FieldsSeq(path) {
		switch of := v.(type) {
		case map[string]any:
			v = of[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(of) {
				t.Fatalf("%s: no element %s", path, key)
			}
			v = of[i]
		}
	}
	return v
}
