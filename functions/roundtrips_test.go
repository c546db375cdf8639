package functions_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// A cold function needs three round trips for the connection (with a password and without TLS),
// one for the schema's version and one for the run's row with the history. A warm one needs the
// row, and a ping after a second without a query. No statement has a name, which can pin a
// connection of RDS Proxy.
func TestStreamedRunNeedsFewRoundTripsBeforeModel(t *testing.T) {
	t.Parallel()
	d := deploy(t, strings.Replace(keyway, `"model":"openai:gpt-4o"`,
		`"model":"openai:gpt-4o","add_history_to_context":true`, 1))
	var named, before, trips, connections atomic.Int64
	tap, err := wiretap.Open(t.Context(), d.db, func(m wiretap.Message) {
		if m.Name != "" {
			named.Add(1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tap.Close)
	d.model = modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		trips.Store(tap.Trips.Load() - before.Load())
		connections.Store(tap.Opened.Load())
		return modeltest.Text("one")
	})
	d.db = tap.URL
	f := d.start("runs")
	body, headers := form("message", "hello", "session_id", "s1")
	for _, row := range []struct {
		state string
		most  int64
	}{{"cold", 5}, {"warm", 2}} {
		trips.Store(0)
		before.Store(tap.Trips.Load())
		f.ask(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body}).want(t,
			row.state, 200, "event: RunCompleted")
		if n := trips.Load(); n == 0 || n > row.most || row.state == "cold" && connections.Load() != 1 {
			t.Errorf("%s: %d round trips over %d connections before the model is asked, want at most %d over one", row.state, n,
				connections.Load(), row.most)
		}
	}
	if n := named.Load(); n > 0 {
		t.Errorf("%d messages have a statement name", n)
	}
}
