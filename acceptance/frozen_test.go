package acceptance

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// A frozen PostgreSQL accepts connections and never answers, as after SIGSTOP or behind a
// firewall that drops packets.
func TestEveryRouteIsUnavailableWithinSecondsWhileTheDatabaseIsFrozen(t *testing.T) {
	t.Parallel()
	w, err := wiretap.Open(context.WithoutCancel(t.Context()), storetest.EmptyURL(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	model := modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script { return modeltest.Text("hello") })
	config := writeConfig(t, "user_isolation: true")
	h := &isolatedOS{server: startWith(t, process.WithTools, config, model, "DATABASE_URL", w.URL)}
	h.Tokens["ann"] = withEveryScope("ann")
	names := strings.NewReplacer("HERS", "gone", "ANN", "ann", "RUNNING", noRun, "RUN", noRun, "PAUSED", noRun,
		"MEMORY", noMemory, "HEX", strings.ReplaceAll(noRun, "-", ""))
	var wg sync.WaitGroup
	for range 8 { // so that the server has several connections, which were used just now
		wg.Go(func() { h.Get("ann", "/sessions").Want(t, "before", 200) })
	}
	wg.Wait()
	w.Freeze()
	thaw := sync.OnceFunc(w.Thaw)
	defer thaw()
	for _, a := range attempts {
		if a.route == route.MCPCall { // ann's token is not for the door
			continue
		}
		wg.Go(func() {
			start := time.Now()
			got := h.try("ann", a, names)
			got.Want(t, a.request, 503, "The database is not available")
			if took := time.Since(start); took > 8*time.Second || got.Header.Get("Retry-After") == "" {
				t.Errorf("%s: after %s with %v", a.request, took, got.Header)
			}
		})
	}
	wg.Wait()
	h.Get("-", "/health").Want(t, "the server itself", 200)
	thaw()
	h.Get("ann", "/sessions").Want(t, "after", 200)
	h.Run("ann", "assistant", "message", "hi", "stream", "false").Want(t, "a run", 200, "COMPLETED")
}
