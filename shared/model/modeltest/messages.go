package modeltest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// messages is the encoder for Anthropic's Messages API
// (https://platform.claude.com/docs/en/build-with-claude/streaming).
type messages struct {
	stream
	blocks   int // content blocks so far; all text up to a call is one block
	calls    int
	openType string // the type of the last block, if it is text or thinking and still open
}

// open sends message_start and a ping. Like Anthropic's, the first usage counts one
// token of output.
func (m *messages) open() {
	if m.opened {
		return
	}
	m.opened = true
	if m.script.has(NoOpening) {
		return
	}
	message := m.script.message(m.request, []any{}, nil)
	if usage, ok := message["usage"].(object); ok {
		usage["output_tokens"] = 1
		delete(usage, "output_tokens_details")
		if m.script.has(LateUsage) {
			message["usage"] = object{"input_tokens": 0, "output_tokens": 0}
		}
	}
	m.event("message_start", object{"message": message})
	m.event("ping", object{})
}

// text implements encoder.
func (m *messages) text(piece string) {
	m.begin(object{"type": "text", "text": ""})
	m.delta(m.blocks-1, object{"type": "text_delta", "text": piece})
}

// thoughts implements encoder.
func (m *messages) thoughts(piece string) {
	m.begin(object{"type": "thinking", "thinking": "", "signature": ""})
	m.delta(m.blocks-1, object{"type": "thinking_delta", "thinking": piece})
}

// begin sends the start of a block, unless one of its type is open.
func (m *messages) begin(block object) {
	m.open()
	if m.openType == block["type"] {
		return
	}
	m.close()
	m.openType, _ = block["type"].(string)
	m.blocks++
	m.event("content_block_start", object{"index": m.blocks - 1, "content_block": block})
}

// toolCalls implements encoder.
func (m *messages) toolCalls(group []callStep) {
	m.open()
	m.close()
	s, first := m.script, m.blocks
	start := func(i int) {
		m.calls++
		m.blocks++
		var input any = object{}
		if s.inOnePiece(group[i]) && group[i].arguments != "" {
			input = s.whole(group[i])
		}
		m.event("content_block_start", object{"index": first + i, "content_block": object{
			"type": "tool_use", "id": group[i].callID(m.request.N, m.calls), "name": group[i].name, "input": input,
		}})
		m.delta(first+i, object{"type": "input_json_delta", "partial_json": ""})
	}
	s.sendCalls(group, start, func(i int, piece string) {
		m.delta(first+i, object{"type": "input_json_delta", "partial_json": piece})
	}, func(i int) {
		m.event("content_block_stop", object{"index": first + i})
	})
}

// close ends the open block, if there is one.
func (m *messages) close() {
	if m.openType != "" {
		m.openType = ""
		m.event("content_block_stop", object{"index": m.blocks - 1})
	}
}

// delta sends a piece of a block.
func (m *messages) delta(block int, delta object) {
	m.event("content_block_delta", object{"index": block, "delta": delta})
}

// end sends the stop reason with the final usage, and message_stop.
func (m *messages) end() {
	s := m.script
	m.close()
	last := object{"delta": object{"stop_reason": s.stopReason(), "stop_sequence": nil}}
	if usage := s.claudeUsage(); usage != nil {
		last["usage"] = object{
			"output_tokens": usage["output_tokens"], "output_tokens_details": usage["output_tokens_details"],
		}
		if s.has(LateUsage) || s.has(NoOpening) {
			last["usage"] = usage
		}
	}
	m.event("message_delta", last)
	m.event("message_stop", object{})
}

// event sends an event. Its name is in the data a second time, as in Anthropic's
// stream.
func (m *messages) event(name string, value object) {
	value["type"] = name
	m.script.index(value, "index")
	event := "event: " + name + "\ndata: " + encode(value) + "\n"
	if m.script.has(NoNames) {
		event = "data: " + encode(value) + "\n"
	}
	if m.script.has(Repeated) && (name == "content_block_start" || name == "content_block_stop") {
		event += event
	}
	m.write([]byte(event))
}

// message returns a message object: a complete answer, or what message_start contains.
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

// claudeUsage returns the usage in Anthropic's form; nil if the script reports none.
func (s Script) claudeUsage() object {
	if s.silent {
		return nil
	}
	u := DefaultUsage()
	if s.usage != nil {
		u = *s.usage
	}
	return s.counts(object{
		"input_tokens": u.Input, "output_tokens": u.Output,
		"cache_read_input_tokens": u.CacheRead, "cache_creation_input_tokens": u.CacheWrite,
		"output_tokens_details": object{"thinking_tokens": u.Reasoning}, "service_tier": "standard",
	})
}

// messageWhole returns an answer in one piece of the Messages API.
func messageWhole(s Script, r Request) []byte {
	content := []any{}
	if thoughts := s.thoughts(); thoughts != "" {
		content = append(content, object{"type": "thinking", "thinking": thoughts, "signature": ""})
	}
	calls, text := 0, ""
	closeText := func() {
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
			closeText()
			calls++
			var input any = json.RawMessage("{}")
			switch {
			case s.has(WholeArguments):
				input = p.arguments
			case p.arguments != "":
				input = json.RawMessage(p.arguments)
			}
			content = append(content, object{
				"type": "tool_use", "id": p.callID(r.N, calls), "name": p.name, "input": input,
			})
		}
	}
	closeText()
	return []byte(encode(s.message(r, content, s.stopReason())))
}

// claudeErrors holds the types of Anthropic's errors by HTTP status
// (https://platform.claude.com/docs/en/api/errors).
var claudeErrors = map[int]string{
	http.StatusBadRequest:            "invalid_request_error",
	http.StatusUnauthorized:          "authentication_error",
	http.StatusPaymentRequired:       "billing_error",
	http.StatusForbidden:             "permission_error",
	http.StatusNotFound:              "not_found_error",
	http.StatusRequestEntityTooLarge: "request_too_large",
	http.StatusTooManyRequests:       "rate_limit_error",
	http.StatusInternalServerError:   "api_error",
	http.StatusGatewayTimeout:        "timeout_error",
	529:                              "overloaded_error",
}
