package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/wire"
)

// ResponseStream encodes the events of a run as those of a response. It is for one stream.
//
// Only a run that has ended ends with done: clients read no further, and a paused run may continue behind it.
//
// The same events of a run always become the same events of the response, with the same sequence numbers. So a client
// that was disconnected can get the rest: see Skip.
type ResponseStream struct {
	of   Of
	skip int // events up to this sequence number are left out

	out      bytes.Buffer // of the present event; reused
	head     wire.Head    // of the run
	sequence int          // of the next event
	items    []Item       // until now; the text of the last one is in text while it is open
	messages int          // how many of them are messages; the others are thoughts
	open     bool         // the last item is not complete
	text     strings.Builder
	started  bool   // the first two events were sent
	delta    string // the beginning of a delta's frame, up to the sequence number
	rest     []byte // what follows that number, up to the text
}

// NewResponseStream returns the encoder of one stream.
func NewResponseStream(of Of) *ResponseStream { return &ResponseStream{of: of, skip: -1} }

// Skip makes the stream begin behind the event with this sequence number.
func (s *ResponseStream) Skip(sequence int) *ResponseStream {
	s.skip = sequence
	return s
}

// Event returns the frames of an event of the run. They are valid until the next call.
func (s *ResponseStream) Event(event wire.Event) []byte {
	s.out.Reset()
	switch e := event.(type) {
	case wire.Content:
		s.think(e.Head, e.ReasoningContent)
		if e.Content != "" {
			s.begin(e.Head)
			s.add(e.Content)
		}
	case wire.ContentOpened:
		s.think(e.Head, e.ReasoningContent)
	case wire.ToolStarted:
		if s.thinks() { // what follows the call are new thoughts
			s.close(completed)
		}
	case wire.Started:
		s.begin(e.Head)
	case wire.Completed:
		s.begin(e.Head)
		if len(s.items) == 0 && e.ReasoningContent != nil { // the run was not streamed
			s.think(e.Head, *e.ReasoningContent)
		}
		if s.messages == 0 && e.Content != "" {
			s.add(e.Content)
		}
		s.close(completed)
		s.end("response.completed", func(r *Response) {
			r.Status, r.Usage, r.CompletedAt = completed, usageOf(e.Metrics), &e.CreatedAt
		})
		s.out.WriteString(done)
	case wire.Paused:
		s.begin(e.Head)
		notice := Waits(e.AgentID, e.RunID)
		if s.open && !s.thinks() && s.text.Len() > 0 {
			notice = between + notice
		}
		s.add(notice)
		s.close(incomplete)
		s.end("response.incomplete", func(r *Response) {
			r.Status, r.IncompleteDetails = incomplete, &Incomplete{paused}
		})
	case wire.Failed:
		s.begin(e.Head)
		s.fail(failed, newError("run_failed", e.Content))
	case wire.Cancelled:
		s.begin(e.Head)
		s.fail(aborted, newError("run_cancelled", cancelled))
	case wire.Meta: // of a stream that can't be continued
		s.error(newError("stream_failed", e.Error))
		s.out.WriteString(done)
	}
	return s.out.Bytes()
}

// HandedOver returns the last frames of a stream whose run another process continues. They say that the response is in
// progress, as those of a request in the background do. The client gets the rest with GET and starting_after.
func (s *ResponseStream) HandedOver(wire.Accepted) []byte {
	s.out.Reset()
	if s.started { // A repeated request may have no event of the run yet.
		s.end("response.in_progress", func(*Response) {})
	}
	return s.out.Bytes()
}

// begin sends the first two events, unless they were sent.
func (s *ResponseStream) begin(h wire.Head) {
	if s.started {
		return
	}
	s.head, s.started = h, true
	for _, kind := range []string{"response.created", "response.in_progress"} {
		s.event(kind, named("response", s.response()))
	}
}

// add sends a piece of the answer, and before the first piece of a message what announces it.
func (s *ResponseStream) add(text string) {
	if s.thinks() {
		s.close(completed)
	}
	if !s.open {
		s.openMessage()
	}
	s.piece(text)
}

// think sends a piece of the model's thoughts, unless it is "". Thoughts are an item of their own before the message,
// or between two messages.
func (s *ResponseStream) think(h wire.Head, text string) {
	if text == "" {
		return
	}
	s.begin(h)
	if !s.thinks() {
		s.close(completed)
		s.openThoughts()
	}
	s.piece(text)
}

// thinks reports whether the open item has thoughts.
func (s *ResponseStream) thinks() bool { return s.open && s.items[len(s.items)-1].Type == reasoning }

// piece sends a piece of the open item.
func (s *ResponseStream) piece(text string) {
	s.text.WriteString(text)
	if s.next() {
		out := append(s.out.AvailableBuffer(), s.delta...)
		out = strconv.AppendInt(out, int64(s.sequence-1), 10)
		out = append(out, s.rest...)
		out = wire.AppendText(out, text)
		out = append(out, "}\n\n"...)
		s.out.Write(out)
	}
}

// The beginnings of deltas, up to the sequence number.
const (
	textDelta = "event: response.output_text.delta\ndata: " +
		`{"type":"response.output_text.delta","sequence_number":`
	thoughtsDelta = "event: response.reasoning_summary_text.delta\ndata: " +
		`{"type":"response.reasoning_summary_text.delta","sequence_number":`
)

// openMessage announces a message. A run has one, and one more for each time that it continues after a pause, or that
// its model thinks between two texts.
func (s *ResponseStream) openMessage() {
	item := Item{
		ID: numbered(messageID(s.head.RunID), s.messages), Type: "message", Status: inProgress, Role: assistant,
		Content: []Part{},
	}
	s.messages++
	place := s.openItem(item, `"content_index":0`)
	s.delta, s.rest = textDelta, []byte(place+`,"logprobs":[],"delta":`)
	s.event("response.content_part.added", []byte(place+`,"part":`+string(encode(newPart("")))))
}

// openThoughts announces thoughts.
func (s *ResponseStream) openThoughts() {
	id := numbered(thoughtsID(s.head.RunID), len(s.items)-s.messages)
	place := s.openItem(Item{ID: id, Type: reasoning, Summary: []Summary{}}, `"summary_index":0`)
	s.delta, s.rest = thoughtsDelta, []byte(place+`,"delta":`)
	s.event("response.reasoning_summary_part.added", []byte(place+`,"part":`+string(encode(Summary{Type: summaryText}))))
}

// numbered returns the id of an item of which n are before it.
func numbered(id string, n int) string {
	if n > 0 {
		id += "_" + strconv.Itoa(n)
	}
	return id
}

// openItem announces an item. It returns the members that say where its text is.
func (s *ResponseStream) openItem(item Item, part string) (place string) {
	index := len(s.items)
	s.items = append(s.items, item)
	s.open = true
	s.text.Reset()
	s.event("response.output_item.added", fmt.Appendf(nil, `,"output_index":%d,"item":%s`, index, encode(item)))
	return placeOf(item.ID, index, part)
}

func placeOf(id string, index int, part string) string {
	return fmt.Sprintf(`,"item_id":"%s","output_index":%d,%s`, id, index, part)
}

// close ends the open item, if there is one.
func (s *ResponseStream) close(status string) {
	if !s.open {
		return
	}
	index := len(s.items) - 1
	item, text := s.items[index], s.text.String()
	if s.thinks() {
		item = newThoughts(item.ID, text)
		place := placeOf(item.ID, index, `"summary_index":0`)
		s.event("response.reasoning_summary_text.done", wire.AppendText([]byte(place+`,"text":`), text))
		s.event("response.reasoning_summary_part.done", []byte(place+`,"part":`+string(encode(item.Summary[0]))))
	} else {
		item = newMessage(item.ID, status, text)
		place := placeOf(item.ID, index, `"content_index":0`)
		s.event("response.output_text.done", wire.AppendText([]byte(place+`,"logprobs":[],"text":`), text))
		s.event("response.content_part.done", []byte(place+`,"part":`+string(encode(item.Content[0]))))
	}
	s.items[index], s.open = item, false
	s.event("response.output_item.done", fmt.Appendf(nil, `,"output_index":%d,"item":%s`, index, encode(item)))
}

// fail sends an error, at which clients stop, and the failed response for those that ignore it.
func (s *ResponseStream) fail(status string, e ResponseError) {
	s.close(incomplete)
	s.error(e)
	s.end("response.failed", func(r *Response) { r.Status, r.Error = status, &e })
	s.out.WriteString(done)
}

// error sends an error in the two forms that clients read: OpenAI's SDKs throw at the member error alone.
func (s *ResponseStream) error(e ResponseError) {
	text := string(wire.AppendText(nil, e.Message))
	s.event("error", []byte(`,"code":"`+e.Code+`","message":`+text+`,"param":null,"error":{"type":"`+
		e.Type+`","code":"`+e.Code+`","message":`+text+`,"param":null}`))
}

// end sends an event with the response as change makes it.
func (s *ResponseStream) end(kind string, change func(*Response)) {
	r := s.response()
	change(&r)
	s.event(kind, named("response", r))
}

// response returns the response with the messages until now.
func (s *ResponseStream) response() Response {
	r := s.of.response(s.head.RunID, s.head.SessionID, s.head.AgentID, s.head.CreatedAt)
	r.Output = append(r.Output, s.items...)
	return r
}

// event sends one event. The members follow the type and the sequence number, and begin with a comma.
func (s *ResponseStream) event(kind string, members []byte) {
	if s.next() {
		fmt.Fprintf(&s.out, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%d", kind, kind, s.sequence-1)
		s.out.Write(members)
		s.out.WriteString("}\n\n")
	}
}

// next counts an event, and reports whether it is to be sent.
func (s *ResponseStream) next() bool {
	s.sequence++
	return s.sequence-1 > s.skip
}

func named(name string, v any) []byte { return append([]byte(`,"`+name+`":`), encode(v)...) }

// encode returns v as JSON without line ends.
func encode(v any) json.RawMessage {
	data, err := wire.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers, and an object that was checked
	}
	return wire.EscapeLines(data)
}
