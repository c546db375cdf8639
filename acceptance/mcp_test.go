package acceptance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// startMCP starts an OS at a public address with a stage. Its tokens are for the audience api, and doors is its section
// of that name.
func startMCP(t *testing.T, doors string) *server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keyway.yaml")
	err := os.WriteFile(file, []byte(`id: quickstart
public_url: https://os.test/prod
doors: `+doors+`
auth:
  keys:
    - {key: "${JWT_VERIFICATION_KEY}", issuer: "https://login.example.com", audience: [api]}
agents:
  - {id: assistant, model: "openai:gpt-4o"}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r := startWith(t, process.WithTools, file, modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		return modeltest.Text("fine")
	}))
	for sub, aud := range map[string]string{
		"api": `"api"`, "door": `"https://os.test/prod/mcp"`, "both": `["api","https://os.test/prod/mcp"]`,
		"old": `"https://old.test/mcp"`, "else": `["https://os.test/prod","https://evil.test/mcp"]`,
	} {
		r.Tokens[sub] = hmacForge("HS256", config.PublishedSecret).token(payload("sub", `"`+sub+`"`, "aud", aud,
			"iss", `"https://login.example.com"`, "scopes", `["agents:read","agents:run"]`))
	}
	return r
}

// call sends a message of a client with the token of sub.
func call(r *server, sub string, a ask, header ...string) process.Reply {
	return r.Call(sub, a.method, a.path, strings.NewReader(a.body), append(a.header, header...)...)
}

const metadata = "/.well-known/oauth-protected-resource"

func TestAClientOfMCPFindsOutWhereToGetATokenForTheDoor(t *testing.T) {
	t.Parallel()
	r := startMCP(t, "{}")
	for _, path := range []string{metadata, metadata + "/mcp"} {
		r.Call("-", "GET", path, nil, "Host", "evil.test", "X-Forwarded-Host", "evil.test").Want(t, path, 200,
			`{"resource":"https://os.test/prod/mcp","authorization_servers":["https://login.example.com"],`+
				`"bearer_methods_supported":["header"]}`)
	}
	const named = `, resource_metadata="https://os.test/prod/.well-known/oauth-protected-resource/mcp"`
	for sub, begins := range map[string]string{
		"-": `Bearer realm="agentos"`, "else": `Bearer realm="agentos", error="invalid_token"`,
	} {
		got := call(r, sub, asksMCP("tools/list", "", map[string]any{}), "Host", "evil.test")
		challenge := got.Header.Get("WWW-Authenticate")
		if got.Status != 401 || !strings.HasPrefix(challenge, begins) || !strings.HasSuffix(challenge, named) {
			t.Errorf("%s: %d %q", sub, got.Status, challenge)
		}
	}
	for origin, status := range map[string]int{"https://os.test": 200, "http://evil.test": 403, r.URL: 403} {
		_, host, _ := strings.Cut(origin, "://")
		got := call(r, "door", asksMCP("tools/list", "", map[string]any{}), "Host", host, "Origin", origin)
		got.Want(t, "a page of "+origin+", which is also the Host", status)
	}
	for _, other := range []string{"/agents", "/v1/models"} { // a token of that document would not open them
		got := r.Get("-", other)
		if challenge := got.Header.Get("WWW-Authenticate"); got.Status != 401 || challenge != `Bearer realm="agentos"` {
			t.Errorf("%s: %d %q", other, got.Status, challenge)
		}
	}
	got := call(r, "door", callsTool("nobody", "", map[string]any{"message": "m"}))
	got.Want(t, "an agent that doesn't exist", 200, "unknown tool")
	r.Get("-", "/info").Want(t, "the description for AgentOS's command", 200, `"mcp":{"enabled":true,"path":"/mcp",`+
		`"oauth":{"authorization_servers":["https://login.example.com"],"resource":"https://os.test/prod/mcp"},`)
}

func TestATokenOpensTheDoorOnlyIfItsAudienceNamesIt(t *testing.T) {
	t.Parallel()
	r := startMCP(t, `{mcp: {audience: ["https://old.test/mcp"]}}`)
	for sub, want := range map[string]struct{ door, api, self int }{
		"api": {401, 200, 200}, "door": {200, 401, 200}, "old": {200, 401, 200}, "both": {200, 200, 200},
		"else": {401, 401, 401},
	} {
		got := call(r, sub, callsTool("assistant", "", map[string]any{"message": "m"}))
		if got.Status != want.door || want.door == 200 && !strings.Contains(got.Body, `"fine"`) {
			t.Errorf("%s at the door: %d %s", sub, got.Status, got.Body)
		}
		for path, status := range map[string]int{"/agents": want.api, "/agents/assistant": want.api, "/whoami": want.self} {
			if got := r.Get(sub, path); got.Status != status {
				t.Errorf("%s at %s: %d %s, want %d", sub, path, got.Status, got.Body, status)
			}
		}
		got = r.Run(sub, "assistant", "message", "m", "stream", "false")
		if got.Status != want.api {
			t.Errorf("%s runs the agent by AgentOS's route: %d %s", sub, got.Status, got.Body)
		}
	}
}

func TestAClosedDoorForMCPHasNoRoutes(t *testing.T) {
	t.Parallel()
	r := startMCP(t, "{mcp: {enabled: false}}")
	call(r, "api", asksMCP("tools/list", "", map[string]any{})).Want(t, "the door", 404)
	call(r, "door", asksMCP("tools/list", "", map[string]any{})).Want(t, "a token for the door", 401)
	r.Get("api", metadata+"/mcp").Want(t, "its description", 404)
	got := r.Get("-", "/agents")
	if challenge := got.Header.Get("WWW-Authenticate"); challenge != `Bearer realm="agentos"` {
		t.Errorf("%q", challenge)
	}
	r.Get("-", "/info").Want(t, "the description", 200, `"mcp":{"enabled":false,"path":null,"oauth":null,`)
}
