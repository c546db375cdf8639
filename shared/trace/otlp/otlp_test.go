package otlp

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// receiver decodes what it gets with OpenTelemetry's own types.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	got      []*otlp.ResourceSpans
	header   http.Header
	statuses []int // of the first answers; 200 after them
}

func newReceiver(t *testing.T, statuses ...int) *receiver {
	t.Helper()
	r := &receiver{statuses: statuses}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.header = req.Header
		if req.URL.Path != "/v1/traces" || req.Method != "POST" {
			t.Errorf("%s %s", req.Method, req.URL)
		}
		body := io.Reader(req.Body)
		if req.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		if len(r.statuses) > 0 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(r.statuses[0])
			r.statuses = r.statuses[1:]
			return
		}
		// An ExportTraceServiceRequest has the field of a TracesData.
		var decoded otlp.TracesData
		if err := proto.Unmarshal(data, &decoded); err != nil {
			t.Errorf("%v: %x", err, data)
		}
		if unknown := unknownFields(decoded.ProtoReflect()); unknown {
			t.Errorf("unknown fields in %x", data)
		}
		r.got = append(r.got, decoded.ResourceSpans...)
	}))
	t.Cleanup(r.Close)
	return r
}

// unknownFields reports whether a message, or one inside of it, has a field that its type doesn't have.
func unknownFields(m protoreflect.Message) (found bool) {
	found = len(m.GetUnknown()) > 0
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				found = found || unknownFields(v.List().Get(i).Message())
			}
		default:
			found = found || unknownFields(v.Message())
		}
		return !found
	})
	return found
}

// variables are an environment.
func variables(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func values(list []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range list {
		out[a.Key] = strings.Join(strings.Fields(protojson.Format(a.Value)), "")
	}
	return out
}

func TestSpansArriveAsTheyWereMade(t *testing.T) {
	t.Parallel()
	for _, compression := range []string{"none", "gzip"} {
		r := newReceiver(t)
		e, err := Open(variables("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL+"/", "OTEL_EXPORTER_OTLP_COMPRESSION", compression,
			"OTEL_EXPORTER_OTLP_HEADERS", "api-key=se%20cret, x=y", "OTEL_SERVICE_NAME", "desk"), "v9",
			slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, parent := e.Tracer.Start(t.Context(), "parent", trace.WithSpanKind(trace.SpanKindServer))
		_, child := e.Tracer.Start(ctx, "child é", trace.WithSpanKind(trace.SpanKindClient))
		child.SetAttributes(attribute.Bool("no", false), attribute.Int("zero", 0), attribute.Int("less", -5),
			attribute.String("empty", ""), attribute.StringSlice("list", []string{"", "b"}), attribute.Float64("half", 0.5))
		child.SetStatus(codes.Error, "")
		child.End()
		parent.SetStatus(codes.Ok, "")
		parent.End()
		if err := e.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(r.got) != 1 || len(r.got[0].ScopeSpans) != 1 || len(r.got[0].ScopeSpans[0].Spans) != 2 {
			t.Fatalf("%v", r.got)
		}
		about, scope := values(r.got[0].Resource.Attributes), r.got[0].ScopeSpans[0]
		if about["service.name"] != `{"stringValue":"desk"}` || about["service.version"] != `{"stringValue":"v9"}` ||
			scope.Scope.Name != "github.com/keyway-agents/keyway" {
			t.Errorf("%v %v", about, scope.Scope)
		}
		if r.header.Get("Api-Key") != "se cret" || r.header.Get("X") != "y" ||
			r.header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%v", r.header)
		}
		c, p := scope.Spans[0], scope.Spans[1]
		if c.Name != "child é" || string(c.ParentSpanId) != string(p.SpanId) || string(c.TraceId) != string(p.TraceId) ||
			len(p.ParentSpanId) != 0 || c.Kind != otlp.Span_SPAN_KIND_CLIENT || p.Kind != otlp.Span_SPAN_KIND_SERVER ||
			c.Status.Code != otlp.Status_STATUS_CODE_ERROR || p.Status.Code != otlp.Status_STATUS_CODE_OK ||
			c.StartTimeUnixNano == 0 || c.EndTimeUnixNano < c.StartTimeUnixNano || c.Flags != 0x101 {
			t.Errorf("%v\n%v", c, p)
		}
		for name, want := range map[string]string{
			"no": `{"boolValue":false}`, "zero": `{"intValue":"0"}`, "less": `{"intValue":"-5"}`, "empty": `{"stringValue":""}`,
			"list": `{"arrayValue":{"values":[{"stringValue":""},{"stringValue":"b"}]}}`, "half": `{"doubleValue":0.5}`,
		} {
			if got := values(c.Attributes)[name]; got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
	}
}

func TestSpansAreSentAgainIfTheCollectorIsBusy(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, 503, 429)
	e, err := Open(variables("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", r.URL+"/v1/traces"), "v", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, s := e.Tracer.Start(t.Context(), "s")
	s.End()
	if err := errors.Join(e.Flush(t.Context()), e.Close(t.Context())); err != nil || len(r.got) != 1 {
		t.Errorf("%v, %d arrived", err, len(r.got))
	}
}

func TestSpansThatTheCollectorRefusesAreNotSentAgain(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, 401)
	c, err := configure(variables("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ExportSpans(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "401") || len(r.got) > 0 {
		t.Errorf("%v, %d arrived", err, len(r.got))
	}
}

func TestNothingIsExportedUnlessACollectorIsNamed(t *testing.T) {
	t.Parallel()
	at := "http://127.0.0.1:1"
	for _, env := range [][]string{
		nil, {"OTEL_EXPORTER_OTLP_HEADERS", "x=y"}, {"OTEL_SDK_DISABLED", "true", "OTEL_EXPORTER_OTLP_ENDPOINT", at},
		{"OTEL_TRACES_EXPORTER", "none", "OTEL_EXPORTER_OTLP_ENDPOINT", at},
	} {
		e, err := Open(variables(env...), "v", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if _, s := e.Tracer.Start(t.Context(), "s"); s.IsRecording() {
			t.Errorf("%v: spans are made", env)
		}
	}
}

func TestAVariableThatCannotBeUsedIsNamed(t *testing.T) {
	t.Parallel()
	noPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(noPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd", "OTEL_EXPORTER_OTLP_TIMEOUT": "10s",
		"OTEL_EXPORTER_OTLP_HEADERS": "SECRET", "OTEL_EXPORTER_OTLP_CERTIFICATE": noPEM,
		"OTEL_EXPORTER_OTLP_ENDPOINT": "x:4317",
	} {
		// The first variable of a name counts.
		_, err := Open(variables(name, value, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), "v",
			slog.New(slog.DiscardHandler))
		if err == nil || !strings.HasPrefix(err.Error(), name) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestACollectorThatIsAwayEndsNothing(t *testing.T) {
	t.Parallel()
	c, err := configure(variables("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.ExportSpans(ctx, nil); err == nil || !strings.Contains(err.Error(), "can't be reached") {
		t.Error(err)
	}
}
