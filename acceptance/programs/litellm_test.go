package programs

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var _ = tried(entry{
	program: "LiteLLM's proxy, a model gateway", name: "litellm", pkgs: []string{"litellm"},
	tried: "`openai`, `openai-responses` and `anthropic` pointed at it, passed on and translated: whole runs, " +
		"streamed and not, with one tool call and with two, history, a confirmation, a refused model, a limit, " +
		"cut and withheld answers, a prompt that is too long, a backend that fails, calls of an imitation of Ollama",
	not: "LiteLLM gives the arguments of two calls to the second one, where its backend mixes their pieces and the " +
		"client streams Messages; it glues the arguments of Ollama's calls in Responses; its mocks can't stream Responses",
	date: "2026-11-29",
})

// liteLLMKey is the master key in testdata/litellm/config.yaml.
const liteLLMKey = "sk-keyway-to-litellm-0123456789"

// liteLLM starts the proxy and returns its address. The models of its configuration ask the
// backend, or the server with Ollama's API.
func liteLLM(t *testing.T, backend *modeltest.Server, ollama string) string {
	t.Helper()
	dir := program(t, "litellm")
	address, port := freeAddress(t)
	vars := []string{"BACKEND_URL=" + backend.URL, "OLLAMA_URL=" + ollama,
		"LITELLM_LOCAL_MODEL_COST_MAP=True", "NO_DOCS=True"}
	proxy := launch(t, vars,
		filepath.Join(dir, "bin", "litellm"), "--config", "testdata/litellm/config.yaml",
		"--host", "127.0.0.1", "--port", port)
	proxy.awaitHTTP(t, "http://"+address+"/health/readiness")
	return "http://" + address
}

func TestAgentsRunThroughLiteLLM(t *testing.T) {
	t.Parallel()
	gateway := liteLLM(t, modeltest.NewServerFunc(t, twoCalls), ollama(t))
	r := serve(t, agentsOn("openai", "deepseek", "vllm", "ollama", "mock", "limited", "too-long", "nobody"), nil,
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
	// LiteLLM streams the calls of Ollama with IDs of their own, and all with the index 0.
	eachWay(t, "calls of Ollama", apisOn("ollama"), func(t *testing.T, agent, session string, stream bool) {
		results, answer := "cake, for admin; tea, for admin", "tea, for admin. cake, for admin."
		if strings.HasPrefix(agent, "openai-responses") {
			// LiteLLM glues the arguments of the second call to those of the first.
			results, answer = "tea, for admin", "tea, for admin. Error: the arguments of look_up are not a JSON object: "+
				"invalid character '{' after top-level value."
		}
		for range 2 {
			ask(t, r, agent, session, stream, "two calls").want(t, "the run", "COMPLETED", results, answer)
		}
	})
	eachWay(t, "cut answers", answering, func(t *testing.T, agent, session string, stream bool) {
		call, filtered := "The model's answer ended within a tool call", "The model's answer was withheld"
		if strings.HasPrefix(agent, "anthropic") { // LiteLLM can't translate all of them, and has words of its own
			call, filtered = "", ""
		}
		ask(t, r, agent, session, stream, "a cut call").want(t, "a call", "ERROR", "", call)
		ask(t, r, agent, session, stream, "a cut text").want(t, "a text", "COMPLETED", "", "so far")
		ask(t, r, agent, session, stream, "a filtered answer").want(t, "nothing", "ERROR", "", filtered)
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
	asked := fmt.Sprint(last["content"])
	switch {
	case last["role"] != "user":
	case strings.Contains(asked, "two calls"):
		return modeltest.ToolCall("look_up", `{"what":"tea"}`).Text("").ToolCall("look_up", `{"what":"cake"}`)
	case strings.Contains(asked, "a cut call"):
		return modeltest.ToolCall("look_up", `{"what":"te`).Finish(limitOf(r))
	case strings.Contains(asked, "a cut text"):
		return modeltest.Text("so far").Finish(limitOf(r))
	case strings.Contains(asked, "a filtered answer"):
		return modeltest.Script{}.Finish("content_filter")
	}
	return modeltest.Commands{}.Obey(r)
}

// limitOf returns the reason of an answer that is as long as is allowed, in the requested API.
func limitOf(r modeltest.Request) string {
	if strings.HasSuffix(r.Path, "/responses") {
		return "max_output_tokens"
	}
	return "length"
}

// ollama starts a stand-in for Ollama's server (https://docs.ollama.com/api/chat). It answers a user
// with two calls, and the results of tools with them.
func ollama(t *testing.T) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Stream   bool
			Messages []struct{ Role, Content string }
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != "/api/chat" {
			http.NotFound(w, r) // LiteLLM also asks what a model can do
			return
		}
		text, calls := "", []any{}
		for _, m := range asked.Messages {
			switch m.Role {
			case "user":
				text, calls = "", []any{}
				for _, what := range []string{"tea", "cake"} {
					arguments := map[string]any{"what": what}
					calls = append(calls, map[string]any{"function": map[string]any{"name": "look_up", "arguments": arguments}})
				}
			case "tool":
				text, calls = text+" "+m.Content+".", nil
			}
		}
		lines := json.NewEncoder(w)
		line := func(done bool, text string, calls ...any) {
			_ = lines.Encode(map[string]any{ // the client may have closed the connection
				"model": "scripted", "created_at": "2026-11-29T00:00:00Z", "done": done, "done_reason": "stop",
				"message":           map[string]any{"role": "assistant", "content": text, "tool_calls": calls},
				"prompt_eval_count": 7, "eval_count": 3,
			})
		}
		text = strings.TrimSpace(text)
		if !asked.Stream {
			line(true, text, calls...)
			return
		}
		for _, call := range calls {
			line(false, "", call)
		}
		line(false, text)
		line(true, "")
	}))
	t.Cleanup(s.Close)
	return s.URL
}
