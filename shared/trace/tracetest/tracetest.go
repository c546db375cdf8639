// Package tracetest receives the spans of programs under test.
package tracetest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector receives spans as an OpenTelemetry collector does, and decodes them with OpenTelemetry's own types.
type Collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*otlp.Span
	bytes []byte
}

// NewCollector starts a collector that ends with the test.
func NewCollector(t *testing.T) *Collector {
	t.Helper()
	c := &Collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		var got otlp.TracesData // the same fields as an ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(data, &got)
		}
		if err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bytes = append(c.bytes, data...)
		for _, of := range got.ResourceSpans {
			for _, scope := range of.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// Tree returns the spans of a trace as lines that are indented by their depth, children in the order of their names and
// statuses. A span whose parent is unknown is at the top.
func (c *Collector) Tree(trace string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, children := map[string]bool{}, map[string][]*otlp.Span{}
	for _, s := range c.spans {
		if fmt.Sprintf("%x", s.TraceId) == trace {
			known[string(s.SpanId)] = true
		}
	}
	for _, s := range c.spans {
		parent := string(s.ParentSpanId)
		if !known[parent] {
			parent = ""
		}
		if known[string(s.SpanId)] {
			children[parent] = append(children[parent], s)
		}
	}
	var write func(parent, indent string) []string
	write = func(parent, indent string) (lines []string) {
		var blocks []string
		for _, s := range children[parent] {
			line := indent + s.Name
			for _, a := range s.Attributes {
				if a.Key == "keyway.run.status" || a.Key == "error.type" {
					line += " " + a.Value.GetStringValue()
				}
			}
			blocks = append(blocks, strings.Join(append([]string{line}, write(string(s.SpanId), indent+"  ")...), "\n"))
		}
		slices.Sort(blocks)
		return blocks
	}
	return strings.Join(write("", ""), "\n")
}

// Received returns everything that has arrived, as it was sent.
func (c *Collector) Received() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.bytes)
}
