package acceptance

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const ownToolsFile = "../examples/own-tools/keyway.yaml"

func TestOwnProgramHasItsToolsModelsAndAgents(t *testing.T) {
	t.Parallel()
	check := process.OwnTools.Command(t, map[string]string{"JWT_VERIFICATION_KEY": strings.Repeat("k", 32)},
		"config", "check",
		"--config", ownToolsFile)
	if out, err := check.CombinedOutput(); err != nil || !strings.Contains(string(out),
		"own-tools/keyway.yaml is fine: 2 agents") {
		t.Errorf("its config check: %v\n%s", err, out)
	}
	m := modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		messages, _ := r.Body["messages"].([]any)
		last, _ := messages[len(messages)-1].(map[string]any)
		text, _ := last["content"].(string)
		if last["role"] == "tool" {
			return modeltest.Text(text)
		}
		return modeltest.ToolCall("in_stock", text) // the user's message is the arguments
	})
	r := startWith(t, process.OwnTools, "own-tools", m)
	ask := func(sub, agent, message string) string {
		t.Helper()
		return r.Run(sub, agent, "message", message, "stream", "false").Content(t)
	}
	// The agent of keyway.yaml: the tool gets a typed argument, and the user from the token.
	if got := ask("ann", "shop", `{"name":"Tea","want":3}`); got != "12 of Tea in stock, enough for ann: true" {
		t.Errorf("the tool answers %q", got)
	}
	if got := ask("bob", "shop", `{"name":"tea","want":13}`); got != "12 of tea in stock, enough for bob: false" {
		t.Errorf("the tool answers %q", got)
	}
	// A model cannot choose the caller. It receives an error that names the wrong argument.
	for arguments, want := range map[string]string{
		`{"name":"tea","user_id":"bob"}`: `user_id`, `{"name":"tea","want":"three"}`: `/properties/want`,
		`{"want":1}`:      `missing properties: ["name"]`,
		`{"name":"milk"}`: `there is no article "milk"; there are tea and coffee`,
	} {
		if got := ask("ann", "shop", arguments); !strings.Contains(got, want) {
			t.Errorf("%s: the model receives %q, want %s", arguments, got, want)
		}
	}
	if got := toolNames(m.Requests()[0]); got != "in_stock" {
		t.Errorf("the model is offered %q", got)
	}
	// The agent in Go has a model in Go, which asks no server.
	asked := len(m.Requests())
	if got := ask("ann", "counter", "tea"); got != "12 of tea in stock, enough for ann: true" {
		t.Errorf("the agent in Go answers %q", got)
	}
	if n := len(m.Requests()); n != asked {
		t.Error("the agent in Go asked the model of keyway.yaml")
	}
	// The agent in Go is listed after those of the file, and scopes apply to it.
	if got := r.Get("ann", "/agents").IDs(t); got != "shop counter" {
		t.Errorf("the agents are %q", got)
	}
	if got := r.Get("counter_only", "/agents").IDs(t); got != "counter" {
		t.Errorf("a caller allowed to read counter lists %q", got)
	}
	r.Run("counter_only", "counter", "message", "tea").Want(t, "its own agent", 200,
		"event: ToolCallCompleted", "event: RunCompleted")
	r.Run("counter_only", "shop", "message", "tea").Want(t, "another agent", 403, `"missing":["agents:shop:run"]`)
	r.Get("counter_only", "/agents/shop").Want(t, "reads another agent", 403)
}
