package modeltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/keyway-agents/keyway/shared/model"
)

// chat is the encoder for OpenAI's Chat Completions API
// (https://platform.openai.com/docs/api-reference/chat-streaming).
type chat struct {
	stream
	calls int
}

// text implements encoder.
func (c *chat) text(piece string) { c.delta(map[string]any{"content": piece}) }

// toolCalls sends the first deltas of all calls, then their arguments in turns.
func (c *chat) toolCalls(group []callStep) {
	first := c.calls
	for _, call := range group {
		c.calls++
		c.delta(toolDelta(c.calls-1, map[string]any{
			"id": call.callID(c.request.N, c.calls), "type": "function",
			"function": map[string]any{"name": call.name, "arguments": ""},
		}))
	}
	inTurns(group, func(call int, piece string) {
		c.delta(toolDelta(first+call, map[string]any{"function": map[string]any{"arguments": piece}}))
	})
}

// toolDelta returns the delta of one call. Index states to which call it belongs.
func toolDelta(index int, call map[string]any) map[string]any {
	call["index"] = index
	return map[string]any{"tool_calls": []any{call}}
}

// open sends the first chunk: the role and an empty text.
func (c *chat) open() {
	if c.opened {
		return
	}
	c.opened = true
	c.delta(map[string]any{"role": "assistant", "content": "", "refusal": nil})
}

// end sends finish_reason, the usage if the request asked for it, and [DONE].
func (c *chat) end() {
	s := c.script
	reason := "stop"
	if s.calls() {
		reason = "tool_calls"
	}
	if s.finish != "" {
		reason = s.finish
	}
	c.chunk([]any{choice(map[string]any{}, reason)}, nil)
	options, _ := c.request.Body["stream_options"].(map[string]any)
	if options["include_usage"] == true && !s.silent {
		u := DefaultUsage()
		if s.usage != nil {
			u = *s.usage
		}
		c.chunk([]any{}, chatUsage(u))
	}
	c.write([]byte("data: [DONE]\n\n"))
}

// chatUsage returns the usage in the form of Chat Completions.
func chatUsage(u model.Usage) map[string]any {
	return map[string]any{
		"prompt_tokens": u.Input, "completion_tokens": u.Output, "total_tokens": u.Total,
		"prompt_tokens_details":     map[string]any{"cached_tokens": u.CacheRead, "cache_write_tokens": u.CacheWrite},
		"completion_tokens_details": map[string]any{"reasoning_tokens": u.Reasoning},
	}
}

// delta sends a chunk with a delta.
func (c *chat) delta(delta map[string]any) {
	c.open()
	c.chunk([]any{choice(delta, nil)}, nil)
}

// choice returns the only choice of a chunk.
func choice(delta map[string]any, finish any) map[string]any {
	return map[string]any{"index": 0, "delta": delta, "logprobs": nil, "finish_reason": finish}
}

// chunk sends a chunk. The golden transcripts of AgentOS were recorded with chunks of
// this form.
func (c *chat) chunk(choices []any, usage any) {
	var b bytes.Buffer
	b.WriteString("data: ")
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any{
		"id": AnswerID(c.request.N), "object": "chat.completion.chunk", "created": 1700000000,
		"model": c.request.Body["model"], "system_fingerprint": "fp_modeltest",
		"choices": choices, "usage": usage,
	}); err != nil {
		panic(err) // a map of plain values always encodes
	}
	b.WriteByte('\n')
	c.write(b.Bytes())
}

// AnswerID returns the provider's ID of the answer to a request. Requests count from 1.
func AnswerID(request int) string { return fmt.Sprintf("chatcmpl-%d", request) }

// refuse sends an HTTP error, with a body in the form of the requested API or with that
// of the script's Raw.
func refuse(w http.ResponseWriter, s Script, r Request) {
	var message, raw string
	for _, p := range s.steps {
		switch p := p.(type) {
		case textStep:
			message = string(p)
		case rawStep:
			raw += string(p)
		}
	}
	if raw != "" {
		w.WriteHeader(s.status)
		_, _ = io.WriteString(w, raw) // the client may have closed the connection
		return
	}
	w.Header().Set("Content-Type", "application/json")
	body := map[string]any{"error": map[string]any{"message": message, "type": "scripted", "param": nil, "code": nil}}
	if converse, _ := isConverse(r.Path); converse {
		body = map[string]any{"message": message}
		if w.Header().Get("X-Amzn-Errortype") == "" {
			w.Header().Set("X-Amzn-Errortype", exceptions[s.status]+":http://internal.amazon.com/coral/com.amazon.bedrock/")
		}
	}
	if r.Path == pathMessages {
		reported := map[string]any{"type": claudeErrors[s.status], "message": message}
		body = map[string]any{"type": "error", "error": reported, "request_id": "req_scripted"}
	}
	w.WriteHeader(s.status)
	_ = json.NewEncoder(w).Encode(body) // the client may have closed the connection
}
