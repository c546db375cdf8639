package acceptance

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/trace/tracetest"
)

// The test lasts as long as a stopping server waits for its runs: 20 seconds.
func TestATraceShowsARunWithToolsAPauseAndAHandOver(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	never := make(chan struct{})
	defer close(never)
	model := modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		switch asked.Add(1) {
		case 1:
			return modeltest.Script{}.ToolCall("look_up", `{"what":"PROMPTSECRET"}`).ToolCall("transfer", `{"account":"x"}`)
		case 2:
			return modeltest.Text("first").Wait(never)
		}
		return modeltest.Text("ANSWERSECRET")
	})
	c, url := tracetest.NewCollector(t), storetest.EmptyURL(t)
	config := writeConfig(t, "user_isolation: true", "look_up", "transfer")
	env := []string{"DATABASE_URL", url, "OTEL_EXPORTER_OTLP_ENDPOINT", c.URL, "OTEL_BSP_SCHEDULE_DELAY", "50"}
	first := startWith(t, process.WithTools, config, model, env...)
	second := startWith(t, process.WithTools, config, model, env...)
	const trace = "0af7651916cd43dd8448eb211c80319c"
	parent := []string{"Traceparent", "00-" + trace + "-b7ad6b7169203331-01"}

	body, kind := process.Form(t, "message", "PROMPTSECRET", "session_id", "SESSIONSECRET", "stream", "false")
	paused := first.Call("ann", "POST", "/agents/assistant/runs", body, append(parent, "Content-Type", kind)...)
	paused.Want(t, "the run", 200, `"status":"PAUSED"`)
	run, call := field(t, paused, "run_id"), transfers(t, paused)["x"].ID
	body, kind = process.Form(t, "session_id", "SESSIONSECRET", "stream", "true",
		"tools", fmt.Sprintf(`[{"tool_call_id":%q,"confirmed":true}]`, call))
	resp := first.Open("ann", "POST", "/agents/assistant/runs/"+run+"/continue", body,
		append(parent, "Content-Type", kind)...)
	defer resp.Body.Close()
	for asked.Load() < 2 {
		time.Sleep(10 * time.Millisecond)
	}
	if err := first.Stop(); err != nil {
		t.Error(err)
	}
	const want = `POST /agents/{agent_id}/runs
  invoke_agent assistant PAUSED
    chat gpt-4o
    execute_tool look_up
POST /agents/{agent_id}/runs/{run_id}/continue
  invoke_agent assistant COMPLETED
    chat gpt-4o
  invoke_agent assistant HANDED_OVER
    chat gpt-4o model_provider_error
    execute_tool transfer`
	got := ""
	for end := time.Now().Add(process.Patience); got != want && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		got = c.Tree(trace)
	}
	if got != want {
		t.Errorf("the trace is\n%s\nwant\n%s", got, want)
	}
	for _, secret := range []string{"SECRET", "ann", second.Tokens["ann"][:40], `"account"`} {
		if strings.Contains(c.Received(), secret) {
			t.Errorf("the spans contain %q", secret)
		}
	}
	if n := strings.Count(first.Stderr.String(), `"trace_id":"`+trace+`"`); n != 2 {
		t.Errorf("%d lines of requests have the id of the trace:\n%s", n, first.Log())
	}
	for _, r := range model.Requests() {
		if sent := r.Header.Get("Traceparent"); !strings.HasPrefix(sent, "00-"+trace) {
			t.Errorf("the model gets the traceparent %q", sent)
		}
	}
}
