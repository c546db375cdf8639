package run_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/run"
)

// The detail may repeat the conversation, so only the caller gets it.
func TestTheCauseOfAFailedModelCallIsLoggedWithoutItsDetail(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("unused"))
	failing := &scripted{answers: []answer{
		fails(fault.Public(fault.Upstream, "do not understand: my secret", errors.New("openai: status 400 Bad Request"))),
	}}
	log := &syncLog{}
	runner := newRunnerLogging(b.db, config.Agent{}, failing, log)
	list := b.collect(runner.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}))
	if got := *last(list).Result.Content; got != "do not understand: my secret" {
		t.Errorf("the caller gets %q", got)
	}
	text := log.String()
	if !strings.Contains(text, "a model call failed") || !strings.Contains(text, "status 400 Bad Request") ||
		!strings.Contains(text, last(list).Result.RunID) || strings.Contains(text, "secret") {
		t.Errorf("the log is %q", text)
	}
}
