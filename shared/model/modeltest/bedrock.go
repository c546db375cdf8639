package modeltest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/aws/smithy-go/eventstream"
)

// converse writes one answer in the form of Bedrock's ConverseStream: frames of
// application/vnd.amazon.eventstream
// (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html).
type converse struct {
	stream
	blocks  int // content blocks so far; all text up to a call is one
	calls   int
	texting bool
}

// open sends the opening event, once.
func (c *converse) open() {
	if !c.opened {
		c.opened = true
		c.event("messageStart", map[string]any{"role": "assistant"})
	}
}

func (c *converse) text(piece string) {
	c.open()
	if !c.texting {
		c.texting = true
		c.blocks++
	}
	c.delta(c.blocks-1, map[string]any{"text": piece})
}

// toolCalls sends the openings of all calls, then their arguments in turns.
func (c *converse) toolCalls(group []callStep) {
	c.open()
	c.closeText()
	first := c.blocks
	for i, call := range group {
		c.calls++
		c.blocks++
		c.event("contentBlockStart", map[string]any{
			"contentBlockIndex": first + i,
			"start":             map[string]any{"toolUse": map[string]any{"toolUseId": CallID(c.request.N, c.calls), "name": call.name}},
		})
	}
	inTurns(group, func(call int, piece string) {
		c.delta(first+call, map[string]any{"toolUse": map[string]any{"input": piece}})
	})
	for i := range group {
		c.event("contentBlockStop", map[string]any{"contentBlockIndex": first + i})
	}
}

func (c *converse) closeText() {
	if c.texting {
		c.texting = false
		c.event("contentBlockStop", map[string]any{"contentBlockIndex": c.blocks - 1})
	}
}

func (c *converse) delta(block int, delta map[string]any) {
	c.event("contentBlockDelta", map[string]any{"contentBlockIndex": block, "delta": delta})
}

func (c *converse) end() {
	s := c.script
	c.closeText()
	c.event("messageStop", map[string]any{"stopReason": s.stopReason()})
	metadata := map[string]any{"metrics": map[string]any{"latencyMs": 1}}
	if !s.silent {
		metadata["usage"] = s.tokens()
	}
	c.event("metadata", metadata)
}

// stopReason is the script's own, or the vendor's for what the script holds.
func (s Script) stopReason() string {
	switch {
	case s.finish != "":
		return s.finish
	case s.calls():
		return "tool_use"
	}
	return "end_turn"
}

// tokens are the script's in Bedrock's words, which has none for reasoning.
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

func (c *converse) event(name string, value map[string]any) {
	c.write([]byte(Frame("event", name, encode(value))))
}

func encode(value any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic(err) // a map of plain values always encodes
	}
	return b.String()
}

// Frame is one message of an event stream, for Script.Raw: an "event" or an
// "exception" of a type, with its JSON.
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

// write sends a frame in three writes, cut within its head and in its middle.
func (c *converse) write(frame []byte) {
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

// converseWhole is the answer of Bedrock's Converse.
func converseWhole(s Script, r Request) []byte {
	content := []any{}
	calls, text := 0, ""
	say := func() {
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
			say()
			calls++
			input := json.RawMessage("{}")
			if p.arguments != "" {
				input = json.RawMessage(p.arguments)
			}
			content = append(content, map[string]any{"toolUse": map[string]any{"toolUseId": CallID(r.N, calls), "name": p.name, "input": input}})
		}
	}
	say()
	answer := map[string]any{
		"output":     map[string]any{"message": map[string]any{"role": "assistant", "content": content}},
		"stopReason": s.stopReason(), "metrics": map[string]any{"latencyMs": 1},
	}
	if !s.silent {
		answer["usage"] = s.tokens()
	}
	return []byte(encode(answer))
}

// exceptions are the types of Bedrock's errors by their status.
var exceptions = map[int]string{
	http.StatusBadRequest: "ValidationException", http.StatusUnauthorized: "UnrecognizedClientException",
	http.StatusForbidden: "AccessDeniedException", http.StatusNotFound: "ResourceNotFoundException",
	http.StatusRequestTimeout: "ModelTimeoutException", http.StatusFailedDependency: "ModelErrorException",
	http.StatusTooManyRequests: "ThrottlingException", http.StatusInternalServerError: "InternalServerException",
	http.StatusServiceUnavailable: "ServiceUnavailableException",
}
