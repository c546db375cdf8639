package modeltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/model"
)

// chat writes one answer in the form of OpenAI's chat completion chunks
// (https://platform.openai.com/docs/api-reference/chat-streaming).
type chat struct {
	out     io.Writer
	flush   func() error
	request Request
	opened  bool
	calls   int
}

// play carries out the script. hold is asked at each Wait and says false when
// there is nobody to go on for.
func (c *chat) play(s Script, hold func(<-chan struct{}) bool) {
	for i := 0; i < len(s.steps); i++ {
		switch p := s.steps[i].(type) {
		case waitStep:
			if !hold(p) {
				panic(http.ErrAbortHandler)
			}
		case callStep:
			group := callsFrom(s.steps[i:])
			c.toolCalls(group)
			i += len(group) - 1
		default:
			c.say(p)
		}
	}
	switch s.ending {
	case whole:
		c.end(s)
	case truncated:
		c.open()
	case dropped:
		c.open()
		panic(http.ErrAbortHandler)
	}
}

func (c *chat) say(p step) {
	switch p := p.(type) {
	case textStep:
		c.delta(map[string]any{"content": string(p)})
	case hugeStep:
		c.delta(map[string]any{"content": strings.Repeat("x", int(p))})
	case rawStep:
		c.opened = true
		c.write([]byte(p))
	}
}

// toolCalls sends the openings of all calls, then their arguments in turns.
func (c *chat) toolCalls(group []callStep) {
	first := c.calls
	for _, call := range group {
		c.calls++
		c.delta(toolDelta(c.calls-1, map[string]any{
			"id": CallID(c.request.N, c.calls), "type": "function",
			"function": map[string]any{"name": call.name, "arguments": ""},
		}))
	}
	pieces := make([][]string, len(group))
	longest := 0
	for i, call := range group {
		for piece := range slices.Chunk([]rune(call.arguments), 3) {
			pieces[i] = append(pieces[i], string(piece))
		}
		longest = max(longest, len(pieces[i]))
	}
	for turn := range longest {
		for i := range group {
			if turn < len(pieces[i]) {
				c.delta(toolDelta(first+i, map[string]any{
					"function": map[string]any{"arguments": pieces[i][turn]},
				}))
			}
		}
	}
}

func toolDelta(index int, call map[string]any) map[string]any {
	call["index"] = index
	return map[string]any{"tool_calls": []any{call}}
}

func callsFrom(steps []step) []callStep {
	var group []callStep
	for _, p := range steps {
		call, ok := p.(callStep)
		if !ok {
			break
		}
		group = append(group, call)
	}
	return group
}

// open sends the opening chunk, once.
func (c *chat) open() {
	if c.opened {
		return
	}
	c.opened = true
	c.delta(map[string]any{"role": "assistant", "content": "", "refusal": nil})
}

func (c *chat) end(s Script) {
	c.open()
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

func chatUsage(u model.Usage) map[string]any {
	return map[string]any{
		"prompt_tokens": u.Input, "completion_tokens": u.Output, "total_tokens": u.Total,
		"prompt_tokens_details":     map[string]any{"cached_tokens": u.CacheRead, "cache_write_tokens": u.CacheWrite},
		"completion_tokens_details": map[string]any{"reasoning_tokens": u.Reasoning},
	}
}

func (c *chat) delta(delta map[string]any) {
	c.open()
	c.chunk([]any{choice(delta, nil)}, nil)
}

func choice(delta map[string]any, finish any) map[string]any {
	return map[string]any{"index": 0, "delta": delta, "logprobs": nil, "finish_reason": finish}
}

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

// AnswerID is the vendor's id of the answer to the request-th request, from 1.
func AnswerID(request int) string { return fmt.Sprintf("chatcmpl-%d", request) }

// write sends b at once, or in two writes cut within its first character outside
// ASCII. A client that has gone is nobody's fault.
func (c *chat) write(b []byte) {
	cut := bytes.IndexFunc(b, func(r rune) bool { return r >= utf8.RuneSelf })
	if cut >= 0 {
		c.put(b[:cut+1])
		b = b[cut+1:]
	}
	c.put(b)
}

func (c *chat) put(b []byte) {
	if _, err := c.out.Write(b); err != nil {
		panic(http.ErrAbortHandler)
	}
	if err := c.flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// refuse answers with an HTTP error, in the vendor's form of the body unless the
// script brings its own.
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
		_, _ = io.WriteString(w, raw) // the client may have gone
		return
	}
	w.Header().Set("Content-Type", "application/json")
	body := map[string]any{"error": map[string]any{"message": message, "type": "scripted", "param": nil, "code": nil}}
	if converses, _ := isConverse(r.Path); converses {
		body = map[string]any{"message": message}
		if w.Header().Get("X-Amzn-Errortype") == "" {
			w.Header().Set("X-Amzn-Errortype", exceptions[s.status]+":http://internal.amazon.com/coral/com.amazon.bedrock/")
		}
	}
	if r.Path == pathMessages {
		body = map[string]any{"type": "error", "error": map[string]any{"type": claudeErrors[s.status], "message": message}, "request_id": "req_scripted"}
	}
	w.WriteHeader(s.status)
	_ = json.NewEncoder(w).Encode(body) // likewise
}
