// Package meter counts what spans show: requests, runs, model calls and tool calls. It decides which of their
// attributes are counted, so that code that makes a span counts nothing itself. How the numbers leave the process is
// decided by a Sink: package prometheus answers scrapes, and package emf writes lines for CloudWatch.
package meter

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otel "go.opentelemetry.io/otel/trace"

	"github.com/keyway-agents/keyway/shared/trace"
)

// Request is a request that was answered.
type Request struct {
	// Route is such as "POST /agents/{agent_id}/runs", or "" if the request reached none, for example because it was
	// refused.
	Route  string
	Status int
	Took   time.Duration
}

// Refused reports whether the answer refuses the request: to a caller without a valid token (401), without the right
// (403) or over a limit (429), or because this process or the database has no room (503).
func (r Request) Refused() bool {
	return r.Status == 401 || r.Status == 403 || r.Status == 429 || r.Status == 503
}

// Run is the part of a run up to its end, or up to a pause.
type Run struct {
	Agent, Model string
	// Status is COMPLETED, ERROR, CANCELLED or PAUSED.
	Status        string
	Input, Output int64 // tokens
	// USD is the cost, 0 for a model without a price.
	USD float64
	// Took is the time in this process.
	Took time.Duration
}

// ModelCall is a request to a model.
type ModelCall struct {
	Model  string
	Failed bool
	// First is the time to the first token, 0 if none came.
	First, Took time.Duration
}

// ToolCall is a call of a tool.
type ToolCall struct {
	Tool   string
	Failed bool
	Took   time.Duration
}

// Sink receives what has ended. Its methods are called by many goroutines, and must return soon.
type Sink interface {
	Request(Request)
	Run(Run)
	ModelCall(ModelCall)
	ToolCall(ToolCall)
	// Executing is called with 1 when a run begins or continues in this process, and with -1 when it ends here.
	Executing(change int)
}

// Tracer returns a tracer that makes the spans of next, and reports each one that ends to a sink.
func Tracer(next trace.Tracer, to Sink) trace.Tracer { return tracer{next, to} }

type tracer struct {
	trace.Tracer
	to Sink
}

// Start implements trace.Tracer.
func (t tracer) Start(ctx context.Context, name string, o ...otel.SpanStartOption) (context.Context, trace.Span) {
	ctx, inner := t.Tracer.Start(ctx, name, o...)
	s := &span{Span: inner, to: t.to, began: time.Now()}
	return otel.ContextWithSpan(ctx, s), s
}

// span remembers what is counted when it ends.
type span struct {
	trace.Span
	to    Sink
	began time.Time

	mu sync.Mutex
	// kind is the operation, "" until it is known, and executing is whether Executing was called.
	kind      string
	executing bool
	ended     bool
	method    string
	route     string
	status    int
	run       Run
	call      ModelCall
	tool      ToolCall
	failed    bool
}

// The kinds of spans.
const (
	kindRequest = "request"
	kindRun     = "invoke_agent"
	kindChat    = "chat"
	kindTool    = "execute_tool"
)

// IsRecording implements trace.Span: the attributes are needed also if no span is exported.
func (s *span) IsRecording() bool { return true }

// Exported reports whether the span is part of a trace that is exported.
func (s *span) Exported() bool { return s.Span.IsRecording() }

// SetAttributes implements trace.Span.
func (s *span) SetAttributes(list ...attribute.KeyValue) {
	s.mu.Lock()
	for _, a := range list {
		s.read(string(a.Key), a.Value)
	}
	begins := s.kind == kindRun && !s.executing
	s.executing = s.executing || begins
	s.mu.Unlock()
	if begins {
		s.to.Executing(1)
	}
	s.Span.SetAttributes(list...)
}

// read keeps an attribute that is counted. The names are those that package trace writes.
func (s *span) read(key string, v attribute.Value) {
	switch key {
	case "http.request.method":
		s.kind, s.method = kindRequest, v.AsString()
	case "http.route":
		s.route = v.AsString()
	case "http.response.status_code":
		s.status = int(v.AsInt64())
	case "gen_ai.operation.name":
		s.kind = v.AsString()
	case "gen_ai.agent.id":
		s.run.Agent = v.AsString()
	case "gen_ai.request.model":
		s.run.Model, s.call.Model = v.AsString(), v.AsString()
	case "gen_ai.tool.name":
		s.tool.Tool = v.AsString()
	case "gen_ai.usage.input_tokens":
		s.run.Input = v.AsInt64()
	case "gen_ai.usage.output_tokens":
		s.run.Output = v.AsInt64()
	case "keyway.run.status":
		s.run.Status = v.AsString()
	case "keyway.run.cost":
		s.run.USD = v.AsFloat64()
	case "keyway.time_to_first_token":
		s.call.First = time.Duration(v.AsFloat64() * float64(time.Second))
	case "error.type":
		s.failed = true
	}
}

// End implements trace.Span.
func (s *span) End(o ...otel.SpanEndOption) {
	s.Span.End(o...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	took := time.Since(s.began)
	switch s.kind {
	case kindRequest:
		name := ""
		if s.route != "" {
			name = s.method + " " + s.route
		}
		s.to.Request(Request{Route: name, Status: s.status, Took: took})
	case kindRun:
		s.to.Executing(-1)
		// After a hand-over the process that continues the run counts all of it, and so does the one that took a lost run.
		if s.run.Status != "" && s.run.Status != trace.HandedOver {
			s.run.Took = took
			s.to.Run(s.run)
		}
	case kindChat:
		s.call.Failed, s.call.Took = s.failed, took
		s.to.ModelCall(s.call)
	case kindTool:
		s.tool.Failed, s.tool.Took = s.failed, took
		s.to.ToolCall(s.tool)
	}
}
