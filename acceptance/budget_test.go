package acceptance

import (
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// One caller asks two servers with one database for 64 runs at the same time. When the first runs have ended, there are
// as many places again.
func TestTwoServersTogetherBeginExactlyAsManyRunsAsACallerMayHave(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	model, release := heldModel(t)
	file := writeConfig(t, `limits: {"*": {concurrent_runs: 10}}`, "hackernews")
	servers := []*server{start(t, file, model, "DATABASE_URL", url), start(t, file, model, "DATABASE_URL", url)}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	const allowed, each = 10, 32
	for round := 1; round <= 2; round++ {
		var ends []chan string
		var outcomes []chan outcome
		for _, r := range servers {
			o, e := r.crowd(each)
			outcomes, ends = append(outcomes, o), append(ends, e)
		}
		begun, all := 0, make(chan string, allowed)
		for i, some := range outcomes {
			here := 0
			for range each {
				if o := <-some; o.err != nil {
					t.Fatal(o.err)
				} else if o.status == http.StatusOK {
					here++
				} else {
					wantNoPlace(t, o)
				}
			}
			begun += here
			go func() {
				for range here {
					all <- <-ends[i]
				}
			}()
		}
		var stored int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM keyway.runs").Scan(&stored); err != nil {
			t.Fatal(err)
		}
		if begun != allowed || stored != round*allowed {
			t.Fatalf("%d of %d runs begin, and %d are stored, want %d and %d", begun, 2*each, stored, allowed, round*allowed)
		}
		for range begun {
			release <- struct{}{}
		}
		for range begun {
			if text := <-all; !strings.Contains(text, "event: RunCompleted") {
				t.Errorf("a run that began ends with %s", text)
			}
		}
		if asked := len(model.Requests()); asked != round*allowed {
			t.Errorf("the model was asked %d times", asked)
		}
	}
}

// wantNoPlace checks the answer to a caller who has ten runs in progress.
func wantNoPlace(t *testing.T, o outcome) {
	t.Helper()
	const limit = `"limit":{"name":"concurrent_runs","of":"caller","limit":10,"used":10,"left":0}`
	if o.status != http.StatusTooManyRequests || !strings.Contains(o.body, limit) {
		t.Errorf("%d %s, want 429 and %s", o.status, o.body, limit)
	}
	for name, want := range map[string]string{
		"Retry-After": "2", "RateLimit": `"concurrent_runs";r=0;t=2`,
		"RateLimit-Policy": `"concurrent_runs";q=10;qu="concurrent-runs"`,
	} {
		if got := o.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
