package functions_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/queue/sqs/sqstest"
)

// CloudWatch makes metrics of these lines. The line of a run is there when its answer is complete, before the process
// is frozen.
func TestAFunctionWritesMetricsForCloudWatch(t *testing.T) {
	t.Parallel()
	s := newStack(t, sqstest.Start(t), modeltest.Text("one"), modeltest.Text("two"))
	s.environment = append(s.environment, "KEYWAY_METRICS=Keyway/test")
	runs := s.start("runs")
	body, headers := form("message", "MESSAGESECRET", "session_id", "SESSIONSECRET")
	runs.ask(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body}).
		want(t, "the run", 200, "RunCompleted")
	runs.ask(request{method: "POST", path: "/agents/a/runs", scopes: "agents:read", headers: headers, body: body}).
		want(t, "without the right", 403, "")
	body, headers = form("message", "hello", "session_id", "s", "background", "true", "stream", "false")
	runs.ask(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body}).
		want(t, "the run in the background", 202, "PENDING")
	worker := s.start("worker")
	s.delivers(worker, 1)
	runs.WaitForLog(`"RunStatus":"COMPLETED"`)
	runs.WaitForLog(`"Refusals":1`)
	worker.WaitForLog(`"RunStatus":"COMPLETED"`)
	const completed = `"Agent":"a","CostUSD":0,"InputTokens":\d+,"Model":"gpt-4o","OutputTokens":\d+,"RunErrors":0,` +
		`"RunStatus":"COMPLETED","RunTime":\d+,"Runs":1,"_aws":\{.*"Namespace":"Keyway/test"`
	const refused = `"Refusals":1,"Route":"[^"]*","Status":"403","_aws":\{.*"Dimensions":\[\["Status"\]\]`
	for _, c := range []struct {
		log, want string
	}{
		{fmt.Sprint(runs.Stderr), completed}, {fmt.Sprint(runs.Stderr), refused}, {fmt.Sprint(worker.Stderr), completed},
	} {
		if n := len(regexp.MustCompile(`(?m)^\{`+c.want).FindAllString(c.log, -1)); n != 1 {
			t.Errorf("%d lines are %s:\n%s", n, c.want, c.log)
		}
		for line := range strings.Lines(c.log) {
			if strings.Contains(line, `"_aws"`) && strings.Contains(line, "SECRET") {
				t.Errorf("a metric has what a caller sent: %s", line)
			}
		}
	}
}
