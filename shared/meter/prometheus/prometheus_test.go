package prometheus_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/meter"
	"github.com/keyway-agents/keyway/shared/meter/prometheus"
	"github.com/keyway-agents/keyway/shared/trace"
)

// scrape returns what Prometheus gets.
func scrape(t *testing.T, m *prometheus.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// The spans of package trace are what is counted, also if none is exported.
func TestEachMetricIsEmittedByTheSpansOfARun(t *testing.T) {
	t.Parallel()
	m := prometheus.New()
	tracer := meter.Tracer(trace.None().Tracer, m)
	web := trace.Requests(tracer, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/full" {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		trace.Route(r.Context(), r.Method, "/agents/{agent_id}/runs")
		ctx, leg := trace.Leg(r.Context(), tracer, trace.Run{AgentID: "a", Model: trace.Model{Provider: "openai", ID: "m"}})
		if text := scrape(t, m); !strings.Contains(text, "keyway_runs_in_progress 1\n") {
			t.Errorf("during a run: %s", text)
		}
		_, chat := trace.Chat(ctx, tracer, trace.Model{Provider: "openai", ID: "m"})
		trace.EndChat(chat, 100, 20, 1, false, 300*time.Millisecond)
		_, chat = trace.Chat(ctx, tracer, trace.Model{Provider: "openai", ID: "m"})
		trace.EndChat(chat, 0, 0, 0, true, 0)
		_, tool := trace.Tool(ctx, tracer, "echo", "c1")
		trace.EndTool(tool, true)
		trace.EndLeg(leg, "ERROR", "model_provider_error", 100, 20, 0.25)
		_, leg = trace.Leg(r.Context(), tracer, trace.Run{AgentID: "a"})
		trace.EndLeg(leg, trace.HandedOver, "", 7, 7, 7) // The process that continues it counts this.
	}))
	for _, path := range []string{"/agents/a/runs", "/full"} {
		web.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, path, nil))
	}
	text := scrape(t, m)
	for _, want := range []string{
		`keyway_requests_total{route="POST /agents/{agent_id}/runs",status="200"} 1`,
		`keyway_requests_total{route="",status="429"} 1`,
		`keyway_request_duration_seconds_count{route="POST /agents/{agent_id}/runs"} 1`,
		`keyway_refusals_total{status="429"} 1`,
		`keyway_runs_total{agent="a",status="ERROR"} 1`,
		`keyway_run_duration_seconds_count{agent="a"} 1`,
		`keyway_tokens_total{agent="a",model="m",direction="input"} 100`,
		`keyway_tokens_total{agent="a",model="m",direction="output"} 20`,
		`keyway_cost_usd_total{agent="a",model="m"} 0.25`,
		`keyway_model_calls_total{model="m",outcome="ok"} 1`,
		`keyway_model_calls_total{model="m",outcome="error"} 1`,
		`keyway_model_call_duration_seconds_count{model="m"} 2`,
		`keyway_time_to_first_token_seconds_bucket{model="m",le="0.5"} 1`,
		`keyway_tool_calls_total{tool="echo",outcome="error"} 1`,
		`keyway_tool_call_duration_seconds_count{tool="echo"} 1`,
		`keyway_runs_in_progress 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%s is missing:\n%s", want, text)
		}
	}
}

// A server decides the names of its tools.
func TestALabelHasABoundedNumberOfValues(t *testing.T) {
	t.Parallel()
	m := prometheus.New()
	for i := range 1000 {
		m.ToolCall(meter.ToolCall{Tool: fmt.Sprintf("tool%d\n\"", i)})
	}
	text := scrape(t, m)
	if n := strings.Count(text, "\nkeyway_tool_calls_total{"); n > 202 {
		t.Errorf("there are %d values", n)
	}
	if !strings.Contains(text, `keyway_tool_calls_total{tool="other",outcome="ok"} 800`) ||
		!strings.Contains(text, `{tool="tool7\n\"",outcome="ok"} 1`) {
		t.Error(text)
	}
}
