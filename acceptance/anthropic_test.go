package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

const claudeFile = `id: quickstart
auth:
  keys: ["${JWT_VERIFICATION_KEY}"]
agents:
  - id: assistant
    model: "anthropic:claude-sonnet-4-5"
    instructions: Be brief.
    tools: [echo]
    add_history_to_context: true
`

// onClaude serves claudeFile with a model server that speaks Anthropic's API.
func onClaude(t *testing.T, model *modeltest.Server) *server {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keyway.yaml")
	if err := os.WriteFile(name, []byte(claudeFile), 0o600); err != nil {
		t.Fatal(err)
	}
	return startWith(t, process.WithTools, name, model, "ANTHROPIC_BASE_URL", strings.TrimSuffix(model.URL, "/v1"),
		"ANTHROPIC_API_KEY", modeltest.APIKey)
}

func TestClaudeAgentAnswersLikeAgentOS(t *testing.T) {
	t.Parallel()
	call := modeltest.Text("let me see. ").ToolCall("echo", `{"for":"tea"}`).ToolCall("echo", `{"for":"cake"}`)
	model := modeltest.NewServer(t, call, modeltest.Text("all ", "done"), call, modeltest.Text("again"))
	r := onClaude(t, model)
	r.Get("ann", "/agents").Want(t, "the agent is listed", 200,
		`"model":{"name":"Claude","model":"claude-sonnet-4-5","provider":"Anthropic"}`)
	streamed := r.Run("ann", "assistant", "message", "hi", "session_id", "s-1")
	streamed.Want(t, "a streamed run", 200, `"content":"let me see. "`, `"tool_name":"echo"`, `paid {\"for\":\"tea\"}`,
		`paid {\"for\":\"cake\"}`,
		`"content":"all "`, `"content":"done"`, `"model_provider":"Anthropic"`, `"provider":"Anthropic"`,
		`"total_tokens":30`, "event: RunCompleted")
	if strings.Contains(streamed.Body, "model_provider_data") {
		t.Errorf("the answer shows the provider's own data: %s", streamed.Body)
	}
	r.Run("ann", "assistant", "message", "and?", "session_id", "s-1", "stream", "false").Want(t, "a whole one", 200,
		`"content":"let me see. again"`, `"tool_name":"echo"`, `"status":"COMPLETED"`)
	var got []string
	for _, asked := range model.Requests() {
		messages, _ := asked.Body["messages"].([]any)
		got = append(got, fmt.Sprintf("%s stream=%v %d turns, key %s", asked.Path, asked.Body["stream"], len(messages),
			asked.Header.Get("X-Api-Key")))
	}
	want := []string{
		"/v1/messages stream=true 1 turns, key ***", "/v1/messages stream=true 3 turns, key ***",
		"/v1/messages stream=<nil> 5 turns, key ***", "/v1/messages stream=<nil> 7 turns, key ***",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the model was asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestClaudeRejectionNamesRemedyWithoutSecret(t *testing.T) {
	t.Parallel()
	denied := modeltest.Fail(401, "invalid x-api-key: "+modeltest.APIKey)
	r := onClaude(t, modeltest.NewServer(t, denied, denied))
	const remedy = "The model's server rejected the API key: check ANTHROPIC_API_KEY or the model's api_key"
	r.Run("ann", "assistant", "message", "hi").Want(t, "a streamed run", 200, "event: RunError", remedy)
	r.Run("ann", "assistant", "message", "hi", "stream", "false").Want(t, "a whole one", 200, remedy, `"status":"ERROR"`)
	if log := r.Stderr.String(); strings.Contains(log, modeltest.APIKey) {
		t.Errorf("the log contains the key: %s", log)
	}
}

func TestDevUsesDemoModelWithoutAnthropicKey(t *testing.T) {
	t.Parallel()
	d := newDevDir(t, "quickstart")
	d.write(t, "id: os\nagents: [{id: a, model: 'anthropic:claude-sonnet-4-5'}]\n")
	r := d.serve(t, map[string]string{"DATABASE_URL": storetest.EmptyURL(t)})
	if log := r.Stderr.String(); !strings.Contains(log, "no ANTHROPIC_API_KEY: the offline demo model answers for a\n") {
		t.Errorf("the log is %s", log)
	}
	r.Run("ann", "a", "message", "hi").Want(t, "the demo answers", 200,
		"This is Keyway's demo model", "event: RunCompleted")
}
