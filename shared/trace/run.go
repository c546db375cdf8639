package trace

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Model is the model of an agent, as spans show it.
type Model struct {
	// Provider is the provider in keyway.yaml, such as openai.
	Provider string
	// ID is the provider's name of the model.
	ID string
}

// provider returns the name that the conventions have for the provider.
func (m Model) provider() string {
	switch provider := strings.ToLower(m.Provider); provider {
	case "bedrock", "awsbedrock":
		return "aws.bedrock"
	case "azure":
		return "azure.ai.openai"
	default:
		return provider
	}
}

// Run describes the part of a run that one process executes.
type Run struct {
	ID        string
	AgentID   string
	AgentName string
	Model     Model
	// Attempt is how often a process has begun to execute the run, this time included.
	Attempt int
}

// Leg starts the span of the part of a run that this process executes.
func Leg(ctx context.Context, tracer Tracer, r Run) (context.Context, Span) {
	ctx, span := tracer.Start(ctx, "invoke_agent "+r.AgentID, trace.WithSpanKind(trace.SpanKindInternal))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("gen_ai.operation.name", "invoke_agent"), attribute.String("gen_ai.agent.id", r.AgentID),
			attribute.String("gen_ai.agent.name", r.AgentName), attribute.String("gen_ai.provider.name", r.Model.provider()),
			attribute.String("gen_ai.request.model", r.Model.ID), attribute.String("keyway.run.id", r.ID),
			attribute.Int("keyway.run.attempt", r.Attempt))
	}
	return ctx, span
}

// HandedOver is the status of a leg after which another process continues the run.
const HandedOver = "HANDED_OVER"

// EndLeg ends the span of Leg. status is the status of the run afterwards, kind is AgentOS's error_type or "", and usd
// is the cost of the tokens.
func EndLeg(span Span, status, kind string, input, output int, usd float64) {
	if span.IsRecording() {
		span.SetAttributes(attribute.String("keyway.run.status", status), attribute.Float64("keyway.run.cost", usd))
		usage(span, input, output)
		fail(span, kind)
	}
	span.End()
}

// Chat starts the span of one request to a model.
func Chat(ctx context.Context, tracer Tracer, m Model) (context.Context, Span) {
	ctx, span := tracer.Start(ctx, "chat "+m.ID, trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("gen_ai.operation.name", "chat"),
			attribute.String("gen_ai.provider.name", m.provider()), attribute.String("gen_ai.request.model", m.ID))
	}
	return ctx, span
}

// EndChat ends the span of Chat. calls is how many tool calls the answer requests, and failed is whether there is no
// complete answer. first is the time to the first token, 0 if none came.
func EndChat(span Span, input, output, calls int, failed bool, first time.Duration) {
	if span.IsRecording() {
		usage(span, input, output)
		if first > 0 {
			span.SetAttributes(attribute.Float64("keyway.time_to_first_token", first.Seconds()))
		}
		reason := "stop"
		if calls > 0 {
			reason = "tool_calls"
		}
		if failed {
			fail(span, "model_provider_error")
		} else {
			span.SetAttributes(attribute.StringSlice("gen_ai.response.finish_reasons", []string{reason}))
		}
	}
	span.End()
}

// Tool starts the span of one tool call.
func Tool(ctx context.Context, tracer Tracer, name, call string) (context.Context, Span) {
	ctx, span := tracer.Start(ctx, "execute_tool "+name, trace.WithSpanKind(trace.SpanKindInternal))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("gen_ai.operation.name", "execute_tool"),
			attribute.String("gen_ai.tool.name", name), attribute.String("gen_ai.tool.call.id", call))
	}
	return ctx, span
}

// EndTool ends the span of Tool.
func EndTool(span Span, failed bool) {
	if failed {
		fail(span, "tool_error")
	}
	span.End()
}

func usage(span Span, input, output int) {
	span.SetAttributes(attribute.Int("gen_ai.usage.input_tokens", input),
		attribute.Int("gen_ai.usage.output_tokens", output))
}

// fail marks a span as failed. The text of an error may have data, so only its kind is recorded.
func fail(span Span, kind string) {
	if kind != "" {
		span.SetAttributes(attribute.String("error.type", kind))
		span.SetStatus(codes.Error, "")
	}
}
