package modeltest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/aws/smithy-go/eventstream"
)

// converseStream is the encoder for Bedrock's ConverseStream, which sends binary frames
// of the type application/vnd.amazon.eventstream
// (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html).
type converseStream struct {
	stream
	blocks   int // content blocks so far; all text up to a call is one block
	calls    int
	openType string // "text" or "thoughts" if the last block is one and still open
}

// open sends messageStart.
func (c *converseStream) open() {
	if !c.opened {
		c.opened = true
		if c.script.has(NoOpening) {
			return
		}
		c.event("messageStart", map[string]any{"role": "assistant"})
	}
}

// text implements encoder.
func (c *converseStream) text(piece string) {
	c.begin("text")
	c.delta(c.blocks-1, map[string]any{"text": piece})
}

// thoughts implements encoder.
func (c *converseStream) thoughts(piece string) {
	c.begin("thoughts")
	c.delta(c.blocks-1, map[string]any{"reasoningContent": map[string]any{"text": piece}})
}

// begin begins a block, unless one of its type is open. These blocks, unlike calls, have no
// start event.
func (c *converseStream) begin(kind string) {
	c.open()
	if c.openType != kind {
		c.close()
		c.openType = kind
		c.blocks++
	}
}

// toolCalls implements encoder.
func (c *converseStream) toolCalls(group []callStep) {
	c.open()
	c.close()
	s, first := c.script, c.blocks
	start := func(i int) {
		c.calls++
		c.blocks++
		c.event("contentBlockStart", map[string]any{
			"contentBlockIndex": first + i,
			"start": map[string]any{"toolUse": map[string]any{
				"toolUseId": group[i].callID(c.request.N, c.calls), "name": group[i].name,
			}},
		})
		if s.inOnePiece(group[i]) {
			c.delta(first+i, map[string]any{"toolUse": map[string]any{"input": group[i].arguments}})
		}
	}
	s.sendCalls(group, start, func(i int, piece string) {
		c.delta(first+i, map[string]any{"toolUse": map[string]any{"input": piece}})
	}, func(i int) {
		c.event("contentBlockStop", map[string]any{"contentBlockIndex": first + i})
	})
}

// close ends the open block, if there is one.
func (c *converseStream) close() {
	if c.openType != "" {
		c.openType = ""
		c.event("contentBlockStop", map[string]any{"contentBlockIndex": c.blocks - 1})
	}
}

// delta sends a piece of a block.
func (c *converseStream) delta(block int, delta map[string]any) {
	c.event("contentBlockDelta", map[string]any{"contentBlockIndex": block, "delta": delta})
}

// end sends the stop reason, and then the usage.
func (c *converseStream) end() {
	s := c.script
	c.close()
	c.event("messageStop", map[string]any{"stopReason": s.stopReason()})
	metadata := map[string]any{"metrics": map[string]any{"latencyMs": 1}}
	if !s.silent {
		metadata["usage"] = s.tokens()
	}
	c.event("metadata", metadata)
}

// stopReason returns the script's reason, or else that of Bedrock and Anthropic for a
// regular end or for tool calls.
func (s Script) stopReason() string {
	switch {
	case s.finish != "":
		return s.finish
	case s.calls():
		return "tool_use"
	}
	return "end_turn"
}

// tokens returns the usage in Bedrock's form, which has no count for reasoning.
func (s Script) tokens() map[string]any {
	u := DefaultUsage()
	if s.usage != nil {
		u = *s.usage
	}
	return map[string]any{
		"inputTokens": u.Input, "outputTokens": u.Output, "totalTokens": u.Total,
		"cacheReadInputTokens": u.CacheRead, "cacheWriteInputTokens": u.CacheWrite,
	}
}

// event sends one frame with an event.
func (c *converseStream) event(name string, value map[string]any) {
	c.script.index(value, "contentBlockIndex")
	c.write([]byte(Frame("event", name, encode(value))))
}

// encode returns JSON without HTML escapes, as the providers send it.
func encode(value any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic(err) // a map of plain values always encodes
	}
	return b.String()
}

// Frame returns one message of an AWS event stream, for Script.Raw. kind is "event" or
// "exception", name is the type of the event or exception, and payload is its JSON.
func Frame(kind, name, payload string) string {
	var m eventstream.Message
	m.Headers.Set(":message-type", eventstream.StringValue(kind))
	m.Headers.Set(":"+kind+"-type", eventstream.StringValue(name))
	m.Headers.Set(":content-type", eventstream.StringValue("application/json"))
	m.Payload = []byte(payload)
	var b bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&b, m); err != nil {
		panic(err) // three short headers always encode
	}
	return b.String()
}

// write sends a frame in three writes, cut within its prelude and in its middle, so
// that a decoder that expects a frame in one read fails.
func (c *converseStream) write(frame []byte) {
	head, middle := min(6, len(frame)), len(frame)/2
	for _, piece := range [][]byte{frame[:head], frame[head:max(head, middle)], frame[max(head, middle):]} {
		if _, err := c.out.Write(piece); err != nil {
			panic(http.ErrAbortHandler)
		}
		if err := c.flush(); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// converseWhole returns an answer in one piece of Bedrock's Converse.
func converseWhole(s Script, r Request) []byte {
	content := []any{}
	if thoughts := s.thoughts(); thoughts != "" {
		reasoning := map[string]any{"reasoningText": map[string]any{"text": thoughts}}
		content = append(content, map[string]any{"reasoningContent": reasoning})
	}
	calls, text := 0, ""
	closeText := func() {
		if text != "" {
			content, text = append(content, map[string]any{"text": text}), ""
		}
	}
	for _, step := range s.steps {
		switch p := step.(type) {
		case textStep:
			text += string(p)
		case hugeStep:
			text += strings.Repeat("x", int(p))
		case callStep:
			closeText()
			calls++
			input := json.RawMessage("{}")
			if p.arguments != "" {
				input = json.RawMessage(p.arguments)
			}
			content = append(content, map[string]any{"toolUse": map[string]any{
				"toolUseId": p.callID(r.N, calls), "name": p.name, "input": input,
			}})
		}
	}
	closeText()
	answer := map[string]any{
		"output":     map[string]any{"message": map[string]any{"role": "assistant", "content": content}},
		"stopReason": s.stopReason(), "metrics": map[string]any{"latencyMs": 1},
	}
	if !s.silent {
		answer["usage"] = s.tokens()
	}
	return []byte(encode(answer))
}

// exceptions holds the types of Bedrock's exceptions by HTTP status.
var exceptions = map[int]string{
	http.StatusBadRequest: "ValidationException", http.StatusUnauthorized: "UnrecognizedClientException",
	http.StatusForbidden: "AccessDeniedException", http.StatusNotFound: "ResourceNotFoundException",
	http.StatusRequestTimeout: "ModelTimeoutException", http.StatusFailedDependency: "ModelErrorException",
	http.StatusTooManyRequests: "ThrottlingException", http.StatusInternalServerError: "InternalServerException",
	http.StatusServiceUnavailable: "ServiceUnavailableException",
}
