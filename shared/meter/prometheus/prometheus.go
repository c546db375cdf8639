// Package prometheus keeps the numbers of package meter in the form that Prometheus scrapes. It decides the names of
// the metrics and bounds their labels.
package prometheus

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"

	"github.com/keyway-agents/keyway/shared/meter"
)

// Metrics are the metrics of a process. They implement meter.Sink and http.Handler.
type Metrics struct {
	set       *metrics.Set
	executing atomic.Int64

	mu sync.Mutex
	// seen are the values of each label.
	seen map[string]map[string]bool
}

// New returns metrics without any number.
func New() *Metrics {
	m := &Metrics{set: metrics.NewSet(), seen: map[string]map[string]bool{}}
	m.Gauge("keyway_runs_in_progress", func() float64 { return float64(m.executing.Load()) })
	return m
}

// Gauge adds a metric whose value is asked for by each scrape.
func (m *Metrics) Gauge(name string, value func() float64) { m.set.NewGauge(name, value) }

// maxValues is how many values a label can have. The names of tools come from MCP servers, which can have any number;
// further ones become "other".
const maxValues = 200

// label returns label="value".
func (m *Metrics) label(name, value string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	values := m.seen[name]
	if values == nil {
		values = map[string]bool{}
		m.seen[name] = values
	}
	if !values[value] && len(values) >= maxValues {
		value = "other"
	}
	values[value] = true
	return name + "=" + strconv.Quote(value)
}

// The upper bounds of the buckets of durations, in seconds.
var (
	short = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}
	long  = []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600}
)

func (m *Metrics) count(name, labels string) {
	m.set.GetOrCreateCounter(name + "{" + labels + "}").Inc()
}

func (m *Metrics) observe(name, labels string, bounds []float64, seconds float64) {
	m.set.GetOrCreatePrometheusHistogramExt(name+"{"+labels+"}", bounds).Update(seconds)
}

// Request implements meter.Sink.
func (m *Metrics) Request(r meter.Request) {
	route, status := m.label("route", r.Route), m.label("status", strconv.Itoa(r.Status))
	m.count("keyway_requests_total", route+","+status)
	m.observe("keyway_request_duration_seconds", route, short, r.Took.Seconds())
	if r.Refused() {
		m.count("keyway_refusals_total", status)
	}
}

// Run implements meter.Sink.
func (m *Metrics) Run(r meter.Run) {
	agent, model := m.label("agent", r.Agent), m.label("model", r.Model)
	m.count("keyway_runs_total", agent+","+m.label("status", r.Status))
	m.observe("keyway_run_duration_seconds", agent, long, r.Took.Seconds())
	for direction, n := range map[string]int64{"input": r.Input, "output": r.Output} {
		name := fmt.Sprintf("keyway_tokens_total{%s,%s,direction=%q}", agent, model, direction)
		m.set.GetOrCreateCounter(name).AddInt64(n)
	}
	if r.USD > 0 {
		m.set.GetOrCreateFloatCounter("keyway_cost_usd_total{" + agent + "," + model + "}").Add(r.USD)
	}
}

// ModelCall implements meter.Sink.
func (m *Metrics) ModelCall(c meter.ModelCall) {
	model := m.label("model", c.Model)
	m.count("keyway_model_calls_total", model+","+outcome(c.Failed))
	m.observe("keyway_model_call_duration_seconds", model, long, c.Took.Seconds())
	if c.First > 0 {
		m.observe("keyway_time_to_first_token_seconds", model, short, c.First.Seconds())
	}
}

// ToolCall implements meter.Sink.
func (m *Metrics) ToolCall(c meter.ToolCall) {
	tool := m.label("tool", c.Tool)
	m.count("keyway_tool_calls_total", tool+","+outcome(c.Failed))
	m.observe("keyway_tool_call_duration_seconds", tool, short, c.Took.Seconds())
}

func outcome(failed bool) string {
	if failed {
		return `outcome="error"`
	}
	return `outcome="ok"`
}

// Executing implements meter.Sink.
func (m *Metrics) Executing(change int) { m.executing.Add(int64(change)) }

// ServeHTTP answers a scrape.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	m.set.WritePrometheus(w)
}
