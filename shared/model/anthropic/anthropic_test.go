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

// TestMain fails if a test leaves a goroutine running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnthropicPassesTheSuiteForProviders(t *testing.T) {
	t.Parallel()
	modeltest.Run(t, modeltest.Provider{Open: func(baseURL string, client *http.Client) model.Model {
		return anthropic.New(anthropic.Options{
			ID: "claude-sonnet-4-5", BaseURL: baseURL, APIKey: modeltest.APIKey, HTTPClient: client,
		})
	}})
}

// optionsFor returns options for srv. Their connections are closed when the test ends.
func optionsFor(t *testing.T, srv *modeltest.Server) anthropic.Options {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return anthropic.Options{
		ID: "claude-sonnet-4-5", BaseURL: srv.URL, APIKey: modeltest.APIKey,
		HTTPClient: &http.Client{Transport: transport},
	}
}

// answerOf returns the answer to "hello" of a server with these scripts.
func answerOf(t *testing.T, scripts ...modeltest.Script) modeltest.Answer {
	t.Helper()
	m := anthropic.New(optionsFor(t, modeltest.NewServer(t, scripts...)))
	return modeltest.Collect(t.Context(), t, m, modeltest.Ask("hello"))
}

// wholeAnswerOf returns the same for a request that permits an answer in one piece.
func wholeAnswerOf(t *testing.T, srv *modeltest.Server) modeltest.Answer {
	t.Helper()
	r := modeltest.Ask("hello")
	r.Whole = true
	return modeltest.Collect(t.Context(), t, anthropic.New(optionsFor(t, srv)), r)
}

func TestDescribeReturnsAgentOSNames(t *testing.T) {
	t.Parallel()
	want := model.Description{ID: "claude-sonnet-4-5", Name: "Claude", Provider: "Anthropic", Family: "Anthropic"}
	if diff := cmp.Diff(want, anthropic.New(anthropic.Options{ID: "claude-sonnet-4-5"}).Describe()); diff != "" {
		t.Error(diff)
	}
}
