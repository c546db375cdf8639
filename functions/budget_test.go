package functions_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// 64 requests of one caller wait for 20 instances of the function runs, each of which handles one request at a time.
// The authorizer has put the caller's limits into the context of each.
func TestInstancesOfAFunctionTogetherBeginExactlyAsManyRunsAsACallerMayHave(t *testing.T) {
	t.Parallel()
	const allowed, callers, instances = 10, 64, 20
	release := make(chan struct{})
	var scripts []modeltest.Script
	for range 2 * allowed {
		scripts = append(scripts, modeltest.Text("first").Wait(release).Text(" second"))
	}
	d := deploy(t, keyway, scripts...)
	var all []function
	for range instances {
		all = append(all, d.start("runs"))
	}
	body, headers := form("message", "hello")
	run := request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body,
		limits: limit.Limits{ConcurrentRuns: allowed}}
	for round := 1; round <= 2; round++ {
		requests := make(chan request, callers)
		for range callers {
			requests <- run
		}
		close(requests)
		answers := make(chan reply, callers)
		var done sync.WaitGroup
		for _, f := range all {
			done.Go(func() {
				for r := range requests {
					answers <- f.ask(r)
				}
			})
		}
		go func() { done.Wait(); close(answers) }() // Without an answer to each request, the test fails and doesn't wait.
		for range callers - allowed {
			got := <-answers
			got.want(t, "a run without a place", 429,
				`"limit":{"name":"concurrent_runs","of":"caller","limit":10,"used":10,"left":0}`)
			for name, want := range map[string]string{
				"Retry-After": "2", "Ratelimit": `"concurrent_runs";r=0;t=2`,
				"Ratelimit-Policy": `"concurrent_runs";q=10;qu="concurrent-runs"`,
			} {
				if value := strings.Join(got.MultiValueHeaders[name], ","); value != want {
					t.Errorf("%s is %q, want %q", name, value, want)
				}
			}
		}
		if n := query(t, d.owner, "SELECT count(*) FROM keyway.runs"); n != fmt.Sprint(round*allowed) {
			t.Fatalf("%s runs have begun, want %d", n, round*allowed)
		}
		for range allowed {
			select {
			case release <- struct{}{}:
			case <-time.After(2 * time.Minute):
				t.Fatal("no further run asks the model")
			}
		}
		for range allowed {
			got := <-answers
			got.want(t, "a run with a place", 200, "event: RunCompleted")
		}
		if n := len(d.model.Requests()); n != round*allowed {
			t.Errorf("the model was asked %d times", n)
		}
	}
}
