// Package trace decides what a trace shows of a request, of a run and of its steps, and how the trace continues in
// another process. It uses the interface of OpenTelemetry alone: without an exporter (package otlp) nothing is
// recorded.
//
// Spans have the names of OpenTelemetry's conventions for HTTP and for generative AI. They have no message, answer,
// argument, result, token, subject or session id, and there is no setting that adds them.
package trace

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/keyway-agents/keyway/shared/logging"
)

// Scope is the name of the instrumentation in the exported spans.
const Scope = "github.com/keyway-agents/keyway"

// Tracer makes spans.
type Tracer = trace.Tracer

// Span is a part of a trace.
type Span = trace.Span

// Exporter makes spans and sends them.
type Exporter struct {
	Tracer Tracer
	// Flush sends the spans that have ended. A function calls it before it is frozen.
	Flush func(context.Context) error
	// Close sends the spans that have ended, and ends the exporter.
	Close func(context.Context) error
	// Lost returns how many spans the collector has not accepted.
	Lost func() int64
}

// None returns an Exporter that records nothing and sends nothing.
func None() Exporter {
	nothing := func(context.Context) error { return nil }
	return Exporter{Tracer: noop.NewTracerProvider().Tracer(""), Flush: nothing, Close: nothing,
		Lost: func() int64 { return 0 }}
}

// w3c is the W3C recommendation Trace Context, https://www.w3.org/TR/trace-context/.
var w3c propagation.TraceContext

// Requests is middleware that makes a span for each request, as a part of the caller's trace if the request has a valid
// header traceparent. It must be inside of logging.Requests, whose id becomes the attribute keyway.decision_id, and the
// id of the trace is written to the log line of a request whose trace is recorded.
func Requests(tracer Tracer, next http.Handler) http.Handler {
	if _, off := tracer.(noop.Tracer); off {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		method := logging.Method(r.Method)
		if method == "other" {
			method = "_OTHER" // the value of the convention
		}
		ctx, span := tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		if !span.IsRecording() {
			next.ServeHTTP(w, r.WithContext(ctx))
			return
		}
		span.SetAttributes(attribute.String("http.request.method", method),
			attribute.String("keyway.decision_id", logging.RequestID(ctx)))
		if exported(span) {
			logging.Note(ctx, "trace_id", span.SpanContext().TraceID().String())
		}
		out := &statusOf{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			span.SetAttributes(attribute.Int("http.response.status_code", out.status))
			if out.status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, "")
			}
		}()
		next.ServeHTTP(out, r.WithContext(ctx))
	})
}

// exported reports whether a span is part of a trace that is exported. A span of package meter always records.
func exported(span Span) bool {
	if s, ok := span.(interface{ Exported() bool }); ok {
		return s.Exported()
	}
	return span.IsRecording()
}

// statusOf keeps the status of an answer.
type statusOf struct {
	http.ResponseWriter
	status int
	sent   bool
}

// WriteHeader implements http.ResponseWriter. As with net/http, only the first status counts.
func (s *statusOf) WriteHeader(status int) {
	if !s.sent {
		s.status, s.sent = status, true
	}
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap returns the underlying writer, for http.ResponseController.
func (s *statusOf) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Route names the span of a request by its route, such as "POST /agents/{agent_id}/runs".
func Route(ctx context.Context, method, pattern string) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetName(method + " " + pattern)
		span.SetAttributes(attribute.String("http.route", pattern))
	}
}

// Parent returns the span of ctx in the form of the header traceparent, or "" if ctx has none.
func Parent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	w3c.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// Continue returns a context in which new spans are children of the one that Parent has returned, also in another
// process. It returns ctx if that has a span already, or if the text is no traceparent.
func Continue(ctx context.Context, parent string) context.Context {
	if trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return w3c.Extract(ctx, propagation.MapCarrier{"traceparent": parent})
}

// With returns a context in which span is the parent of those that are started.
func With(ctx context.Context, span Span) context.Context { return trace.ContextWithSpan(ctx, span) }

// Outgoing adds the header traceparent to requests whose context has a span that is recorded, so that the trace
// continues in the other program.
func Outgoing(next http.RoundTripper) http.RoundTripper { return outgoing{next} }

type outgoing struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (o outgoing) RoundTrip(r *http.Request) (*http.Response, error) {
	if exported(trace.SpanFromContext(r.Context())) {
		r = r.Clone(r.Context()) // A RoundTripper must not change its request.
		w3c.Inject(r.Context(), propagation.HeaderCarrier(r.Header))
	}
	return o.next.RoundTrip(r)
}

// CloseIdleConnections is called by http.Client.CloseIdleConnections.
func (o outgoing) CloseIdleConnections() {
	(&http.Client{Transport: o.next}).CloseIdleConnections()
}
