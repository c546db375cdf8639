package anthropic_test

import (
	"fmt"
	"strings"
	"testing"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/keyway-agents/keyway/shared/model/anthropic"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

const chunks = 200

// BenchmarkStream reads an answer of 200 pieces from memory, with this package and with
// the SDK's own stream.
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
	run := func(name string, read func(b *testing.B) int) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if n := read(b); n < chunks {
					b.Fatalf("%d parts", n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/chunks, "ns/chunk")
		})
	}
	m := anthropic.New(anthropic.Options{ID: "m", HTTPClient: client})
	run("ours", func(b *testing.B) (n int) {
		for _, err := range m.Stream(b.Context(), modeltest.Ask("hello")) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		return n
	})
	service := sdk.NewMessageService(
		option.WithEnvironmentProduction(), option.WithoutOpenTelemetry(), option.WithHTTPClient(client),
	)
	run("sdk", func(b *testing.B) (n int) {
		s := service.NewStreaming(b.Context(), sdk.MessageNewParams{
			Model: "m", MaxTokens: 1, Messages: []sdk.MessageParam{sdk.NewUserMessage(sdk.NewTextBlock("hello"))},
		})
		for s.Next() {
			n += len(s.Current().Delta.Type)
		}
		if s.Err() != nil {
			b.Fatal(s.Err())
		}
		return n
	})
}
