package functions_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

// The events of the doors are as the functions read them, with the configuration that lies beside them. CI sends all of
// them with sam local.
func TestTheEventsOfDoorsAreAnswered(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../events/keyway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	canonical, err := yamlfile.Canonical("keyway.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	runs := deploy(t, string(canonical)).start("runs", "JWT_VERIFICATION_KEY=for-sam-local-only-and-never-in-the-cloud")
	for name, want := range map[string]string{
		"agui": "RUN_FINISHED", "chat-completions": `"finish_reason":"stop"`, "mcp": "You said: Hello",
	} {
		event, err := os.ReadFile("../events/" + name + ".json")
		if err != nil || !json.Valid(event) {
			t.Fatal(err)
		}
		a := runs.Invoke(event, time.Minute)
		if body := a.Body(); a.Kind != "response" || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s %s\n%s", name, a.Kind, body, runs.Stderr)
		}
	}
}
