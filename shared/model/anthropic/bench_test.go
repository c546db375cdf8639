package anthropic_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/anthropic"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const chunks = 200

// BenchmarkStream reads an answer of 200 pieces from memory.
func BenchmarkStream(b *testing.B) {
	var stream strings.Builder
	event := func(data string) {
		name := strings.Split(data, `"`)[3]
		stream.WriteString("event: " + name + "\ndata: " + data + "\n\n")
	}
	event(start)
	event(textStart)
	for i := range chunks {
		event(fmt.Sprintf(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word-%d "}}`, i))
	}
	event(`{"type":"content_block_stop","index":0}`)
	event(endTurn)
	event(stop)
	client := canned("text/event-stream", stream.String())
	m := anthropic.New(anthropic.Options{ID: "m", HTTPClient: client})
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range m.Stream(b.Context(), modeltest.Ask("hello")) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n < chunks {
			b.Fatalf("%d parts", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/chunks, "ns/chunk")
}
