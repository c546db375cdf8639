package acceptance

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const clientsConfig = "testdata/clients/keyway.yaml"

// AgentOS's own Python client makes every call that it offers for the routes that
// Keyway serves. The assertions are in the Python script.
func TestAgentOSPythonClientWorks(t *testing.T) {
	t.Parallel()
	python := os.Getenv("KEYWAY_AGNO_PYTHON")
	if python == "" {
		process.Require(t, "KEYWAY_AGNO_PYTHON names no Python with AgentOS's client; run make agno, which says what to set")
	}
	r := startWith(t, process.WithTools, clientsConfig, commandModel(t), "PAGE_ORIGIN", "http://localhost:3000")
	tokens, err := json.Marshal(r.Tokens)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/clients/agent_os_client.py")
	cmd.Env = append(os.Environ(), "KEYWAY_URL="+r.URL, "KEYWAY_TOKENS="+string(tokens), "AGNO_TELEMETRY=false")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "ok every_call_was_made") {
		t.Errorf("not every call was made:\n%s", out)
	}
}

// commandModel is a model that obeys the commands in the user's message. It sends the
// first chunk of "slow" and holds back the rest.
func commandModel(t *testing.T) *modeltest.Server {
	t.Helper()
	return modeltest.NewServerFunc(t, modeltest.Commands{Pause: func(chunk int) <-chan struct{} {
		if chunk == 0 {
			return done
		}
		return nil
	}}.Obey)
}
