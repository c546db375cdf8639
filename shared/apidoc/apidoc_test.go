package apidoc_test

import (
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
	text := string(apidoc.OpenAPI())
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
	const ref = `{"$ref":"#/components/schemas/`
	for path, want := range map[string]string{
		"components schemas Session required":                                      `["session_id","session_name","created_at","updated_at","session_type"]`,
		"components schemas Session properties metrics":                            ref + `SessionMetrics"}`,
		"components schemas Session properties session_state":                      `{"type":"object"}`,
		"components schemas WholeSessionDetail properties user_id":                 `{"type":["string","null"]}`,
		"components schemas WholeSessionDetail properties agent_data":              `{"anyOf":[` + ref + `AgentData"},{"type":"null"}]}`,
		"components schemas WholeSessionDetail properties metrics":                 `{"anyOf":[` + ref + `SessionMetrics"},{"type":"object"},{"type":"null"}]}`,
		"components schemas WholeStoredRun properties content":                     `{"type":["string","null"]}`,
		"components schemas StoredRun properties content":                          `{"type":"string"}`,
		"components schemas ToolExecution properties confirmed":                    `{"type":["boolean","null"]}`,
		"components schemas ToolExecution properties user_input_schema":            `{"anyOf":[{"items":` + ref + `UserInput"},"type":"array"},{"type":"null"}]}`,
		"components schemas Completed required":                                    `["created_at","event","agent_id","agent_name","run_id","session_id","nested_depth","content","content_type","session_state","event_index","metrics"]`,
		"components schemas Started properties event enum":                         `["RunStarted","ModelRequestStarted"]`,
		"components schemas PageMemory properties data items":                      ref + `Memory"}`,
		"paths /sessions get parameters 4 schema":                                  `{"default":20,"format":"int32","maximum":1000,"minimum":1,"type":"integer"}`,
		"paths /sessions get parameters 0 schema":                                  `{"enum":["agent","team","workflow"],"type":"string"}`,
		"paths /memories get parameters 8 schema":                                  `{"items":{"type":"string"},"type":"array"}`,
		"paths /memories post requestBody required":                                `true`,
		"paths /sessions post requestBody required":                                `false`,
		"paths /sessions/{session_id} delete responses 204":                        `{"description":"No Content"}`,
		"paths /agents/{agent_id}/runs post x-keyway-scopes":                       `["agents:run"]`,
		"paths /agents/{agent_id}/runs post security":                              `[{"bearer":[]}]`,
		"paths /docs get security":                                                 `[]`,
		"paths /agents/{agent_id}/runs post responses 202 content":                 `{"application/json":{"schema":` + ref + `Accepted"}}}`,
		"paths /agents/{agent_id}/runs/{run_id}/resume post responses 200 content": `{"text/event-stream":{"schema":` + ref + `ServerSentEvent"}}}`,
	} {
		if got := at(t, d, strings.Fields(path)); got != want {
			t.Errorf("%s is %s\nwant %s", path, got, want)
		}
	}
	form := at(t, d, strings.Fields("paths /agents/{agent_id}/runs post requestBody content application/x-www-form-urlencoded schema"))
	if strings.Contains(form, `"files"`) || !strings.Contains(form, `"required":["message"]`) {
		t.Errorf("an urlencoded form has files, or does not require a message: %s", form)
	}
}

// at returns the JSON at a path of member names and indexes.
func at(t *testing.T, v any, path []string) string {
	t.Helper()
	for _, key := range path {
		switch of := v.(type) {
		case map[string]any:
			v = of[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(of) {
				t.Fatalf("%v: no element %s", path, key)
			}
			v = of[i]
		}
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
