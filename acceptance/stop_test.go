package acceptance

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// It takes as long as a server has patience with its runs.
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
	if err := first.stop(); err != nil {
		t.Error(err)
	}
	if events := run.readToEnd(); !strings.HasSuffix(events, "RunContent") || !strings.Contains(run.text, ": the run goes on") {
		t.Errorf("the stream ends with %s\n%s", events, run.text)
	}
	second.awaitStatus("ann", run.runID, "COMPLETED").want(t, "the run", 200, `"content":"done"`)
	resumed := second.call("ann", "POST", "/agents/assistant/runs/"+run.runID+"/resume", nil)
	if got := names(frames(t, resumed.body)); got != "replay RunStarted ModelRequestStarted RunContent RunContent ModelRequestCompleted RunContentCompleted RunCompleted" {
		t.Errorf("resume tells %s", got)
	}
	if said := first.stderr.String(); !strings.Contains(said, "runs that did not end in time: 1; another keyway serve, or the next one here, continues them") {
		t.Error(said)
	}
}
