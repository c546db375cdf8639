package modeltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// responses writes one answer in the form of OpenAI's Responses stream
// (https://platform.openai.com/docs/api-reference/responses-streaming).
type responses struct {
	out      io.Writer
	flush    func() error
	request  Request
	opened   bool
	calls    int
	sequence int
	output   []any            // the finished items
	text     *strings.Builder // of the message that is open; nil: none is
}

type object = map[string]any

// play carries out the script, as chat.play does.
func (r *responses) play(s Script, hold func(<-chan struct{}) bool) {
	for i := 0; i < len(s.steps); i++ {
		switch p := s.steps[i].(type) {
		case waitStep:
			if !hold(p) {
				panic(http.ErrAbortHandler)
			}
		case callStep:
			group := callsFrom(s.steps[i:])
			r.toolCalls(group, s.ending == whole)
			i += len(group) - 1
		case textStep:
			r.say(string(p))
		case hugeStep:
			r.say(strings.Repeat("x", int(p)))
		case rawStep:
			r.opened = true
			r.write([]byte(p))
		}
	}
	r.open()
	switch s.ending {
	case whole:
		r.end(s)
	case dropped:
		panic(http.ErrAbortHandler)
	}
}

// open sends the opening events, once.
func (r *responses) open() {
	if r.opened {
		return
	}
	r.opened = true
	r.event("response.created", object{"response": r.response("in_progress")})
	r.event("response.in_progress", object{"response": r.response("in_progress")})
}

// say sends a piece of the message, and its beginning if it has none yet.
func (r *responses) say(text string) {
	r.open()
	if r.text == nil {
		r.text = &strings.Builder{}
		r.event("response.output_item.added", r.at(object{"item": r.message("in_progress")}))
		r.event("response.content_part.added", r.within(object{"part": textPart("")}))
	}
	r.text.WriteString(text)
	r.event("response.output_text.delta", r.within(object{"delta": text, "logprobs": []any{}}))
}

// closeMessage sends the end of the message, if one is open.
func (r *responses) closeMessage() {
	if r.text == nil {
		return
	}
	text := r.text.String()
	r.event("response.output_text.done", r.within(object{"text": text, "logprobs": []any{}}))
	r.event("response.content_part.done", r.within(object{"part": textPart(text)}))
	message := r.message("completed", textPart(text))
	r.event("response.output_item.done", r.at(object{"item": message}))
	r.output, r.text = append(r.output, message), nil
}

func textPart(text string) object {
	return object{"type": "output_text", "text": text, "annotations": []any{}, "logprobs": []any{}}
}

func (r *responses) message(status string, content ...any) object {
	return object{"id": r.messageID(), "type": "message", "role": "assistant", "status": status, "content": slices.Concat([]any{}, content)}
}

func (r *responses) messageID() string { return fmt.Sprintf("msg_%d_%d", r.request.N, len(r.output)) }

// at places an event at the item that comes next.
func (r *responses) at(event object) object {
	event["output_index"] = len(r.output)
	return event
}

// within places an event in the message that is open.
func (r *responses) within(event object) object {
	event["item_id"], event["content_index"] = r.messageID(), 0
	return r.at(event)
}

// toolCalls sends the openings of all calls, then their arguments in turns, then
// their ends when the answer has one. The item of a call has the id CallID; its
// call_id is that with "_api" after it.
func (r *responses) toolCalls(group []callStep, finish bool) {
	r.open()
	r.closeMessage()
	first := len(r.output)
	var items []object
	longest := 0
	for i, call := range group {
		r.calls++
		id := "fc_" + CallID(r.request.N, r.calls)
		items = append(items, object{
			"id": id, "type": "function_call", "call_id": id + "_api", "name": call.name, "arguments": "", "status": "in_progress",
		})
		longest = max(longest, len([]rune(call.arguments)))
		r.event("response.output_item.added", object{"item": items[i], "output_index": first + i})
	}
	for from := 0; from < longest; from += 3 {
		for i, call := range group {
			if rest := []rune(call.arguments); from < len(rest) {
				r.event("response.function_call_arguments.delta", object{
					"item_id": items[i]["id"], "output_index": first + i, "delta": string(rest[from:min(from+3, len(rest))]),
				})
			}
		}
	}
	for i := range len(group) {
		if !finish {
			break
		}
		items[i]["arguments"], items[i]["status"] = group[i].arguments, "completed"
		r.event("response.function_call_arguments.done", object{
			"item_id": items[i]["id"], "output_index": first + i, "arguments": group[i].arguments, "name": group[i].name,
		})
		r.event("response.output_item.done", object{"item": items[i], "output_index": first + i})
		r.output = append(r.output, items[i])
	}
}

// end closes the answer: complete, or with Finish's reason incomplete.
func (r *responses) end(s Script) {
	r.closeMessage()
	status := "completed"
	if s.finish != "" {
		status = "incomplete"
	}
	response := r.response(status)
	if s.finish != "" {
		response["incomplete_details"] = object{"reason": s.finish}
	}
	if !s.silent {
		u := DefaultUsage()
		if s.usage != nil {
			u = *s.usage
		}
		response["usage"] = object{
			"input_tokens": u.Input, "output_tokens": u.Output, "total_tokens": u.Total,
			"input_tokens_details":  object{"cached_tokens": u.CacheRead, "cache_write_tokens": u.CacheWrite},
			"output_tokens_details": object{"reasoning_tokens": u.Reasoning},
		}
	}
	r.event("response."+status, object{"response": response})
}

func (r *responses) response(status string) object {
	return object{
		"id": fmt.Sprintf("resp_%d", r.request.N), "object": "response", "created_at": 1700000000, "status": status,
		"model": r.request.Body["model"], "output": slices.Concat([]any{}, r.output), "usage": nil, "error": nil, "incomplete_details": nil,
	}
}

func (r *responses) event(name string, event object) {
	var b bytes.Buffer
	b.WriteString("event: " + name + "\ndata: ")
	event = maps.Clone(event)
	event["type"], event["sequence_number"] = name, r.sequence
	r.sequence++
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(event); err != nil {
		panic(err) // a map of plain values always encodes
	}
	b.WriteByte('\n')
	r.write(b.Bytes())
}

func (r *responses) write(b []byte) { (&chat{out: r.out, flush: r.flush}).write(b) }
