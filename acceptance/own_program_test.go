package acceptance

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const ownToolsFile = "../examples/own-tools/keyway.yaml"

// content is what a run that isn't streamed said.
func (r reply) content(t *testing.T) string {
	t.Helper()
	var run struct{ Content string }
	if err := json.Unmarshal([]byte(r.body), &run); err != nil || r.status != 200 {
		t.Fatalf("%d %.300s: %v", r.status, r.body, err)
	}
	return run.Content
}

func TestOwnProgramHasItsToolsModelsAndAgents(t *testing.T) {
	t.Parallel()
	check := ownTools.command(t, map[string]string{"JWT_VERIFICATION_KEY": strings.Repeat("k", 32)}, "config", "check", "--config", ownToolsFile)
	if out, err := check.CombinedOutput(); err != nil || !strings.Contains(string(out), "own-tools/keyway.yaml is fine: 2 agents") {
		t.Errorf("its config check: %v\n%s", err, out)
	}
	m := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		messages, _ := r.Body["messages"].([]any)
		last, _ := messages[len(messages)-1].(map[string]any)
		said, _ := last["content"].(string)
		if last["role"] == "tool" {
			return modeltest.Text(said)
		}
		return modeltest.ToolCall("in_stock", said) // what the user says are the arguments
	})
	r := startWith(t, ownTools, "own-tools", m)
	ask := func(sub, agent, message string) string {
		t.Helper()
		return r.run(sub, agent, "message", message, "stream", "false").content(t)
	}
	// keyway.yaml's agent: a typed argument, and whose token it is.
	if got := ask("ann", "shop", `{"name":"Tea","want":3}`); got != "12 of Tea in stock, enough for ann: true" {
		t.Errorf("the tool says %q", got)
	}
	if got := ask("bob", "shop", `{"name":"tea","want":13}`); got != "12 of tea in stock, enough for bob: false" {
		t.Errorf("the tool says %q", got)
	}
	// A model cannot choose the caller, and hears which argument is wrong.
	for arguments, want := range map[string]string{
		`{"name":"tea","user_id":"bob"}`: `user_id`, `{"name":"tea","want":"three"}`: `/properties/want`, `{"want":1}`: `missing properties: ["name"]`,
		`{"name":"milk"}`: `there is no article "milk"; there are tea and coffee`,
	} {
		if got := ask("ann", "shop", arguments); !strings.Contains(got, want) {
			t.Errorf("%s: the model hears %q, want %s", arguments, got, want)
		}
	}
	if got := toolNames(m.Requests()[0]); got != "in_stock" {
		t.Errorf("the model is offered %q", got)
	}
	// The agent and the model in Go, which ask no server.
	asked := len(m.Requests())
	if got := ask("ann", "counter", "tea"); got != "12 of tea in stock, enough for ann: true" {
		t.Errorf("the agent in Go says %q", got)
	}
	if n := len(m.Requests()); n != asked {
		t.Error("the agent in Go asked keyway.yaml's model")
	}
	// It is declared: listed after the file's, with its scopes.
	if got := r.get("ann", "/agents").ids(t); got != "shop counter" {
		t.Errorf("the agents are %q", got)
	}
	if got := r.get("counter_only", "/agents").ids(t); got != "counter" {
		t.Errorf("who may read counter lists %q", got)
	}
	r.run("counter_only", "counter", "message", "tea").want(t, "its own agent", 200, "event: ToolCallCompleted", "event: RunCompleted")
	r.run("counter_only", "shop", "message", "tea").want(t, "another agent", 403, `"missing":["agents:shop:run"]`)
	r.get("counter_only", "/agents/shop").want(t, "reads another agent", 403)
}
