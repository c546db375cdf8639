// Package emf writes the numbers of package meter as lines that CloudWatch reads as metrics, in its embedded metric
// format. It decides which numbers a deployment has: few, because each is paid for, and without the names of agents as
// a dimension.
package emf

import (
	"encoding/json"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/meter"
)

// Variable is the environment variable that names the namespace of the metrics. Without it there are none.
const Variable = "KEYWAY_METRICS"

// Metrics implements meter.Sink.
type Metrics struct {
	// Namespace is CloudWatch's name of the group of metrics. Required.
	Namespace string
	// To receives the lines. Required.
	To io.Writer
	// Now returns the time of a line. Required.
	Now func() time.Time

	mu sync.Mutex
}

// unit is a metric with its unit.
type unit struct {
	Name string
	Unit string
}

// directive says which members of a line are metrics.
type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []unit
}

// units has the metrics and their units.
var units = map[string]string{
	"Runs": "Count", "RunErrors": "Count", "InputTokens": "Count", "OutputTokens": "Count", "CostUSD": "None",
	"RunTime": "Milliseconds", "Refusals": "Count",
}

// write writes one line: the values of metrics, and properties that are none. dimension is a property, or "".
func (m *Metrics) write(names []string, dimension string, members map[string]any) {
	d := directive{Namespace: m.Namespace, Dimensions: [][]string{{}}}
	if dimension != "" {
		d.Dimensions = [][]string{{dimension}}
	}
	for _, name := range names {
		d.Metrics = append(d.Metrics, unit{name, units[name]})
	}
	members["_aws"] = map[string]any{"Timestamp": m.Now().UnixMilli(), "CloudWatchMetrics": []directive{d}}
	line, err := json.Marshal(members)
	if err != nil {
		return // All members are numbers and texts.
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = m.To.Write(append(line, '\n')) // Without its standard output a function has no log either.
}

// Request implements meter.Sink.
func (m *Metrics) Request(r meter.Request) {
	if r.Refused() {
		m.write([]string{"Refusals"}, "Status", map[string]any{
			"Refusals": 1, "Status": strconv.Itoa(r.Status), "Route": r.Route,
		})
	}
}

// Run implements meter.Sink.
func (m *Metrics) Run(r meter.Run) {
	failed := 0
	if r.Status == "ERROR" {
		failed = 1
	}
	m.write([]string{"Runs", "RunErrors", "InputTokens", "OutputTokens", "CostUSD", "RunTime"}, "", map[string]any{
		"Runs": 1, "RunErrors": failed, "InputTokens": r.Input, "OutputTokens": r.Output, "CostUSD": r.USD,
		"RunTime": r.Took.Milliseconds(), "Agent": r.Agent, "Model": r.Model, "RunStatus": r.Status,
	})
}

// ModelCall implements meter.Sink. Its numbers are in those of the run.
func (m *Metrics) ModelCall(meter.ModelCall) {}

// ToolCall implements meter.Sink. Its numbers are in those of the run.
func (m *Metrics) ToolCall(meter.ToolCall) {}

// Executing implements meter.Sink. Lambda counts what executes.
func (m *Metrics) Executing(int) {}
