package bedrock_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/bedrock"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const chunks = 200

// BenchmarkStream reads an answer of 200 chunks from memory.
func BenchmarkStream(b *testing.B) {
	var stream strings.Builder
	for i := range chunks {
		delta := fmt.Sprintf(`{"contentBlockIndex":0,"delta":{"text":"word-%d "},"p":"abcdefghijklmnop"}`, i)
		stream.WriteString(modeltest.Frame("event", "contentBlockDelta", delta))
	}
	const usage = `{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3}}`
	stream.WriteString(modeltest.Frame("event", "messageStop", `{"stopReason":"end_turn"}`))
	stream.WriteString(modeltest.Frame("event", "metadata", usage))
	m := bedrock.New(bedrock.Options{
		ID: "m", Region: "eu-central-1", Credentials: credentials,
		HTTPClient: canned("application/vnd.amazon.eventstream", stream.String()),
	})
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range m.Stream(b.Context(), modeltest.Ask("hello")) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != chunks+1 {
			b.Fatalf("%d parts", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/chunks, "ns/chunk")
}
