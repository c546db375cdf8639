package openai_test

import (
	"fmt"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/openai"
)

// BenchmarkResponses reads an answer of 200 deltas of the Responses API from memory.
func BenchmarkResponses(b *testing.B) {
	stream := sse(created)
	for i := range chunks - 2 {
		stream += "event: response.output_text.delta\n" + sse(fmt.Sprintf(
			`{"type":"response.output_text.delta","item_id":"msg_c5fd14a46066cb1af9c1","output_index":0,`+
				`"content_index":0,"delta":"word-%d ","logprobs":[],"sequence_number":%d,"obfuscation":"aBcDeF"}`, i, i+4))
	}
	stream += sse(completed)
	benchOurs(b, openai.NewResponses(openai.Options{ID: "gpt-5.2", APIKey: "k", HTTPClient: canned(stream, nil)}))
}
