package modeltest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// messages writes one answer in the form of a stream of Anthropic's Messages API
// (https://platform.claude.com/docs/en/build-with-claude/streaming).
type messages struct {
	stream
	blocks  int // content blocks so far; all text up to a call is one
	calls   int
	texting bool
}

// open sends the opening event and a ping, once. The output's count is not known yet.
func (m *messages) open() {
	if m.opened {
		return
	}
	m.opened = true
	message := m.script.message(m.request, []any{}, nil)
	if usage, ok := message["usage"].(object); ok {
		usage["output_tokens"] = 1
		delete(usage, "output_tokens_details")
	}
	m.event("message_start", object{"message": message})
	m.event("ping", object{})
}

func (m *messages) text(piece string) {
	m.open()
	if !m.texting {
		m.texting = true
		m.blocks++
		m.event("content_block_start", object{"index": m.blocks - 1, "content_block": object{"type": "text", "text": ""}})
	}
	m.delta(m.blocks-1, object{"type": "text_delta", "text": piece})
}

// toolCalls sends the openings of all calls, then their arguments in turns.
func (m *messages) toolCalls(group []callStep) {
	m.open()
	m.closeText()
	first := m.blocks
	for i, call := range group {
		m.calls++
		m.blocks++
		m.event("content_block_start", object{"index": first + i, "content_block": object{
			"type": "tool_use", "id": CallID(m.request.N, m.calls), "name": call.name, "input": object{},
		}})
		m.delta(first+i, object{"type": "input_json_delta", "partial_json": ""})
	}
	inTurns(group, func(call int, piece string) {
		m.delta(first+call, object{"type": "input_json_delta", "partial_json": piece})
	})
	for i := range group {
		m.event("content_block_stop", object{"index": first + i})
	}
}

func (m *messages) closeText() {
	if m.texting {
		m.texting = false
		m.event("content_block_stop", object{"index": m.blocks - 1})
	}
}

func (m *messages) delta(block int, delta object) {
	m.event("content_block_delta", object{"index": block, "delta": delta})
}

func (m *messages) end() {
	s := m.script
	m.closeText()
	last := object{"delta": object{"stop_reason": s.stopReason(), "stop_sequence": nil}}
	if usage := s.claudeUsage(); usage != nil {
		last["usage"] = object{"output_tokens": usage["output_tokens"], "output_tokens_details": usage["output_tokens_details"]}
	}
	m.event("message_delta", last)
	m.event("message_stop", object{})
}

func (m *messages) event(name string, value object) {
	value["type"] = name
	m.write([]byte("event: " + name + "\ndata: " + encode(value) + "\n"))
}

// message is an answer, or the beginning of one, as the API shows it.
func (s Script) message(r Request, content []any, stopReason any) object {
	message := object{
		"id": fmt.Sprintf("msg_%d", r.N), "type": "message", "role": "assistant", "model": r.Body["model"],
		"content": content, "stop_reason": stopReason, "stop_sequence": nil,
	}
	if usage := s.claudeUsage(); usage != nil {
		message["usage"] = usage
	}
	return message
}

// claudeUsage is nil when the script is silent about it.
func (s Script) claudeUsage() object {
	if s.silent {
		return nil
	}
	u := DefaultUsage()
	if s.usage != nil {
		u = *s.usage
	}
	return object{
		"input_tokens": u.Input, "output_tokens": u.Output, "cache_read_input_tokens": u.CacheRead, "cache_creation_input_tokens": u.CacheWrite,
		"output_tokens_details": object{"thinking_tokens": u.Reasoning}, "service_tier": "standard",
	}
}

// messageWhole is the answer of the Messages API in one piece.
func messageWhole(s Script, r Request) []byte {
	content := []any{}
	calls, text := 0, ""
	say := func() {
		if text != "" {
			content, text = append(content, object{"type": "text", "text": text}), ""
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
			content = append(content, object{"type": "tool_use", "id": CallID(r.N, calls), "name": p.name, "input": input})
		}
	}
	say()
	return []byte(encode(s.message(r, content, s.stopReason())))
}

// claudeErrors are the types of Anthropic's errors by their status.
var claudeErrors = map[int]string{
	http.StatusBadRequest: "invalid_request_error", http.StatusUnauthorized: "authentication_error", http.StatusPaymentRequired: "billing_error",
	http.StatusForbidden: "permission_error", http.StatusNotFound: "not_found_error", http.StatusRequestEntityTooLarge: "request_too_large",
	http.StatusTooManyRequests: "rate_limit_error", http.StatusInternalServerError: "api_error", http.StatusGatewayTimeout: "timeout_error",
	529: "overloaded_error",
}
