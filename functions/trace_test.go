package functions_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/queue/sqs/sqstest"
	"github.com/keyway-agents/keyway/shared/trace/tracetest"
)

// Lambda freezes a process when its answer is complete. What is not sent by then may never be.
func TestAFunctionHasSentItsSpansWhenItsAnswerIsComplete(t *testing.T) {
	t.Parallel()
	c := tracetest.NewCollector(t)
	s := newStack(t, sqstest.Start(t), modeltest.Text("one"), modeltest.Text("two"))
	const trace = "0af7651916cd43dd8448eb211c80319c"
	body, headers := form("message", "hello", "session_id", "s")
	headers["Traceparent"] = "00-" + trace + "-b7ad6b7169203331-01"
	s.environment = append(s.environment, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL)
	runs := s.start("runs")
	runs.ask(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body}).
		want(t, "the run", 200, "RunCompleted")
	const first = "POST /agents/{agent_id}/runs\n  invoke_agent a COMPLETED\n    chat gpt-4o"
	if got := c.Tree(trace); got != first {
		t.Errorf("the trace is\n%s", got)
	}
	body, headers = form("message", "hello", "session_id", "s", "background", "true", "stream", "false")
	headers["Traceparent"] = "00-" + trace + "-b7ad6b7169203331-01"
	runs.ask(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body}).
		want(t, "the run in the background", 202, "PENDING")
	s.delivers(s.start("worker"), 1)
	if got := c.Tree(trace); got != first+"\n"+first {
		t.Errorf("the trace is\n%s", got)
	}
}
