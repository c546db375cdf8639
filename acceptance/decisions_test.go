package acceptance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

func TestServeWritesDecisionsToAFile(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", modeltest.NewServer(t))
	kept, refused := filepath.Join(r.Data, "decisions.jsonl"), filepath.Join(r.Data, "refusals.jsonl")
	var ids []string
	for _, request := range []struct{ sub, method, path string }{
		{"ann", "GET", "/agents"}, {"-", "GET", "/agents"}, {"-", "GET", "/health"}, {"nobody", "GET", "/agents/assistant"},
		{"ann", "GET", "/nope"}, {"ann", "OPTIONS", "/agents"}, {"ann", "PUT", "/agents"}, {"ann", "GET", "/sessions"},
	} {
		got := r.Call(request.sub, request.method, request.path, nil)
		ids = append(ids, got.Header.Get("X-Request-Id"))
	}
	want := []string{
		ids[0] + " true 0 GET /agents", ids[7] + " true 0 GET /sessions",
		ids[1] + " false 401 GET /agents", ids[3] + " false 403 GET /agents/{agent_id}",
		ids[4] + " false 404 ", ids[6] + " false 405 ",
	}
	if diff := cmp.Diff(want, append(decisionsIn(t, kept), decisionsIn(t, refused)...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v; want 0600", info.Mode(), err)
	}
	// The log has two lines for each request: the decision and the request itself.
	for _, id := range ids[:2] {
		if n := strings.Count(r.Stderr.String(), `"request_id":"`+id); n != 2 {
			t.Errorf("the log names %s %d times", id, n)
		}
	}
}

// decisionsIn reads a decision log. It returns "request allow status route" for each line.
func decisionsIn(t *testing.T, path string) (out []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.Lines(string(data)) {
		var l struct {
			Msg       string
			RequestID string `json:"request_id"`
			Allow     bool
			Status    int
			Route     string
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.Msg != "decision" {
			t.Fatalf("%s: %v", text, err)
		}
		out = append(out, fmt.Sprintf("%s %t %d %s", l.RequestID, l.Allow, l.Status, l.Route))
	}
	return out
}
