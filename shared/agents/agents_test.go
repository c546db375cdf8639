package agents_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyway-agents/keyway/shared/agents"
	"github.com/keyway-agents/keyway/shared/config"
)

// The variable that Lambda sets is what closes the runtime: without it, the same
// redirect arrives.
func TestToolRedirectNeverReachesLambdaRuntimeAPI(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	runtime := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(runtime.Close)
	mcp := httptest.NewServer(http.RedirectHandler(runtime.URL, http.StatusTemporaryRedirect))
	t.Cleanup(mcp.Close)
	cfg := &config.Config{Agents: []config.Agent{{ID: "a", Model: config.Model{Provider: "demo"},
		Tools: []config.Tool{{MCP: &config.MCP{URL: config.URL(mcp.URL)}}}}}}
	cfg.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

	for address, reaches := range map[string]bool{strings.TrimPrefix(runtime.URL, "http://"): false, "": true} {
		reached.Store(0)
		lookup := func(name string) (string, bool) {
			return address, name == "AWS_LAMBDA_RUNTIME_API" && address != ""
		}
		agents, err := agents.Open(cfg, lookup)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := agents[0].Tools[0].Tools(t.Context()); err == nil {
			t.Error("a server that speaks no MCP has tools")
		}
		if got := reached.Load() > 0; got != reaches {
			t.Errorf("with the runtime at %q: reached %v", address, got)
		}
		_ = agents[0].Tools[0].Close()
	}
}
