package functions_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
)

const ownTools = `"github.com/keyway-agents/keyway/examples/deploy/tools"`

// edited builds a program with an operator's changes, and doesn't change the source.
func edited(t *testing.T, dir string, changes ...string) (program string) {
	t.Helper()
	name := filepath.Join(dir, "main.go")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	after := strings.NewReplacer(changes...).Replace(string(before))
	at, err := filepath.Abs(name)
	if err != nil || after == string(before) {
		t.Fatalf("%s is not changed: %v", name, err)
	}
	tmp := t.TempDir()
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{at: filepath.Join(tmp, "main.go")}})
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{"main.go": []byte(after), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(tmp, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program = filepath.Join(tmp, "program")
	if err := lambdatest.Build(t.Context(), "./"+dir, program,
		"GOFLAGS=-overlay="+filepath.Join(tmp, "overlay.json")); err != nil {
		t.Fatal(err)
	}
	return program
}

// docs/deploy.md asks the operator to change one line in each of three programs.
func TestGoToolRunsInFunctions(t *testing.T) {
	t.Parallel()
	inFunctions := []string{"agents.Open", "tools.Open", `"github.com/keyway-agents/keyway/shared/agents"`, ownTools}
	const configuration = `{"agents":[{"id":"a","model":"demo:x","tools":["in_stock"]}],` +
		`"auth":{"keys":[{"secret":"${JWT_KEY_SECRET}"}]},"database":{"url":"${DATABASE_URL}"},"id":"test-os"}`
	d := deploy(t, configuration)
	env := []string{"LAMBDA_TASK_ROOT=" + d.dir, "AWS_LAMBDA_FUNCTION_NAME=f", "DATABASE_URL=" + d.db,
		"AWS_SAM_LOCAL=true"}

	runs := function{lambdatest.Start(t, edited(t, "runs", inFunctions...), env...), t}
	runs.ask(request{
		method: "POST", path: "/agents/a/runs", scopes: "agents:a:run",
		headers: map[string]string{"Content-Type": "application/x-www-form-urlencoded"},
		body:    `stream=false&message=call tool in_stock {"name": "tea"}`,
	}).want(t, "a run", 200, "12 of tea, says the shop to ann")

	worker := lambdatest.Start(t, edited(t, "worker", inFunctions...), env...)
	if a := worker.Invoke([]byte(`{"Records":[]}`), reasonable); a.Kind != "response" {
		t.Errorf("the worker: %s", a.Body())
	}

	for _, name := range []string{"agents", "config", "sessions", "memories"} { // they don't check the names of tools
		if got := d.start(name).ask(request{method: "GET",
			path: map[string]string{"config": "/health", "agents": "/agents", "sessions": "/sessions?type=agent",
				"memories": "/memories"}[name], scopes: everything}); got.StatusCode != 200 {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.Body)
		}
	}
	if a := d.start("migrate").Invoke([]byte("{}"), reasonable); a.Kind != "response" {
		t.Errorf("migrate: %s", a.Body())
	}

	keyway := edited(t, "../cmd/keyway", "cli.Options{}", "cli.Options{Tools: tools.All}", `import "github.com`,
		"import "+ownTools+"\nimport \"github.com")
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), keyway, "build", "--config", filepath.Join(d.dir, "keyway.json"),
		t.TempDir()) // #nosec G204 -- built above
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		t.Errorf("keyway build: %v: %s", err, &said)
	}
}
