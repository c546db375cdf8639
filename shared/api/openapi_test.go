package api_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/route"
)

var update = flag.Bool("update", false, "rewrite openapi.json and docs/api.md")

func TestTheDocumentsAreThoseOfTheRoutes(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]byte{"openapi.json": api.OpenAPI(), filepath.Join("..", "..", "docs", "api.md"): api.Markdown()} {
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
			t.Errorf("%s is stale; run go generate ./shared/api (-want +got)\n%s", path, diff)
		}
	}
}

// Every reference leads somewhere, every struct is used, and every input says what
// it is.
func TestTheDocumentIsWhole(t *testing.T) {
	t.Parallel()
	var d struct {
		Paths      map[string]map[route.Name]json.RawMessage
		Components map[string]map[string]json.RawMessage
	}
	text := string(api.OpenAPI())
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	for r := range route.Table.All() {
		if d.Paths[r.Pattern][route.Name(strings.ToLower(r.Method))] == nil {
			t.Errorf("%s is not in the document", r)
		}
	}
	named := map[string]bool{}
	for _, part := range strings.Split(text, `"$ref": "#/components/`)[1:] {
		ref, _, _ := strings.Cut(part, `"`)
		named[ref] = true
		if kind, name, _ := strings.Cut(ref, "/"); d.Components[kind][name] == nil {
			t.Errorf("%s leads nowhere", ref)
		}
	}
	for kind, all := range d.Components {
		for name := range all {
			if kind != "securitySchemes" && !named[kind+"/"+name] {
				t.Errorf("nobody refers to %s/%s", kind, name)
			}
		}
	}
}
