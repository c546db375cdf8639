package modeltest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// completion sends answers in one piece. body makes the answer in the form of an API.
type completion struct {
	stream
	body func(Script, Request) []byte
}

// play sends an answer as the script says. The whole script is played before the first
// byte is sent; a Raw step is sent instead of the answer. An answer that ends early
// ends in the middle of its JSON.
func (c *completion) play(wait waiter) {
	s := c.script
	for _, step := range s.steps {
		switch p := step.(type) {
		case waitStep:
			if !wait(p) {
				panic(http.ErrAbortHandler)
			}
		case rawStep:
			_, _ = io.WriteString(c.out, string(p)) // the client may have closed the connection
			return
		}
	}
	body := c.body(s, c.request)
	switch s.ending {
	case whole:
		_, _ = c.out.Write(body)
	case truncated:
		_, _ = c.out.Write(body[:len(body)/2])
	case dropped:
		_, _ = c.out.Write(body[:len(body)/2])
		_ = c.flush()
		panic(http.ErrAbortHandler)
	}
}

// chatCompletion returns an answer in one piece of OpenAI's Chat Completions API
// (https://platform.openai.com/docs/api-reference/chat/object).
func chatCompletion(s Script, r Request) []byte {
	var text strings.Builder
	var calls []any
	for _, step := range s.steps {
		switch p := step.(type) {
		case textStep:
			text.WriteString(string(p))
		case hugeStep:
			text.WriteString(strings.Repeat("x", int(p)))
		case callStep:
			calls = append(calls, map[string]any{
				"id": p.callID(r.N, len(calls)+1), "type": "function",
				"function": map[string]any{"name": p.name, "arguments": s.whole(p)},
			})
		}
	}
	message := map[string]any{"role": "assistant", "content": s.content(text.String()), "refusal": nil}
	if thoughts := s.thoughts(); thoughts != "" {
		message["reasoning_content"] = thoughts
	}
	reason := "stop"
	if len(calls) > 0 {
		message["tool_calls"], reason = calls, "tool_calls"
		if text.Len() == 0 {
			message["content"] = nil
		}
	}
	if s.finish != "" {
		reason = s.finish
	}
	answer := map[string]any{
		"id": AnswerID(r.N), "object": "chat.completion", "created": 1700000000, "model": r.Body["model"],
		"system_fingerprint": "fp_modeltest",
		"choices":            []any{map[string]any{"index": 0, "message": message, "logprobs": nil, "finish_reason": reason}},
	}
	if !s.silent {
		answer["usage"] = s.chatUsage()
	}
	body, err := json.Marshal(answer)
	if err != nil {
		panic(err) // a map of plain values always encodes
	}
	return body
}
