package modeltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// responses writes one answer in the form of OpenAI's Responses stream
// (https://platform.openai.com/docs/api-reference/responses-streaming).
type responses struct {
	stream
	calls    int
	sequence int
	output   []any            // the finished items
	said     *strings.Builder // the text of the message that is open; nil: none is
}

type object = map[string]any

// open sends the opening events, once.
func (r *responses) open() {
	if r.opened {
		return
	}
	r.opened = true
	r.event("response.created", object{"response": r.response("in_progress")})
	r.event("response.in_progress", object{"response": r.response("in_progress")})
}

// text sends a piece of the message, and its beginning if it has none yet.
func (r *responses) text(text string) {
	r.open()
	if r.said == nil {
		r.said = &strings.Builder{}
		r.event("response.output_item.added", r.at(object{"item": r.message("in_progress")}))
		r.event("response.content_part.added", r.within(object{"part": textPart("")}))
	}
	r.said.WriteString(text)
	r.event("response.output_text.delta", r.within(object{"delta": text, "logprobs": []any{}}))
}

// closeMessage sends the end of the message, if one is open.
func (r *responses) closeMessage() {
	if r.said == nil {
		return
	}
	text := r.said.String()
	r.event("response.output_text.done", r.within(object{"text": text, "logprobs": []any{}}))
	r.event("response.content_part.done", r.within(object{"part": textPart(text)}))
	message := r.message("completed", textPart(text))
	r.event("response.output_item.done", r.at(object{"item": message}))
	r.output, r.said = append(r.output, message), nil
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
func (r *responses) toolCalls(group []callStep) {
	r.open()
	r.closeMessage()
	first := len(r.output)
	var items []object
	for i, call := range group {
		r.calls++
		id := "fc_" + CallID(r.request.N, r.calls)
		items = append(items, object{
			"id": id, "type": "function_call", "call_id": id + "_api", "name": call.name, "arguments": "", "status": "in_progress",
		})
		r.event("response.output_item.added", object{"item": items[i], "output_index": first + i})
	}
	inTurns(group, func(call int, piece string) {
		r.event("response.function_call_arguments.delta", object{"item_id": items[call]["id"], "output_index": first + call, "delta": piece})
	})
	if r.script.ending != whole {
		return
	}
	for i := range group {
		items[i]["arguments"], items[i]["status"] = group[i].arguments, "completed"
		r.event("response.function_call_arguments.done", object{
			"item_id": items[i]["id"], "output_index": first + i, "arguments": group[i].arguments, "name": group[i].name,
		})
		r.event("response.output_item.done", object{"item": items[i], "output_index": first + i})
		r.output = append(r.output, items[i])
	}
}

// end closes the answer: complete, or with Finish's reason incomplete.
func (r *responses) end() {
	s := r.script
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
