package acceptance

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// startDocsServer starts an MCP server with the document's one tool, which answers with
// its query. It fails the test if a request carries a caller's token.
func startDocsServer(t *testing.T) string {
	t.Helper()
	type search struct {
		Query string `json:"query" jsonschema:"what to look for"`
	}
	s := sdk.NewServer(&sdk.Implementation{Name: "docs", Version: "1"}, nil)
	sdk.AddTool(s, &sdk.Tool{Name: "SearchAgno", Description: "Searches the documentation."},
		func(_ context.Context, _ *sdk.CallToolRequest, in search) (*sdk.CallToolResult, any, error) {
			return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "the page about " + in.Query}}}, nil, nil
		})
	h := sdk.NewStreamableHTTPHandler(func(r *http.Request) *sdk.Server {
		if got := r.Header.Get("Authorization"); got != "" {
			t.Errorf("the MCP server receives Authorization: %s", got)
		}
		return s
	}, nil)
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv.URL
}

// toolCallingModel is a model that calls a tool for each message of the user and answers
// with the tool's result.
func toolCallingModel(t *testing.T, tool, arguments string) *modeltest.Server {
	t.Helper()
	return modeltest.NewServerFunc(t, func(r modeltest.Request) modeltest.Script {
		messages, _ := r.Body["messages"].([]any)
		last, _ := messages[len(messages)-1].(map[string]any)
		if last["role"] == "tool" {
			return modeltest.Text("The tool says: ", fmt.Sprint(last["content"]))
		}
		return modeltest.ToolCall(tool, arguments)
	})
}

// toolNames returns the names of the tools in a request to the model, for Chat Completions
// and for Responses.
func toolNames(r modeltest.Request) string {
	var names []string
	list, _ := r.Body["tools"].([]any)
	for _, one := range list {
		spec, _ := one.(map[string]any)
		if f, chat := spec["function"].(map[string]any); chat {
			spec = f
		}
		names = append(names, fmt.Sprint(spec["name"]))
	}
	return strings.Join(names, " ")
}

// copyExample copies a file of an example and replaces texts in it: old, new, old, new, …
func copyExample(t *testing.T, example, name string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "examples", example, name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(text), replace[i]) {
			t.Fatalf("%s does not contain %q", name, replace[i])
		}
	}
	path := filepath.Join(t.TempDir(), "keyway.yaml")
	if err := os.WriteFile(path, []byte(strings.NewReplacer(replace...).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const docsURL = "https://docs.agno.com/mcp" // the document's MCP server

func TestDocumentAgentPermissions(t *testing.T) {
	t.Parallel()
	file := copyExample(t, "agent-permissions", "keyway.yaml", docsURL, startDocsServer(t))
	r := start(t, file, toolCallingModel(t, "SearchAgno", `{"query":"scopes"}`))
	r.Tokens = process.PyJWT(t, "agent-permissions")
	const web, agno = "web-search-agent", "agno-agent"

	// "agents:web-search-agent:run - Run only the web-search-agent", and so on.
	for sub, may := range map[string]map[string]bool{
		"user_123": {web: true}, "user_456": {agno: true}, "any_agent": {web: true, agno: true},
		"admin": {web: true, agno: true},
	} {
		for _, agent := range []string{web, agno} {
			got := r.Run(sub, agent, "message", "Hello")
			if may[agent] {
				got.Want(t, sub+" runs "+agent, 200, "event: RunCompleted")
			} else {
				got.Want(t, sub+" runs "+agent, 403, `"missing":["agents:`+agent+`:run"]`)
			}
		}
		// "GET /agents/{agent_id}: requires agents:read", "GET /sessions: requires
		// sessions:read", …: these tokens allow running and not reading.
		status := map[bool]int{true: 200, false: 403}[sub == "admin"]
		for _, path := range []string{"/agents", "/agents/" + web, "/sessions", "/memories", "/config"} {
			r.Get(sub, path).Want(t, sub+" reads "+path, status)
		}
	}
	for _, m := range r.Model.Requests() {
		want := map[any]string{"gpt-4o": "web_search search_news", "gpt-4.1": "SearchAgno"}[m.Body["model"]]
		if got := toolNames(m); got != want || want == "" {
			t.Errorf("%v is offered the tools %q, want %q", m.Body["model"], got, want)
		}
	}
}

// The document's agent calls the tool of the MCP server. With add_history_to_context, the
// second run's model receives the messages of the first run.
func TestDocumentAgentCallsItsMCPServerAndRemembers(t *testing.T) {
	t.Parallel()
	file := copyExample(t, "agent-permissions", "keyway.yaml", docsURL, startDocsServer(t))
	r := start(t, file, toolCallingModel(t, "SearchAgno", `{"query":"scopes"}`))
	r.Tokens = process.PyJWT(t, "agent-permissions")
	first := r.Run("user_456", "agno-agent", "message", "What are scopes?", "session_id", "s")
	first.Want(t, "the first run", 200)
	var result any
	for _, e := range process.Frames(t, first.Body) {
		if e.Name == "ToolCallCompleted" {
			tool, _ := e.Data["tool"].(map[string]any)
			result = tool["result"]
		}
	}
	if result != "the page about scopes" {
		t.Errorf("the tool's answer in the stream is %v", result)
	}
	r.Run("user_456", "agno-agent", "message", "And mappings?", "session_id", "s", "stream", "false").
		Want(t, "the second run", 200, `"content":"The tool says: the page about scopes"`)
	asked := r.Model.Requests() // two per run: the question, and the tool's result
	if len(asked) != 4 {
		t.Fatalf("the model was asked %d times, want 4", len(asked))
	}
	var received []string
	messages, _ := asked[2].Body["messages"].([]any)
	for _, m := range messages[1:] { // after the system message
		message, _ := m.(map[string]any)
		received = append(received, fmt.Sprintf("%v: %v", message["role"], message["content"]))
	}
	want := "user: What are scopes?|assistant: |tool: the page about scopes|assistant: The tool says: the page " +
		"about scopes|user: And mappings?"
	if got := strings.Join(received, "|"); got != want {
		t.Errorf("the model of the second run receives\n%s\nwant\n%s", got, want)
	}
}

// "Tokens must include aud claim matching the AgentOS ID". This is verify_audience in
// keyway.yaml. The document's own tokens have no aud claim.
func TestDocumentAgentPermissionsWithAudience(t *testing.T) {
	t.Parallel()
	file := copyExample(t, "agent-permissions", "keyway-with-audience.yaml", docsURL, startDocsServer(t))
	r := start(t, file, echoModel(t))
	const web = "web-search-agent"
	r.Tokens = process.PyJWT(t, "agent-permissions")
	r.Run("user_123", web, "message", "x").Want(t, "no aud", 401,
		`Token is missing the \"aud\" claim. Audience verification requires this claim`)
	r.Run("admin", web, "message", "x").Want(t, "an administrator without aud", 401)
	r.Tokens = process.PyJWT(t, "agent-permissions with aud")
	r.Run("stranger", web, "message", "x").Want(t, "another aud", 401,
		"Invalid token audience - token not valid for this AgentOS instance")
	for _, sub := range []string{"user_123", "one_of_two"} {
		r.Run(sub, web, "message", "x").Want(t, sub, 200, "event: RunCompleted")
		r.Run(sub, "agno-agent", "message", "x").Want(t, sub+" runs the other agent", 403)
	}
}
