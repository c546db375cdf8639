package acceptance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Without --dev nobody can make the server sign a token.
func TestAServerWithoutDevSignsNoTokens(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	for _, path := range []string{"/dev/token", "/dev/sign-in"} {
		body := `{"scopes":["agent_os:admin"],"code":""}`
		got := r.Call("admin", "POST", path, strings.NewReader(body), "Content-Type", "application/json", "Origin", r.URL)
		got.Want(t, path, 404, `{"detail":"Not Found"}`)
	}
	r.Get("ann", "/decisions").Want(t, "decisions for another caller", 403, `"missing":["agent_os:admin"]`)
	r.json("ann", "POST", "/diff", "").Want(t, "a comparison for another caller", 403, `"missing":["agent_os:admin"]`)
	if strings.Contains(r.Log(), "#code=") {
		t.Errorf("the server has printed a code:\n%s", r.Log())
	}
}

func TestAnAdministratorReadsTheNewestDecisions(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	read := func(query string) (lines []map[string]any, next string) {
		t.Helper()
		var out struct {
			Decisions []map[string]any
			Next      string
		}
		got := r.Get("admin", "/decisions"+query)
		got.Want(t, "decisions"+query, 200)
		if err := json.Unmarshal([]byte(got.Body), &out); err != nil {
			t.Fatal(err)
		}
		return out.Decisions, out.Next
	}
	_, begin := read("")
	r.Get("ann", "/agents").Want(t, "allowed", 200)
	r.Run("ann", "finance-agent", "message", "hi").Want(t, "denied", 403)
	lines, next := read("?after=" + begin)
	if len(lines) != 2 || lines[0]["allow"] != true || lines[0]["route"] != "GET /agents" || lines[1]["allow"] != false ||
		lines[1]["agent"] != "finance-agent" || lines[1]["principal"] == "" || lines[1]["time"] == "" {
		t.Errorf("%v", lines)
	}
	// A page reads the log again and again, and that is no line of it.
	if lines, again := read("?after=" + next); len(lines) != 0 || again != next {
		t.Errorf("%v, %s after %s", lines, again, next)
	}
	if lines, _ := read("?limit=1"); len(lines) != 1 || lines[0]["allow"] != false {
		t.Errorf("the newest line: %v", lines)
	}
	r.Get("admin", "/decisions?limit=1001").Want(t, "more than the bound", 422, `"loc":["query","limit"]`)
	text, err := os.ReadFile(filepath.Join(r.Data, "decisions.jsonl"))
	if err != nil || strings.Contains(string(text), "GET /decisions") {
		t.Errorf("%v\n%s", err, text)
	}
}

// The file is text of a caller: nothing that it names is read, opened or fetched.
func TestAnAdministratorComparesAnotherFileWithTheDecisions(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	r.Run("ann", "assistant", "message", "hi").Want(t, "allowed", 200)
	r.Run("ann", "finance-agent", "message", "hi").Want(t, "denied", 403)
	compare := func(file string) string {
		t.Helper()
		got := r.Call("admin", "POST", "/diff", strings.NewReader(file), "Content-Type", "application/yaml")
		got.Want(t, "compare", 200)
		return got.Body
	}
	const agents = "agents: [{id: assistant, model: 'openai:x'}, {id: finance-agent, model: 'openai:x'}]\n"
	same := "id: os\n" + agents
	if got := compare(same); !strings.Contains(got, `"gains":[],"loses":[],"replayed":`) {
		t.Errorf("the same rules: %s", got)
	}
	mapped := "id: os\nauth: {scope_mappings: {'POST /agents/*/runs': ['agents:read']}}\n" + agents
	if got := compare(mapped); !strings.Contains(got, `"gains":[{"verdict":"newly allowed",`+
		`"request":"POST /agents/{agent_id}/runs","agent":"finance-agent","callers":1,"count":1,"needs":["agents:read"],`+
		`"missing":[],"was_missing":["agents:finance-agent:run"],"mapping":"POST /agents/*/runs"}],"loses":[]`) {
		t.Errorf("a wider mapping: %s", got)
	}
	closed := "id: os\nauth: {scope_mappings: {'POST /agents/*/runs': ['app:run']}}\n" + agents
	if got := compare(closed); !strings.Contains(got, `"gains":[],"loses":[{"verdict":"newly refused",`+
		`"request":"POST /agents/{agent_id}/runs","agent":"assistant"`) {
		t.Errorf("a narrower mapping: %s", got)
	}
	// JWT_VERIFICATION_KEY is set in the environment of the server.
	unread := "id: os\nauth: {algorithms: [RS256], keys: ['${JWT_VERIFICATION_KEY}', {jwks_file: /etc/passwd}, " +
		"{jwks_url: 'https://127.0.0.1:1/keys'}]}\n" + agents
	if got := compare(unread); !strings.Contains(got, `"replayed":`) {
		t.Errorf("keys that nobody reads: %s", got)
	}
	for file, want := range map[string]string{
		"id: os\nauth: {admin_scope: '${JWT_VERIFICATION_KEY}'}\n" + agents: "auth.admin_scope needs the variable " +
			"JWT_VERIFICATION_KEY, and no variable is expanded here",
		"id: os\nagents: [{id: a, model: 'x:y', unknown: 1}]\n": "keyway.yaml:2",
		"": "keyway.yaml",
	} {
		got := r.Call("admin", "POST", "/diff", strings.NewReader(file), "Content-Type", "application/yaml")
		got.Want(t, "a wrong file", 422, want)
	}
	large := strings.NewReader(same + "# " + strings.Repeat("x", 256<<10))
	r.Call("admin", "POST", "/diff", large, "Content-Type", "application/yaml").
		Want(t, "a large file", 413, "The file is larger than 256 KB")
}
