package programs

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var _ = tried(entry{
	program: "LiteLLM's proxy, a model gateway", name: "litellm", pkgs: []string{"litellm"},
	tried: "`openai`, `openai-responses` and `anthropic` pointed at it, passed on and translated: whole runs, " +
		"streamed and not, with one tool call and with two, history, a confirmation, a refused model, a limit, a prompt " +
		"that is too long, a backend that fails",
	not: "LiteLLM gives the arguments of two calls to the second one, where its backend mixes their pieces and the " +
		"client streams Messages; its mocks can't stream Responses",
	date: "2026-11-29",
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
		filepath.Join(dir, "bin", "litellm"), "--config", "testdata/litellm/config.yaml",
		"--host", "127.0.0.1", "--port", port)
	proxy.awaitHTTP(t, "http://"+address+"/health/readiness")
	return "http://" + address
}

func TestAgentsRunThroughLiteLLM(t *testing.T) {
	t.Parallel()
	gateway := liteLLM(t, modeltest.NewServerFunc(t, twoCalls))
	r := serve(t, agentsOn("openai", "deepseek", "vllm", "mock", "limited", "too-long", "nobody"), nil,
		"OPENAI_BASE_URL", gateway+"/v1", "OPENAI_API_KEY", liteLLMKey,
		"ANTHROPIC_BASE_URL", gateway, "ANTHROPIC_API_KEY", liteLLMKey)
	answering := []string{"openai-on-openai", "openai-on-deepseek", "openai-on-vllm", "openai-responses-on-openai",
		"openai-responses-on-deepseek", "anthropic-on-vllm", "anthropic-on-openai"}
	failing := []string{"openai-on-openai", "openai-responses-on-deepseek", "anthropic-on-vllm"}

	eachWay(t, "a text", answering, func(t *testing.T, agent, session string, stream bool) {
		got := ask(t, r, agent, session, stream, "echo: fünf  words, in <html> & \"quotes\"")
		got.want(t, "the run", "COMPLETED", "", "fünf  words, in <html> & \"quotes\"")
		if !got.counted() {
			t.Errorf("tokens: %+v", got.Metrics)
		}
	})
	const one = `call tool look_up {"what": "tea"}`
	eachWay(t, "calls and history", answering, func(t *testing.T, agent, session string, stream bool) {
		ask(t, r, agent, session, stream, one).want(t, "the first", "COMPLETED", "tea, for admin",
			"tool look_up returned: tea, for admin")
		ask(t, r, agent, session, stream, "two calls").want(t, "the second", "COMPLETED", "cake, for admin; tea, for admin",
			"stub: two calls")
		ask(t, r, agent, session, stream, "history?").want(t, "the third", "COMPLETED", "",
			"history: 2 user turns: "+one+" | two calls")
	})
	eachWay(t, "mixed pieces of calls", answering, func(t *testing.T, agent, session string, stream bool) {
		got := ask(t, r, agent, session, stream, `call tools [["look_up", {"what": "tea"}], ["look_up", {"what": "cake"}]]`)
		if agent == "anthropic-on-vllm" && stream {
			// LiteLLM gives all pieces to the second call. The model gets an error for these arguments.
			if got.Status != "COMPLETED" || strings.Contains(got.results(), "for admin") {
				t.Errorf("the run: %+v", got)
			}
			return
		}
		got.want(t, "the run", "COMPLETED", "cake, for admin; tea, for admin",
			"tool look_up returned: tea, for admin; tool look_up returned: cake, for admin")
	})
	eachWay(t, "a confirmation", answering, func(t *testing.T, agent, session string, stream bool) {
		paused := ask(t, r, agent, session, stream, `call tool delete_account {"id": 7}`)
		if paused.Status != "PAUSED" || len(paused.Tools) != 1 || string(paused.Tools[0].Args) != `{"id":7}` {
			t.Fatalf("the run: %+v", paused)
		}
		confirm(t, r, agent, session, stream, paused).want(t, "continued", "COMPLETED", "account 7 is gone",
			"tool delete_account returned: account 7 is gone")
	})
	eachWay(t, "a mock of LiteLLM", []string{"openai-on-mock"}, func(t *testing.T, agent, session string, stream bool) {
		ask(t, r, agent, session, stream, "hi").
			want(t, "the run", "COMPLETED", "", "This is a mock response with wörds in it.")
	})
	for model, reason := range map[string]string{
		"nobody": "Invalid model name", "limited": "RateLimitError", "too-long": "ContextWindowExceeded",
	} {
		eachWay(t, "an error", apisOn(model), func(t *testing.T, agent, session string, stream bool) {
			want := reason
			if strings.HasPrefix(agent, "openai-responses") && model != "nobody" {
				want = "Error processing stream start" // LiteLLM's mocks can't stream this API
			}
			ask(t, r, agent, session, stream, "hi").want(t, "the run", "ERROR", "", want)
		})
	}
	for command, reason := range map[string]string{
		"fail 429": "stub failure 429", "fail 400": "stub failure 400", "fail 500": "stub failure 500", "fail-mid 2": "",
	} {
		eachWay(t, strings.ReplaceAll(command, " ", "-"), failing, func(t *testing.T, agent, session string, stream bool) {
			ask(t, r, agent, session, stream, command).want(t, "the run", "ERROR", "", reason)
		})
	}
}

// twoCalls answers "two calls" with two calls one after the other. Otherwise it obeys the commands
// of modeltest, which mix the pieces of two calls.
func twoCalls(r modeltest.Request) modeltest.Script {
	messages, _ := r.Body["messages"].([]any)
	if messages == nil { // the Responses API calls them input
		messages, _ = r.Body["input"].([]any)
	}
	last, _ := messages[len(messages)-1].(map[string]any)
	if last["role"] == "user" && strings.Contains(fmt.Sprint(last["content"]), "two calls") {
		return modeltest.ToolCall("look_up", `{"what":"tea"}`).Text("").ToolCall("look_up", `{"what":"cake"}`)
	}
	return modeltest.Commands{}.Obey(r)
}
