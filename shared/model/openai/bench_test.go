package openai_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

const chunks = 200

// BenchmarkStream reads an answer of 200 chunks: over loopback with one write for each
// chunk, where the system calls of both sides dominate, and from memory, which measures
// the client alone.
func BenchmarkStream(b *testing.B) {
	word := func(i int) string {
		return fmt.Sprintf(`{"id":"chatcmpl-c5fd14a46066cb1af9c1","object":"chat.completion.chunk","created":1700000000,`+
			`"model":"gpt-4o","system_fingerprint":"fp_1234","choices":[{"index":0,"delta":{"content":"word-%d "},`+
			`"logprobs":null,"finish_reason":null}],"usage":null}`, i)
	}
	var events []string
	for i := range chunks - 1 {
		events = append(events, sse(word(i)))
	}
	events = append(events, sse(stop), sse("[DONE]"))
	var stream string
	for _, e := range events {
		stream += e
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range events {
			_, _ = w.Write([]byte(e))
			_ = http.NewResponseController(w).Flush()
		}
	}))
	defer srv.Close()
	for _, from := range []struct {
		name   string
		client *http.Client
	}{{"memory", canned(stream, nil)}, {"loopback", srv.Client()}} {
		o := openai.Options{ID: "gpt-4o", BaseURL: srv.URL, APIKey: "k", HTTPClient: from.client}
		b.Run(from.name, func(b *testing.B) { benchOurs(b, openai.NewChat(o)) })
	}
}

func benchOurs(b *testing.B, m model.Model) {
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range m.Stream(b.Context(), modeltest.Ask("hello")) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != chunks {
			b.Fatalf("%d parts", n)
		}
	}
	perChunk(b)
}

func perChunk(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/chunks, "ns/chunk")
}
