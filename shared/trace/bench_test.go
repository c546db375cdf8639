package trace_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/trace"
)

// BenchmarkSpansOfARunThatIsNotTraced has the spans of a run with a model call and a tool, without an exporter.
func BenchmarkSpansOfARunThatIsNotTraced(b *testing.B) {
	tracer, ctx := trace.None().Tracer, b.Context()
	b.ReportAllocs()
	for b.Loop() {
		ctx, leg := trace.Leg(trace.Continue(ctx, ""), tracer, trace.Run{ID: "r", AgentID: "a", AgentName: "A", Attempt: 1})
		_, chat := trace.Chat(ctx, tracer, trace.Model{Provider: "openai", ID: "m"})
		_, tool := trace.Tool(ctx, tracer, "t", "c")
		tool.End()
		chat.End()
		leg.End()
		_ = trace.Parent(ctx)
	}
}
