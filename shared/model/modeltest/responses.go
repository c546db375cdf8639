package modeltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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
	if r.script.has(NoOpening) {
		return
	}
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

// thoughts implements encoder. OpenAI's server sends summaries; this is the form of servers
// of open models. They come before the items of the answer.
func (r *responses) thoughts(piece string) {
	r.open()
	r.event("response.reasoning_text.delta", object{
		"item_id": "rs_1", "output_index": 0, "content_index": 0, "delta": piece,
	})
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

// toolCalls sends the starts of calls, their arguments and, if the answer is complete, their
// ends. See Script.ToolCall for the IDs.
func (r *responses) toolCalls(group []callStep) {
	r.open()
	r.closeMessage()
	s, first := r.script, len(r.output)
	items := make([]object, len(group))
	start := func(i int) {
		r.calls++
		id := "fc_" + CallID(r.request.N, r.calls)
		callID := id + "_api"
		if given := group[i].id; given != nil {
			callID = *given
		}
		items[i] = object{
			"id": id, "type": "function_call", "call_id": callID, "name": group[i].name, "arguments": "",
			"status": "in_progress",
		}
		r.event("response.output_item.added", object{"item": items[i], "output_index": first + i})
	}
	s.sendCalls(group, start, func(i int, piece string) {
		r.event("response.function_call_arguments.delta", object{
			"item_id": items[i]["id"], "output_index": first + i, "delta": piece,
		})
	}, func(i int) {
		if s.ending == whole {
			r.endCall(items[i], group[i], first+i)
		}
	})
}

// endCall sends the end of a call.
func (r *responses) endCall(item object, call callStep, index int) {
	item["arguments"], item["status"] = r.script.whole(call), "completed"
	done := object{
		"item_id": item["id"], "output_index": index, "arguments": item["arguments"], "name": call.name,
	}
	if s := r.script; s.has(DeltasOnly) && !s.inOnePiece(call) && !s.has(NoItems) && !s.has(OtherForm) {
		item["arguments"], done["arguments"] = "", ""
	}
	r.event("response.function_call_arguments.done", done)
	r.event("response.output_item.done", object{"item": item, "output_index": index})
	r.output = append(r.output, item)
}

// end sends response.completed, or response.incomplete if the script has a reason.
func (r *responses) end() {
	response := r.ended()
	r.event(fmt.Sprintf("response.%v", response["status"]), object{"response": response})
}

// ended returns the response of a complete answer.
func (r *responses) ended() object {
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
		response["usage"] = s.counts(object{
			"input_tokens": u.Input, "output_tokens": u.Output, "total_tokens": u.Total,
			"input_tokens_details":  object{"cached_tokens": u.CacheRead, "cache_write_tokens": u.CacheWrite},
			"output_tokens_details": object{"reasoning_tokens": u.Reasoning},
		})
	}
	return response
}

// responseWhole returns an answer in one piece: the response of the last event of a stream.
func responseWhole(s Script, r Request) []byte {
	unsent := responses{stream: stream{out: io.Discard, flush: func() error { return nil }, request: r, script: s}}
	unsent.play()
	return []byte(encode(unsent.ended()))
}

// play plays the steps of the script.
func (r *responses) play() {
	s := r.script
	s.ending = truncated
	perform(r, s, func(<-chan struct{}) bool { return true }) // completion.play has waited
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
	if !r.script.has(NoNames) {
		b.WriteString("event: " + name + "\n")
	}
	b.WriteString("data: ")
	event = maps.Clone(event)
	event["type"], event["sequence_number"] = name, r.sequence
	r.sequence++
	s := r.script
	s.index(event, "output_index", "content_index", "sequence_number")
	switch name {
	case "response.output_item.added", "response.output_item.done", "response.function_call_arguments.delta",
		"response.function_call_arguments.done":
		if s.has(NoItems) {
			return
		}
	}
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(event); err != nil {
		panic(err) // a map of plain values always encodes
	}
	b.WriteByte('\n')
	if s.has(Repeated) && strings.HasPrefix(name, "response.output_item.") {
		b.Write(bytes.Clone(b.Bytes()))
	}
	r.write(b.Bytes())
}
