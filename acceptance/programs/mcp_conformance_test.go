package programs

import (
	"encoding/json"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

var _ = tried(entry{
	program: "MCP's conformance suite, for servers", name: "mcp-conformance",
	pkgs: []string{"@modelcontextprotocol/conformance"},
	tried: "all scenarios: each check about what this server has, in the versions 2025-11-25 and 2026-07-28, such as " +
		"`server/discover`, requests without a session, headers, caching of lists, the `Host` and `Origin` of another page",
	not: "the other scenarios need the suite's own tools, or prompts, resources, logging, completions and tasks, " +
		"which this server doesn't have",
	date: "2026-11-30",
})

// inapplicable are the scenarios, or checks of a scenario, that need what this server doesn't have. All others must
// pass.
var inapplicable = regexp.MustCompile(`^(` +
	// A tool of the suite by a fixed name and without arguments. An agent needs a message.
	`tools-call-|json-schema-2020-12|elicitation-|input-required-|server-sse-polling|http-custom-header-|` +
	`server-stateless sep-2575-(server-rejects-undeclared-capability|missing-capability-http-400|` +
	`http-server-no-independent-requests-on-stream|server-no-log-without-loglevel)$|` +
	// Prompts, resources, logging, completions and tasks.
	`prompts-|resources-|logging-|completion-|tasks-|caching sep-2549-(prompts|resources)-)`)

// applicable are scenarios that must have passed checks.
var applicable = []string{
	"server-initialize", "server-stateless", "ping", "tools-list", "caching", "dns-rebinding-protection",
	"http-header-validation",
}

func TestMCPsConformanceSuiteFindsNoFault(t *testing.T) {
	t.Parallel()
	dir, results := program(t, "mcp-conformance"), t.TempDir()
	proxy := httputil.ReverseProxy{FlushInterval: -1}
	front := httptest.NewServer(&proxy)
	defer front.Close()
	// The suite sends no token. It asks with the Host and the Origin of a local page, and of another one.
	r := serve(t, "public_url: "+front.URL+`
agents:
  - {id: assistant, model: "openai:stub"}
`, modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script { return modeltest.Text("fine") }))
	to, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	token := mcpToken(t, &process.Server{URL: front.URL}, "ann", "agents:run")
	proxy.Rewrite = func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.Out.Host = p.In.Host
		p.Out.Header.Set("Authorization", "Bearer "+token)
	}
	cmd := exec.CommandContext(t.Context(), "node", "testdata/mcp-conformance/run.mjs", dir, "server", "--url",
		front.URL+"/mcp", "--suite", "all", "-o", results)
	out, err := cmd.CombinedOutput() // it fails for the scenarios that aren't applicable
	files, err2 := filepath.Glob(results + "/*/checks.json")
	if err2 != nil || len(files) < 60 {
		t.Fatalf("%d scenarios, %v, %v: %.2000s", len(files), err, err2, out)
	}
	passed := map[string]int{}
	for _, file := range files {
		name := strings.TrimPrefix(filepath.Base(filepath.Dir(file)), "server-")
		name = regexp.MustCompile(`-20\d\d-\d\d-\d\dT.*`).ReplaceAllString(name, "")
		var checks []struct{ ID, Status, ErrorMessage string }
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &checks)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			switch {
			case c.Status == "SUCCESS":
				passed[name]++
			case c.Status == "FAILURE" && !inapplicable.MatchString(name+" "+c.ID):
				t.Errorf("%s, %s: %s", name, c.ID, c.ErrorMessage)
			}
		}
	}
	for _, name := range applicable {
		if passed[name] == 0 {
			t.Errorf("no check of %s has passed: %v", name, passed)
		}
	}
}
