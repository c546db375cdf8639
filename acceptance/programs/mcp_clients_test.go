package programs

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var _ = tried(entry{
	program: "Python's MCP SDK and FastMCP, clients", name: "mcp-client-python", pkgs: []string{"mcp", "fastmcp"},
	tried: "lists of two callers, a run, a pause (a form in version 2026-07-28, `continue_run` in older ones), cancel, " +
		"`get_run`, a refusal",
	date: "2026-11-30",
})

var _ = tried(entry{
	program: "TypeScript's MCP SDKs, 2 and 1, clients", name: "mcp-client-node",
	pkgs:  []string{"@modelcontextprotocol/client", "@modelcontextprotocol/sdk"},
	tried: "the same, and a login at oidc-provider from the first 401, and again when a scope is missing",
	date:  "2026-11-30",
})

// mcpClients are the clients by name, with their programs and arguments.
var mcpClients = map[string]struct {
	program, kind, mode string
	forms               bool
}{
	"Python mcp, 2026-07-28":   {"mcp-client-python", "mcp", "auto", true},
	"Python mcp, initialize":   {"mcp-client-python", "mcp", "legacy", false},
	"FastMCP":                  {"mcp-client-python", "fastmcp", "", true},
	"TypeScript 2, 2026-07-28": {"mcp-client-node", "client", "auto", true},
	"TypeScript 2, initialize": {"mcp-client-node", "client", "legacy", false},
	"TypeScript 1":             {"mcp-client-node", "sdk", "", false},
}

// mcpToken signs a token for the door of a server.
func mcpToken(t *testing.T, r *process.Server, sub string, scopes ...string) string {
	t.Helper()
	raw, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": sub, "scopes": scopes, "aud": r.URL + "/mcp", "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte(config.PublishedSecret))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// conversation is a client of testdata that is running.
type conversation struct {
	t     *testing.T
	in    io.Writer
	lines *bufio.Scanner
}

// converse starts a client.
func converse(t *testing.T, name, url string, vars ...string) *conversation {
	t.Helper()
	c := mcpClients[name]
	dir := program(t, c.program)
	command := []string{filepath.Join(dir, "bin", "python"), "testdata/" + c.program + "/client.py", c.kind, url, c.mode}
	if c.program == "mcp-client-node" {
		command = []string{"node", "testdata/" + c.program + "/client.mjs", dir, c.kind, url, c.mode}
	}
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = append(os.Environ(), vars...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", name, complaints.String())
		}
	})
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	return &conversation{t, in, lines}
}

// next returns the next line of the client.
func (c *conversation) next() string {
	c.t.Helper()
	if !c.lines.Scan() {
		c.t.Fatalf("the client has ended: %v", c.lines.Err())
	}
	return c.lines.Text()
}

// say sends a line to the client.
func (c *conversation) say(line string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.in, line); err != nil {
		c.t.Fatal(err)
	}
}

// seen is what a client has seen.
type seen struct {
	Tools, Asked, Scopes                                      []string
	Answer, Session, Paid, Cancelled, Fetched, Refused, Token string
}

func (c *conversation) seen() (out seen) {
	c.t.Helper()
	line := c.next()
	if err := json.Unmarshal([]byte(line), &out); err != nil {
		c.t.Fatalf("%v: %s", err, line)
	}
	return out
}

// mcpOS starts two servers with one database behind one address, which sends each request to the next one.
func mcpOS(t *testing.T) (r *process.Server, waiting <-chan struct{}) {
	t.Helper()
	began := make(chan struct{}, len(mcpClients))
	model := modeltest.NewServerFunc(t, func(req modeltest.Request) modeltest.Script {
		messages, _ := req.Body["messages"].([]any)
		last, _ := messages[len(messages)-1].(map[string]any)
		switch text := fmt.Sprint(last["content"]); {
		case strings.HasPrefix(text, "pay"):
			return modeltest.ToolCall("pay", `{"for":"tea"}`)
		case strings.HasPrefix(text, "wait"):
			began <- struct{}{}
			return modeltest.Text("a ").Wait(nil)
		default:
			return modeltest.Text("you said ", text)
		}
	})
	var next atomic.Int64
	var backs []*httputil.ReverseProxy
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		backs[int(next.Add(1))%len(backs)].ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	yaml := "public_url: " + front.URL + `
agents:
  - {id: assistant, model: "openai:stub", tools: [pay]}
  - {id: finance, model: "openai:stub"}
`
	r = serve(t, yaml, model)
	second := serve(t, yaml, model, "DATABASE_URL", r.DB)
	for _, address := range []string{r.URL, second.URL} {
		to, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		backs = append(backs, &httputil.ReverseProxy{
			FlushInterval: -1, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to) },
		})
	}
	r.URL = front.URL
	return r, began
}

func TestRealMCPClients(t *testing.T) {
	t.Parallel()
	for name, c := range mcpClients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program(t, c.program)
			r, waiting := mcpOS(t)
			scopes := []string{"agents:assistant:run", "agents:assistant:read", "sessions:read"}
			r.Tokens["carl"] = mcpToken(t, r, "carl", scopes...)
			client := converse(t, name, r.URL+"/mcp", "TOKEN="+r.Tokens["carl"])
			<-waiting
			list := r.Get("carl", "/agents/assistant/runs?session_id=waiting")
			var runs []struct {
				ID string `json:"run_id"`
			}
			if err := json.Unmarshal([]byte(list.Body), &runs); err != nil || len(runs) != 1 {
				t.Fatalf("%v %s", err, list.Body)
			}
			client.say(runs[0].ID)
			got := client.seen()
			if !slices.Equal(got.Tools, []string{"assistant", "get_run", "continue_run", "cancel_run"}) {
				t.Errorf("carl sees %q", got.Tools)
			}
			if !strings.HasPrefix(got.Answer, "you said hello") || got.Session == "" {
				t.Errorf("answer %q", got.Answer)
			}
			paid, asked := "paused, then completed", []string(nil)
			if c.forms {
				paid, asked = "completed", []string{`assistant wants to call pay with {"for":"tea"}. Is that allowed?`}
			}
			if got.Paid != paid || len(got.Asked) != len(asked) {
				t.Errorf("paid %q, asked %q", got.Paid, got.Asked)
			}
			if got.Cancelled != "cancelled" || got.Fetched != "cancelled" {
				t.Errorf("cancelled %q, fetched %q", got.Cancelled, got.Fetched)
			}
			if !strings.Contains(got.Refused, "agents:finance:run") {
				t.Errorf("refused with %q", got.Refused)
			}
		})
	}
}

// A client that knows nothing but the address learns from the 401 where its user logs in, for which resource, and from
// the 403 which scope to ask for. The token that it gets opens nothing but the door.
func TestRealMCPClientsLogInAtTheIssuerOfTheServer(t *testing.T) {
	t.Parallel()
	node := oidcProvider(t)
	for _, name := range []string{"TypeScript 2, 2026-07-28", "TypeScript 1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := identityOS(t, "\n    - discovery: "+node.url+"\n      http: true\n      audience: [urn:keyway]\n"+
				"      clients: [web]\n      claims: {scopes: scope}")
			client := converse(t, name, r.URL+"/mcp", "TOKEN=", "SCOPE=agents:read")
			for range 2 {
				address, ok := strings.CutPrefix(client.next(), "AUTHORIZE ")
				if !ok || !strings.HasPrefix(address, node.url+node.authorize+"?") {
					t.Fatalf("the client sends its user to %q", address)
				}
				to, err := url.Parse(address)
				if err != nil || to.Query().Get("resource") != r.URL+"/mcp" {
					t.Fatalf("%v: the client asks for a token for %q", err, to.Query().Get("resource"))
				}
				client.say(url.Values{"code": {node.logIn(t, "bob", address)}, "iss": {node.url}}.Encode())
			}
			got := client.seen()
			want := []string{"agents:read", "agents:web-search-agent:run"}
			if len(got.Scopes) != 2 || got.Scopes[0] != want[0] || !strings.Contains(got.Scopes[1], want[1]) {
				t.Errorf("the client asks for the scopes %q", got.Scopes)
			}
			if got.Answer == "" || !slices.Contains(got.Tools, "web-search-agent") {
				t.Errorf("%q, %q", got.Answer, got.Tools)
			}
			r.Tokens["mcp"] = got.Token
			r.Get("mcp", "/agents").Want(t, "the token at the API", 401, "audience")
			r.Get("mcp", "/whoami").Want(t, "the token about itself", 200, `"sub"`)
		})
	}
}
