package cli

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

func TestServeAnswersScrapesAtAnAddressOfTheirOwn(t *testing.T) {
	t.Parallel()
	file := writeConfig(t, "id: test-os\nagents: [{id: a, model: 'demo:x'}]\n")
	out := &printed{parts: make(chan string, 1000)}
	args := []string{
		"serve", "--dev", "--addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0", "--config", file, "--data", t.TempDir(),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	vars := map[string]string{"DATABASE_URL": storetest.URL(t)}
	ended.Go(func() {
		if code := Run(ctx, args, Options{Stderr: out, LookupEnv: testEnv(vars).lookup}); code != 0 {
			t.Errorf("keyway serve exits %d", code)
		}
	})
	t.Cleanup(func() { cancel(); ended.Wait() })
	api := out.await(t, `at (http://127\.0\.0\.1:\d+)  \(development`)[1]
	token := out.await(t, `export TOKEN=(\S+)`)[1]
	metrics := out.await(t, `metrics at (http://127\.0\.0\.1:\d+/metrics)\n`)[1]
	if got := get(t, api+"/agents", token); got.Code != http.StatusOK {
		t.Errorf("GET /agents: %d", got.Code)
	}
	runOnce(t, api, token)
	text := get(t, metrics, "").Body.String()
	for _, want := range []string{
		`keyway_requests_total{route="GET /agents",status="200"} 1`,
		`keyway_runs_total{agent="a",status="COMPLETED"} 1`, `keyway_model_calls_total{model="x",outcome="ok"} 1`,
		"keyway_runs_in_progress 0", "keyway_runs_waiting 0", "keyway_runs_orphaned 0", "keyway_followers 0",
		`keyway_store_connections{state="limit"} 18`, `keyway_store_connections{state="used"} `,
		`keyway_lost{what="log lines"} 0`, `keyway_lost{what="spans"} 0`, "keyway_revocations_age_seconds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing:\n%s", want, text)
		}
	}
	for _, private := range []string{"ann", token} {
		if strings.Contains(text, private) {
			t.Errorf("the metrics have %.20s", private)
		}
	}
	if got := get(t, strings.TrimSuffix(metrics, "metrics")+"agents", token); got.Code != http.StatusNotFound {
		t.Errorf("the address of the metrics serves something else: %d", got.Code)
	}
}

// runOnce sends a message to the agent a and waits for the end of its run.
func runOnce(t *testing.T, api, token string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api+"/agents/a/runs",
		strings.NewReader("message=hi&stream=false"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := httptest.NewRecorder()
	if _, err := got.Body.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %v %s", resp.StatusCode, err, got.Body)
	}
}

// Scrapes can't load the database, and show the previous numbers while it does not answer.
func TestScrapesReadTheBacklogOnceInTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reads, down := 0, false
		b := &backlog{read: func(context.Context) (store.Backlog, error) {
			if reads++; down {
				return store.Backlog{}, errors.New("down")
			}
			return store.Backlog{Waiting: reads}, nil
		}}
		scrape := func(after time.Duration, reread, waiting int) {
			t.Helper()
			time.Sleep(after)
			if got := b.now().Waiting; got != waiting || reads != reread {
				t.Errorf("%d runs wait after %d reads, want %d after %d", got, reads, waiting, reread)
			}
		}
		scrape(0, 1, 1)
		scrape(9*time.Second, 1, 1)
		scrape(time.Second, 2, 2)
		down = true
		scrape(10*time.Second, 3, 2)
	})
}

func TestAServerDeletesWhatIsTooOldEachHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var last time.Time
		sweeps, began := 0, time.Now()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			last = began
			sweepOften(ctx, func(context.Context) {
				sweeps++
				if wait := time.Since(last); wait < 30*time.Minute || wait > 90*time.Minute {
					t.Errorf("it waited for %s", wait)
				}
				last = time.Now()
			})
		}()
		time.Sleep(100 * time.Hour)
		stop()
		<-ended
		if sweeps < 85 || sweeps > 115 {
			t.Errorf("%d times in 100 hours", sweeps)
		}
	})
}
