package config_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
)

func TestUnsupportedSettingsAreReported(t *testing.T) {
	t.Parallel()
	all := config.Agent{
		Tools: []config.Tool{{Name: "hackernews"}}, UpdateMemoryOnRun: true,
	}
	const want = "agents[1].update_memory_on_run: is not part of this version; leave it out"
	if got := config.Faults(config.Unsupported("agents[1]", all)).Error(); got != want {
		t.Errorf("%q", got)
	}
	enforced := config.Agent{AddHistoryToContext: true, Markdown: true, NumHistoryRuns: 3,
		Limits: config.Limits{TokensPerRun: 1}}
	if got := config.Unsupported("agents[1]", enforced); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
