package mcp_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool/mcp"
)

// The test lasts as long as a server may take to begin: 10 seconds.
func TestAServerThatDoesNotAnswerIsGivenUp(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	srv := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release) })
	set := open(t, mcp.Options{URL: srv.URL})
	began := time.Now()
	_, err := set.Tools(t.Context())
	took := time.Since(began)
	if fault.KindOf(err) != fault.Unavailable || took < 9*time.Second || took > 14*time.Second {
		t.Errorf("%v after %s", err, took)
	}
}
