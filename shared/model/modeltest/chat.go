package modeltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// chat is the encoder for OpenAI's Chat Completions API
// (https://platform.openai.com/docs/api-reference/chat-streaming).
type chat struct {
	stream
	calls int
}

// text implements encoder.
func (c *chat) text(piece string) { c.delta(map[string]any{"content": c.script.content(piece)}) }

// content returns a text in the form of the script.
func (s Script) content(text string) any {
	if s.has(ListContent) {
		return []any{map[string]any{"type": "text", "text": text}}
	}
	return text
}

// thoughts implements encoder. OpenAI's API has no thoughts; this is the form of DeepSeek.
func (c *chat) thoughts(piece string) {
	c.delta(map[string]any{"content": nil, "reasoning_content": piece})
}

// toolCalls implements encoder.
func (c *chat) toolCalls(group []callStep) {
	s, first := c.script, c.calls
	c.calls += len(group)
	send := func(i int, named bool, arguments any) {
		call := map[string]any{"function": map[string]any{"arguments": arguments}, "index": first + i}
		if named || s.has(Named) {
			call["id"], call["type"] = group[i].callID(c.request.N, first+i+1), "function"
			call["function"] = map[string]any{"name": group[i].name, "arguments": arguments}
		}
		s.index(call, "index")
		delta := map[string]any{"tool_calls": []any{call}}
		if s.has(NullContent) {
			delta["content"] = nil
		}
		c.delta(delta)
	}
	start := func(i int) {
		var arguments any = ""
		if s.inOnePiece(group[i]) {
			arguments = s.whole(group[i])
		}
		send(i, true, arguments)
	}
	s.sendCalls(group, start, func(i int, piece string) { send(i, false, piece) }, func(int) {})
}

// open sends the first chunk: the role and an empty text.
func (c *chat) open() {
	if c.opened {
		return
	}
	c.opened = true
	if c.script.has(EarlyUsage) && c.reports() {
		c.chunk([]any{c.choice(map[string]any{}, nil)}, c.script.chatUsage())
	}
	if !c.script.has(NoOpening) {
		c.delta(map[string]any{"role": "assistant", "content": "", "refusal": nil})
	}
}

// reports reports whether the answer has a usage: the request asked for it, and the script
// reports one.
func (c *chat) reports() bool {
	options, _ := c.request.Body["stream_options"].(map[string]any)
	return (options["include_usage"] == true || c.script.has(OtherForm)) && !c.script.silent
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
	c.chunk([]any{c.choice(map[string]any{}, reason)}, nil)
	if c.reports() && !s.has(EarlyUsage) {
		c.chunk([]any{}, s.chatUsage())
	}
	c.write([]byte("data: [DONE]\n\n"))
}

// chatUsage returns the usage in the form of Chat Completions.
func (s Script) chatUsage() map[string]any {
	u := DefaultUsage()
	if s.usage != nil {
		u = *s.usage
	}
	return s.counts(map[string]any{
		"prompt_tokens": u.Input, "completion_tokens": u.Output, "total_tokens": u.Total,
		"prompt_tokens_details":     map[string]any{"cached_tokens": u.CacheRead, "cache_write_tokens": u.CacheWrite},
		"completion_tokens_details": map[string]any{"reasoning_tokens": u.Reasoning},
	})
}

// delta sends a chunk with a delta.
func (c *chat) delta(delta map[string]any) {
	c.open()
	c.chunk([]any{c.choice(delta, nil)}, nil)
}

// choice returns the only choice of a chunk.
func (c *chat) choice(delta map[string]any, finish any) map[string]any {
	choice := map[string]any{"index": 0, "delta": delta, "logprobs": nil, "finish_reason": finish}
	if c.script.has(Messages) {
		choice["message"] = delta
		delete(choice, "delta")
	}
	return choice
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
