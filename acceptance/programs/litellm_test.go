package programs

import (
	"path/filepath"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var _ = tried(entry{
	program: "LiteLLM's proxy, a model gateway", name: "litellm", pkgs: []string{"litellm"},
	tried: "`openai`, `openai-responses` and `anthropic` pointed at it: whole runs, streamed and not",
	date:  "2026-11-29",
})

// liteLLMKey is the master key in testdata/litellm/config.yaml.
const liteLLMKey = "sk-keyway-to-litellm-0123456789"

// liteLLM starts the proxy and returns its address. The models of its configuration ask the
// backend.
func liteLLM(t *testing.T, backend *modeltest.Server) string {
	t.Helper()
	dir := program(t, "litellm")
	address, port := freeAddress(t)
	proxy := launch(t, []string{"BACKEND_URL=" + backend.URL, "LITELLM_LOCAL_MODEL_COST_MAP=True", "NO_DOCS=True"},
		filepath.Join(dir, "bin", "litellm"), "--config", "testdata/litellm/config.yaml", "--host", "127.0.0.1", "--port", port)
	proxy.awaitHTTP(t, "http://"+address+"/health/readiness")
	return "http://" + address
}

// onLiteLLM starts keyway with one agent for each API of the proxy, on this model of it; the
// agent that speaks Messages is on the other.
func onLiteLLM(t *testing.T, model, messages, gateway string) *process.Server {
	t.Helper()
	return serve(t, `agents:
  - {id: openai, model: "openai:`+model+`", tools: [look_up, delete_account], add_history_to_context: true}
  - {id: openai-responses, model: "openai-responses:`+model+`", tools: [look_up, delete_account], add_history_to_context: true}
  - {id: anthropic, model: "anthropic:`+messages+`", tools: [look_up, delete_account], add_history_to_context: true}
`, nil, "OPENAI_BASE_URL", gateway+"/v1", "OPENAI_API_KEY", liteLLMKey,
		"ANTHROPIC_BASE_URL", gateway, "ANTHROPIC_API_KEY", liteLLMKey)
}

func TestAgentsAnswerThroughLiteLLM(t *testing.T) {
	t.Parallel()
	backend := modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		return modeltest.Text("hello ", "wörld")
	})
	r := onLiteLLM(t, "deepseek", "vllm", liteLLM(t, backend))
	for _, agent := range []string{"openai", "openai-responses", "anthropic"} {
		r.Run("admin", agent, "message", "hi").Want(t, agent+", streamed", 200, "event: RunCompleted", `"content":"hello wörld"`)
		r.Run("admin", agent, "message", "hi", "stream", "false").
			Want(t, agent+", whole", 200, `"status":"COMPLETED"`, `"content":"hello wörld"`)
	}
}
