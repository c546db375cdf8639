package api_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/wire"
)

func TestAgentsAreShownWithTheNamesOfTheirToolsAndNoKey(t *testing.T) {
	t.Parallel()
	shown := api.Describe(config.Agent{ID: "a", Tools: []config.Tool{
		{Name: "hackernews"},
		{MCP: &config.MCP{URL: "https://user:SECRET@docs.example.com/mcp?key=SECRET"}},
		{MCP: &config.MCP{URL: "https://x.example.com/mcp", Allow: []string{"search", "fetch"}}},
		{MCP: &config.MCP{}}, // a variable that this function does not need
	}}, wire.AgentModel{})
	want := &wire.AgentTools{Tools: []wire.AgentTool{
		{Name: "hackernews"}, {Name: "docs.example.com (MCP)"}, {Name: "search"}, {Name: "fetch"},
	}}
	if diff := cmp.Diff(want, shown.Tools); diff != "" {
		t.Error(diff)
	}
	if got := api.Describe(config.Agent{ID: "a"}, wire.AgentModel{}).Tools; got != nil {
		t.Errorf("an agent without tools has %+v", got)
	}
}
