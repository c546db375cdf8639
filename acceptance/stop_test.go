package acceptance

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// The test lasts as long as a stopping server waits for its runs: 20 seconds.
func TestStoppedServerHandsOverItsRuns(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	never := make(chan struct{})
	defer close(never)
	model := modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		if asked.Add(1) == 1 {
			return modeltest.Text("first").Wait(never)
		}
		return modeltest.Text("done")
	})
	url := storetest.EmptyURL(t)
	first := start(t, "quickstart", model, "DATABASE_URL", url)
	second := start(t, "quickstart", model, "DATABASE_URL", url)
	run := first.startStream("s", "first")
	if err := first.Stop(); err != nil {
		t.Error(err)
	}
	if events := run.readToEnd(); !strings.HasSuffix(events, "RunContent") ||
		!strings.Contains(run.text, ": the run continues") {
		t.Errorf("the stream ends with %s\n%s", events, run.text)
	}
	second.awaitStatus("ann", run.runID, "COMPLETED").Want(t, "the run", 200, `"content":"done"`)
	resumed := second.Call("ann", "POST", "/agents/assistant/runs/"+run.runID+"/resume", nil)
	const want = "replay RunStarted ModelRequestStarted RunContent RunContent ModelRequestCompleted " +
		"RunContentCompleted RunCompleted"
	if got := process.Names(process.Frames(t, resumed.Body)); got != want {
		t.Errorf("resume sends the events %s", got)
	}
	if log := first.Stderr.String(); !strings.Contains(log,
		"runs that did not end in time: 1; another keyway serve, or the next one here, continues them") {
		t.Error(first.Log())
	}
}
