package programs

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// whatIsTried is what all servers of tools have in common in docs/tried.md.
const whatIsTried = "results and errors of tools, integers above 2^53 in both directions, progress beyond " +
	"`timeout`, a restart"

var _ = tried(entry{
	program: "FastMCP 4 and Python's MCP SDK 2, servers of tools", name: "python-mcp-new",
	pkgs:  []string{"fastmcp", "mcp"},
	tried: whatIsTried,
	not:   "They have no sessions, and fail a tool that asks for roots, a model or a person",
	date:  "2026-11-29",
})

var _ = tried(entry{
	program: "FastMCP 2 and Python's MCP SDK 1, servers of tools", name: "python-mcp-old",
	pkgs:  []string{"fastmcp", "mcp"},
	tried: whatIsTried + ", a session that ends when it is idle, questions for roots and a model's answer",
	date:  "2026-11-29",
})

var _ = tried(entry{
	program: "TypeScript's MCP SDKs, 1 and 2, servers of tools", name: "typescript-mcp",
	pkgs: []string{"@modelcontextprotocol/sdk", "@modelcontextprotocol/server"},
	tried: "results and errors of tools, a summary beside structured content, a union as parameters, progress beyond " +
		"`timeout`, a stream that is closed on purpose, questions for roots and a model's answer, a restart",
	not:  "JavaScript itself changes integers above 2^53",
	date: "2026-11-29",
})

// toolServers holds the servers of tools by the ids of their agents.
var toolServers = map[string]struct {
	name, kind string
	sessions   bool
}{
	"fastmcp-4": {"python-mcp-new", "fastmcp", false}, "mcp-2": {"python-mcp-new", "mcp", false},
	"fastmcp-2": {"python-mcp-old", "fastmcp", true}, "mcp-1": {"python-mcp-old", "mcp", true},
	"typescript-1": {"typescript-mcp", "sdk", true}, "typescript-2": {"typescript-mcp", "server", false},
}

// toolServer is a server of tools that can be restarted at its address.
type toolServer struct {
	agent   string
	command []string
	vars    []string
	url     string
	now     *daemon
}

// newToolServer starts the server of an agent.
func newToolServer(t *testing.T, agent string) *toolServer {
	t.Helper()
	c := toolServers[agent]
	dir := program(t, c.name)
	address, port := freeAddress(t)
	s := &toolServer{agent: agent, url: "http://" + address + "/mcp", vars: []string{"PROGRAM=" + dir, "COLUMNS=300"}}
	if c.name == "typescript-mcp" {
		s.command = []string{"node", "testdata/typescript-mcp/server.mjs", c.kind, port}
	} else {
		s.command = []string{filepath.Join(dir, "bin", "python"), "testdata/" + c.name + "/server.py", c.kind, port}
	}
	s.now = launch(t, s.vars, s.command[0], s.command[1:]...)
	return s
}

// calls runs the agent with a message that makes its model call a tool, and returns the result
// of the tool. The run is streamed, and the events, the answer and the stored run have to agree.
func (s *toolServer) calls(t *testing.T, r *process.Server, tool, arguments string) string {
	t.Helper()
	session := fmt.Sprintf("%s-%s-%d", s.agent, tool, time.Now().UnixNano())
	got := ask(t, r, s.agent, session, true, "call tool "+tool+" "+arguments)
	if got.Status != "COMPLETED" || len(got.Tools) != 1 {
		t.Errorf("%s: %+v", tool, got)
		return ""
	}
	found := got.Tools[0].Result
	if !strings.Contains(got.Content, strings.Fields(found + " ?")[0]) {
		t.Errorf("%s: the model received %q, the event has %q", tool, got.Content, found)
	}
	quoted, err := json.Marshal(found)
	if err != nil {
		t.Fatal(err)
	}
	r.Get("admin", "/sessions/"+session+"/runs").Want(t, "the stored run", 200, `"result":`+string(quoted))
	return found
}

func TestRealServersOfTools(t *testing.T) {
	t.Parallel()
	servers := map[string]*toolServer{}
	yaml := "agents:\n"
	for agent := range toolServers {
		servers[agent] = newToolServer(t, agent)
		yaml += fmt.Sprintf("  - {id: %s, model: \"openai:stub\", tools: [{mcp: {url: %q, timeout: 2s}}]}\n",
			agent, servers[agent].url)
	}
	model := modeltest.NewServerFunc(t, func(req modeltest.Request) modeltest.Script {
		checkParameters(t, req.Body["tools"])
		return modeltest.Commands{}.Obey(req)
	})
	r := serve(t, yaml, model)
	for agent, s := range servers {
		t.Run(agent, func(t *testing.T) {
			t.Parallel()
			s.now.awaitHTTP(t, s.url)
			s.check(t, r)
		})
	}
}

// checkParameters checks the schemas of the tools in a request to the model.
func checkParameters(t *testing.T, tools any) {
	t.Helper()
	list, _ := tools.([]any)
	for _, one := range list {
		f, _ := one.(map[string]any)["function"].(map[string]any)
		parameters, _ := f["parameters"].(map[string]any)
		if parameters["type"] != "object" || parameters["properties"] == nil || parameters["anyOf"] != nil ||
			parameters["$schema"] != nil {
			t.Errorf("the tool %v has the parameters %v", f["name"], parameters)
		}
	}
}

// check calls the tools of a server.
func (s *toolServer) check(t *testing.T, r *process.Server) {
	c := toolServers[s.agent]
	python := c.name != "typescript-mcp"
	want := map[string]string{`echo {"text":"größe 日本"}`: "größe 日本", "raises {}": "the kettle is empty"}
	if python {
		want["order {}"] = "9007199254740993"
		want[`number {"n":9007199254740993}`] = "n is 9007199254740993"
		want["slow {}"] = "slow but done"
	} else {
		want[`shape {"kind":"square","side":2}`] = "a square"
		want["summary {}"] = "2 orders\n{\"orders\":[7,8]}"
	}
	if s.agent == "mcp-2" {
		want["raises {}"] = "Error executing tool raises" // it keeps the reason to itself
	}
	if c.sessions {
		want["roots {}"], want["sample {}"] = "0 roots", "does not support sampling"
		want["slow {}"] = "slow but done"
	}
	if s.agent == "typescript-1" {
		want["closes {}"] = "after the stream was closed"
	}
	for call, result := range want {
		tool, arguments, _ := strings.Cut(call, " ")
		if got := s.calls(t, r, tool, arguments); !strings.Contains(got, result) {
			t.Errorf("%s: %q, want %q", call, got, result)
		}
	}
	const hi = `{"text":"hi"}`
	if s.agent == "mcp-1" {
		s.now.output.Await(regexp.MustCompile("Session .* idle timeout"))
		for range 2 { // the second run lists the tools again
			if got := s.calls(t, r, "echo", hi); got != "hi" {
				t.Errorf("after the session had ended: %q", got)
			}
		}
	}
	s.now.kill()
	got := s.calls(t, r, "echo", hi)
	if !strings.Contains(got, "The tool server cannot be reached: the connection was refused") {
		t.Errorf("while it is stopped: %q", got)
	}
	s.now = launch(t, s.vars, s.command[0], s.command[1:]...)
	s.now.awaitHTTP(t, s.url)
	for range 2 {
		if got := s.calls(t, r, "echo", hi); got != "hi" {
			t.Errorf("after the restart: %q", got)
		}
	}
}
