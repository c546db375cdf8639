package modeltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// responses is the encoder for OpenAI's Responses API
// (https://platform.openai.com/docs/api-reference/responses-streaming).
type responses struct {
	stream
	calls    int
	sequence int              // the number of the next event
	output   []any            // the finished items
	message  *strings.Builder // the text of the open message; nil if none is open
}

// object is a JSON object.
type object = map[string]any

// open sends response.created and response.in_progress.
func (r *responses) open() {
	if r.opened {
		return
	}
	r.opened = true
	r.event("response.created", object{"response": r.response("in_progress")})
	r.event("response.in_progress", object{"response": r.response("in_progress")})
}

// text sends a delta, and the start of a message if none is open.
func (r *responses) text(text string) {
	r.open()
	if r.message == nil {
		r.message = &strings.Builder{}
		r.event("response.output_item.added", r.atItem(object{"item": r.messageItem("in_progress")}))
		r.event("response.content_part.added", r.inMessage(object{"part": textPart("")}))
	}
	r.message.WriteString(text)
	r.event("response.output_text.delta", r.inMessage(object{"delta": text, "logprobs": []any{}}))
}

// closeMessage sends the end of the message, if one is open.
func (r *responses) closeMessage() {
	if r.message == nil {
		return
	}
	text := r.message.String()
	r.event("response.output_text.done", r.inMessage(object{"text": text, "logprobs": []any{}}))
	r.event("response.content_part.done", r.inMessage(object{"part": textPart(text)}))
	item := r.messageItem("completed", textPart(text))
	r.event("response.output_item.done", r.atItem(object{"item": item}))
	r.output, r.message = append(r.output, item), nil
}

// textPart returns the content part of a message.
func textPart(text string) object {
	return object{"type": "output_text", "text": text, "annotations": []any{}, "logprobs": []any{}}
}

// messageItem returns the item of a message.
func (r *responses) messageItem(status string, content ...any) object {
	return object{
		"id": r.messageID(), "type": "message", "role": "assistant", "status": status,
		"content": slices.Concat([]any{}, content),
	}
}

// messageID returns the ID of the open or next message.
func (r *responses) messageID() string { return fmt.Sprintf("msg_%d_%d", r.request.N, len(r.output)) }

// atItem adds the index of the next item to an event.
func (r *responses) atItem(event object) object {
	event["output_index"] = len(r.output)
	return event
}

// inMessage adds the position in the open message to an event.
func (r *responses) inMessage(event object) object {
	event["item_id"], event["content_index"] = r.messageID(), 0
	return r.atItem(event)
}

// toolCalls sends the starts of all calls, then their arguments in turns, then, if the
// answer is complete, their ends. See Script.ToolCall for the IDs.
func (r *responses) toolCalls(group []callStep) {
	r.open()
	r.closeMessage()
	first := len(r.output)
	var items []object
	for i, call := range group {
		r.calls++
		id := "fc_" + CallID(r.request.N, r.calls)
		callID := id + "_api"
		if call.id != nil {
			callID = *call.id
		}
		items = append(items, object{
			"id": id, "type": "function_call", "call_id": callID, "name": call.name, "arguments": "",
			"status": "in_progress",
		})
		r.event("response.output_item.added", object{"item": items[i], "output_index": first + i})
	}
	inTurns(group, func(call int, piece string) {
		r.event("response.function_call_arguments.delta", object{
			"item_id": items[call]["id"], "output_index": first + call, "delta": piece,
		})
	})
	if r.script.ending != whole {
		return
	}
	for i := range group {
		items[i]["arguments"], items[i]["status"] = group[i].arguments, "completed"
		r.event("response.function_call_arguments.done", object{
			"item_id": items[i]["id"], "output_index": first + i,
			"arguments": group[i].arguments, "name": group[i].name,
		})
		r.event("response.output_item.done", object{"item": items[i], "output_index": first + i})
		r.output = append(r.output, items[i])
	}
}

// end sends response.completed, or response.incomplete if the script has a reason.
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

// response returns the response object that several events contain.
func (r *responses) response(status string) object {
	return object{
		"id": fmt.Sprintf("resp_%d", r.request.N), "object": "response", "created_at": 1700000000, "status": status,
		"model": r.request.Body["model"], "output": slices.Concat([]any{}, r.output),
		"usage": nil, "error": nil, "incomplete_details": nil,
	}
}

// event sends an event, with its type and number.
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
