package anthropic_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/anthropic"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// TestMain looks for what the tests left running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClaudeDoesWhatEveryModelMust(t *testing.T) {
	t.Parallel()
	modeltest.Run(t, func(t *testing.T, srv *modeltest.Server) model.Model {
		t.Helper()
		return anthropic.New(on(t, srv))
	})
}

// on are options for srv whose connections end with the test.
func on(t *testing.T, srv *modeltest.Server) anthropic.Options {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return anthropic.Options{ID: "claude-sonnet-4-5", BaseURL: srv.URL, APIKey: modeltest.APIKey, HTTPClient: &http.Client{Transport: transport}}
}

// hear is the answer to "hello" of a server with these scripts, asked once for each.
func hear(t *testing.T, scripts ...modeltest.Script) modeltest.Answer {
	t.Helper()
	return modeltest.Listen(t.Context(), t, anthropic.New(on(t, modeltest.NewServer(t, scripts...))), modeltest.Ask("hello"))
}

func TestItIsNamedAsAgentOSNamesIt(t *testing.T) {
	t.Parallel()
	want := model.Description{ID: "claude-sonnet-4-5", Name: "Claude", Provider: "Anthropic", Family: "Anthropic"}
	if diff := cmp.Diff(want, anthropic.New(anthropic.Options{ID: "claude-sonnet-4-5"}).Describe()); diff != "" {
		t.Error(diff)
	}
}
