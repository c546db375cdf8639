package programs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const openAICases = "models, chat completions and responses, whole and streamed, with the helpers for streams; " +
	"errors 400 to 429; a failing model, which no retry repeats; a pause; sessions by header, metadata, " +
	"`conversation` and `previous_response_id`; `background`; a stream from an event on"

var (
	_ = tried(entry{
		program: "OpenAI's Python client, LangChain, Pydantic AI, the types of Open Responses", name: "openai-python",
		pkgs:  []string{"openai", "langchain-openai", "pydantic-ai-slim", "openresponses-types"},
		tried: openAICases + "; every object and event by the specification's types",
		not:   "The helper for the stream of a response raises at a pause",
		date:  "2026-11-30",
	})
	_ = tried(entry{
		program: "OpenAI's Node client, AI SDK", name: "openai-node",
		pkgs:  []string{"openai", "ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible"},
		tried: openAICases,
		date:  "2026-11-30",
	})
)

var (
	_ = tried(entry{
		program: "LiteLLM, OpenAI's Agents SDK, LangChain's adapters for MCP, as clients", name: "agents-python",
		pkgs: []string{"litellm", "openai-agents", "langchain-mcp-adapters"},
		tried: "answers whole and streamed by both of OpenAI's APIs, history, sessions of the SDK, `previous_response_id`, " +
			"refusals, a failing model; lists and calls of tools at `/mcp`",
		not: "LiteLLM's `num_retries` repeats each error, also a failed run: use `max_retries`, or an `Idempotency-Key`. " +
			"The Agents SDK raises at a pause of a response",
		date: "2026-11-30",
	})
	_ = tried(entry{
		program: "LangChain.js", name: "langchain-node", pkgs: []string{"@langchain/openai", "@langchain/mcp-adapters"},
		tried: "the same, without sessions",
		not: "it repeats each status that it doesn't know as final up to six times, such as 424, and ignores " +
			"`X-Should-Retry`",
		date: "2026-11-30",
	})
)

// modelAgents are the agents that the clients use as models. ann may not run the one named closed.
const modelAgents = `  user_isolation: true
agents:
  - {id: assistant, model: "openai:gpt-4o", instructions: Be good., add_history_to_context: true, tools: [pay]}
  - {id: closed, model: "openai:gpt-4o"}
  - {id: forgetful, model: "openai:gpt-4o"}
  - {id: limited, model: "openai:gpt-4o", limits: {runs_per_day: 1}}
`

// startModels starts the agents. Their model obeys the commands in messages.
func startModels(t *testing.T) *process.Server {
	t.Helper()
	r := serve(t, modelAgents, modeltest.NewServerFunc(t, modeltest.Commands{}.Obey))
	var err error
	r.Tokens["ann"], err = jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": "ann", "exp": 4_102_444_800,
		"scopes": []string{"agents:assistant:run", "agents:forgetful:run", "agents:limited:run"},
	}).SignedString([]byte(config.PublishedSecret))
	if err != nil {
		t.Fatal(err)
	}
	r.Tokens["mcp"] = mcpToken(t, r, "ann", "agents:assistant:run", "agents:forgetful:run", "agents:limited:run")
	return r
}

// runClient runs a client to its end, and checks that each request that fails has started one run.
func runClient(t *testing.T, r *process.Server, cases []string, command string, args ...string) {
	t.Helper()
	tokens, err := json.Marshal(r.Tokens)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), command, append(args, r.URL, string(tokens))...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range cases {
		if !strings.Contains(string(out), "ok "+name+"\n") {
			t.Errorf("%s was not tried:\n%s", name, out)
		}
	}
	db, err := pgx.Connect(t.Context(), r.DB)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	var failed int
	var twice []string
	err = db.QueryRow(t.Context(), `
		SELECT COALESCE(sum(n), 0), COALESCE(array_agg(input) FILTER (WHERE n > 1), '{}') FROM (
		SELECT input, count(*) AS n FROM keyway.runs WHERE input LIKE 'fail%' GROUP BY input) t`).Scan(&failed, &twice)
	if err != nil || failed < 4 || len(twice) > 0 {
		t.Errorf("%d requests failed, several runs are of %q: %v", failed, twice, err)
	}
}

func TestPythonClientsOfOpenAIRunAgents(t *testing.T) {
	t.Parallel()
	dir := program(t, "openai-python")
	runClient(t, startModels(t), []string{
		"models", "chat", "conversation", "errors", "failures", "pauses", "responses", "background", "specification",
		"langchain", "pydantic_ai",
	}, filepath.Join(dir, "bin", "python"), "testdata/openai-python/client.py")
}

func TestPythonFrameworksOfAgentsRunAgents(t *testing.T) {
	t.Parallel()
	dir := program(t, "agents-python")
	runClient(t, startModels(t), []string{"litellm", "agents", "mcp"},
		filepath.Join(dir, "bin", "python"), "testdata/agents-python/client.py")
}

func TestLangChainForJavaScriptRunsAgents(t *testing.T) {
	t.Parallel()
	script := inPackages(t, "langchain-node")
	runClient(t, startModels(t), []string{"openai", "mcp"}, "node", script)
}

func TestNodeClientsOfOpenAIRunAgents(t *testing.T) {
	t.Parallel()
	script := inPackages(t, "openai-node")
	runClient(t, startModels(t), []string{
		"models", "chat", "conversation", "errors", "failures", "pauses", "responses", "background", "compatible", "aisdk",
	}, "node", script)
}

// inPackages returns a copy of the program's client.mjs that finds its packages beside it.
func inPackages(t *testing.T, name string) string {
	t.Helper()
	dir, work := program(t, name), t.TempDir()
	text, err := os.ReadFile("testdata/" + name + "/client.mjs")
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(work, "client.mjs")
	if err := os.WriteFile(script, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "node_modules"), filepath.Join(work, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return script
}
