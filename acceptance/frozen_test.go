package acceptance

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
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
	h := &isolatedOS{server: startWith(t, withTools, writeConfig(t, "user_isolation: true"), model, "DATABASE_URL", w.URL)}
	names := strings.NewReplacer("HERS", "gone", "ANN", "ann", "RUNNING", noRun, "RUN", noRun, "PAUSED", noRun,
		"MEMORY", noMemory)
	var wg sync.WaitGroup
	for range 8 { // so that the server has several connections, which were used just now
		wg.Go(func() { h.get("ann", "/sessions").want(t, "before", 200) })
	}
	wg.Wait()
	w.Freeze()
	thaw := sync.OnceFunc(w.Thaw)
	defer thaw()
	for _, a := range attempts {
		wg.Go(func() {
			start := time.Now()
			got := h.try("ann", a, names)
			got.want(t, a.request, 503, "The database is not available")
			if took := time.Since(start); took > 8*time.Second || got.header.Get("Retry-After") == "" {
				t.Errorf("%s: after %s with %v", a.request, took, got.header)
			}
		})
	}
	wg.Wait()
	h.get("-", "/health").want(t, "the server itself", 200)
	thaw()
	h.get("ann", "/sessions").want(t, "after", 200)
	h.run("ann", "assistant", "message", "hi", "stream", "false").want(t, "a run", 200, "COMPLETED")
}
