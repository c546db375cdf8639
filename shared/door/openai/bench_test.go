package openai_test

import (
	"io"
	"testing"

	"github.com/keyway-agents/keyway/shared/door/openai"
	"github.com/keyway-agents/keyway/shared/wire"
)

// BenchmarkDelta compares a piece of text in each stream with the same in AgentOS's.
func BenchmarkDelta(b *testing.B) {
	begin, piece := streams["failed"][0], said("a few words ")
	chat, response := openai.NewChatStream(false), openai.NewResponseStream(openai.Of{})
	agentOS := wire.NewEncoder(io.Discard)
	for name, encode := range map[string]func(wire.Event){
		"chat": func(e wire.Event) { chat.Event(e) }, "response": func(e wire.Event) { response.Event(e) },
		"AgentOS": func(e wire.Event) { _ = agentOS.Encode(e) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			encode(begin)
			for b.Loop() {
				encode(piece)
			}
		})
	}
}

// BenchmarkFirstText is what a door adds before the first text: the body is decoded, and the stream begins.
func BenchmarkFirstText(b *testing.B) {
	for name, row := range map[string]struct {
		api  openai.API
		body string
		to   func() encoder
	}{
		"chat": {openai.Chat, `{"model":"a","stream":true,"messages":[{"role":"user","content":"hi"}]}`,
			func() encoder { return openai.NewChatStream(false) }},
		"response": {openai.Responses, `{"model":"a","stream":true,"input":"hi"}`,
			func() encoder { return openai.NewResponseStream(openai.Of{}) }},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := openai.Decode(row.api, []byte(row.body), nil); err != nil {
					b.Fatal(err)
				}
				to := row.to()
				for _, e := range streams["failed"][:3] {
					to.Event(e)
				}
			}
		})
	}
}
