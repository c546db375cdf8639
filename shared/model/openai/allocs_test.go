package openai_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/model/openai"
)

// A long answer has many chunks, and a server reads many answers at once. The bounds have room for the race detector.
func TestAnAnswerAllocatesLittle(t *testing.T) { //nolint:paralleltest // it counts what the whole process allocates
	const mostOfARequest, mostOfAChunk = 100, 2
	allocations := func(chunks int) float64 {
		stream := ""
		for range chunks - 1 {
			stream += sse(`{"id":"c","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o",` +
				`"choices":[{"index":0,"delta":{"content":"word "},"logprobs":null,"finish_reason":null}],"usage":null}`)
		}
		m := openai.NewChat(openai.Options{
			ID: "gpt-4o", APIKey: "k", HTTPClient: canned(stream+sse(stop)+sse("[DONE]"), nil),
		})
		return testing.AllocsPerRun(20, func() {
			for _, err := range m.Stream(t.Context(), modeltest.Ask("hello")) {
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	short, long := allocations(2), allocations(202)
	if t.Logf("%g allocations of a request, %g of a chunk", short, (long-short)/200); short > mostOfARequest ||
		(long-short)/200 > mostOfAChunk {
		t.Errorf("a request makes %g allocations, and a chunk %g", short, (long-short)/200)
	}
}
