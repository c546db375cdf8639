package otlp

import (
	"math"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"
)

// The numbers of the fields are those of opentelemetry/proto/collector/trace/v1, version 1. Fields with
// their zero value are left out, as in every message of proto3.

// encode returns an ExportTraceServiceRequest.
func encode(spans []sdk.ReadOnlySpan) []byte {
	if len(spans) == 0 {
		return nil
	}
	// All spans are of one provider and one tracer, so they have one resource and one scope.
	first := spans[0]
	scope := message(nil, 1, func(b []byte) []byte {
		return text(text(b, 1, first.InstrumentationScope().Name), 2, first.InstrumentationScope().Version)
	})
	for _, s := range spans {
		scope = message(scope, 2, func(b []byte) []byte { return span(b, s) })
	}
	return message(nil, 1, func(b []byte) []byte {
		b = message(b, 1, func(b []byte) []byte { return attributes(b, 1, first.Resource().Attributes()) })
		return text(append(b, message(nil, 2, func([]byte) []byte { return scope })...), 3, first.Resource().SchemaURL())
	})
}

// span encodes a Span.
func span(b []byte, s sdk.ReadOnlySpan) []byte {
	id, trace, parent := s.SpanContext().SpanID(), s.SpanContext().TraceID(), s.Parent().SpanID()
	b = raw(b, 1, trace[:])
	b = raw(b, 2, id[:])
	b = text(b, 3, s.SpanContext().TraceState().String())
	if s.Parent().SpanID().IsValid() {
		b = raw(b, 4, parent[:])
	}
	b = text(b, 5, s.Name())
	b = number(b, 6, uint64(kinds[s.SpanKind()]))
	b = protowire.AppendFixed64(protowire.AppendTag(b, 7, protowire.Fixed64Type), uint64(s.StartTime().UnixNano()))
	b = protowire.AppendFixed64(protowire.AppendTag(b, 8, protowire.Fixed64Type), uint64(s.EndTime().UnixNano()))
	b = attributes(b, 9, s.Attributes())
	b = number(b, 10, uint64(s.DroppedAttributes()))
	b = message(b, 15, func(b []byte) []byte {
		return number(text(b, 2, s.Status().Description), 3, uint64(statuses[s.Status().Code]))
	})
	return protowire.AppendFixed32(protowire.AppendTag(b, 16, protowire.Fixed32Type), flags(s))
}

// flags returns the flags of the trace, and whether the parent is known to be of another process.
func flags(s sdk.ReadOnlySpan) uint32 {
	const known, remote = 0x100, 0x200
	f := uint32(s.SpanContext().TraceFlags()) | known
	if s.Parent().IsRemote() {
		f |= remote
	}
	return f
}

var kinds = map[trace.SpanKind]int{
	trace.SpanKindInternal: 1, trace.SpanKindServer: 2, trace.SpanKindClient: 3,
}

// statuses are the numbers of the codes Unset, Error and Ok, which differ from those of the protocol.
var statuses = [...]int{0, 2, 1}

func attributes(b []byte, field protowire.Number, list []attribute.KeyValue) []byte {
	for _, a := range list {
		b = message(b, field, func(b []byte) []byte {
			return message(text(b, 1, string(a.Key)), 2, func(b []byte) []byte { return value(b, a.Value) })
		})
	}
	return b
}

// value encodes an AnyValue. Its fields are a oneof, so that a zero value is written too.
func value(b []byte, v attribute.Value) []byte {
	switch v.Type() {
	case attribute.BOOL:
		return protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), protowire.EncodeBool(v.AsBool()))
	case attribute.INT64:
		return protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), uint64(v.AsInt64()))
	case attribute.FLOAT64:
		return protowire.AppendFixed64(protowire.AppendTag(b, 4, protowire.Fixed64Type), math.Float64bits(v.AsFloat64()))
	case attribute.STRINGSLICE:
		return message(b, 5, func(b []byte) []byte {
			for _, s := range v.AsStringSlice() {
				b = message(b, 1, func(b []byte) []byte {
					return protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), s)
				})
			}
			return b
		})
	default:
		return protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), v.String())
	}
}

func message(b []byte, field protowire.Number, content func([]byte) []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), content(nil))
}

func raw(b []byte, field protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), content)
}

func text(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func number(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}
