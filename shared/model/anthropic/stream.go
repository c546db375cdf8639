package anthropic

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// event is the part of any event of a stream that this package uses
// (https://platform.claude.com/docs/en/build-with-claude/streaming).
type event struct {
	Type    string `json:"type"`
	Index   int    `json:"index"`
	Message struct {
		Usage usage `json:"usage"`
	} `json:"message"`
	Block content `json:"content_block"`
	Delta struct {
		Type      string `json:"type"`
		Text      string `json:"text"`
		Arguments string `json:"partial_json"`
		Thinking  string `json:"thinking"`
		Signature string `json:"signature"`
		stop
	} `json:"delta"`
	Usage usage           `json:"usage"`
	Error json.RawMessage `json:"error"`
}

// readStream yields the answer's text and returns its End. A short answer with a tool
// call looks like this, with most members left out:
//
//	data: {"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1}}}
//	data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}
//	data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hm."}}
//	data: {"type":"content_block_stop","index":0}
//	data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use",
//	       "id":"toolu_1","name":"web_search","input":{}}}
//	data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta",
//	       "partial_json":"{\"query\":\"go\"}"}}
//	data: {"type":"content_block_stop","index":1}
//	data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}
//	data: {"type":"message_stop"}
//
// A nil End without an error means that the consumer stopped reading. One json.Decoder
// reads all events, because json.Unmarshal allocates its state anew for each event.
func (a *answer) readStream(body io.Reader, yield func(model.Part) bool) (*model.End, error) {
	a.events = upstream.NewEvents(body)
	decoder := json.NewDecoder(a.events)
	var e event
	for {
		e = event{}
		a.events.Next()
		if err := decoder.Decode(&e); err != nil && !a.events.OtherForm(err, e.Type, isRead) {
			return nil, a.options.provider().StreamError(a.events, err, a.contentType, "message_stop")
		}
		if p, ok := e.part(); ok && !yield(p) {
			return nil, nil
		}
		if err := a.addEvent(&e); err != nil {
			return nil, err
		}
		if e.Type == "message_stop" && a.stop.Reason == "" {
			return nil, fault.Public(fault.Upstream, upstream.CutShort, errors.New("anthropic: no stop_reason"))
		}
		if e.Type == "message_stop" {
			return a.end()
		}
	}
}

// isRead holds the types of the events that this package reads.
var isRead = map[string]bool{
	"": true, "error": true, "message_start": true, "content_block_start": true, "content_block_delta": true,
	"message_delta": true, "message_stop": true,
}

// part returns the part that an event yields: text or thinking. ok is false if the event
// has none. An empty delta counts as text, since AgentOS emits an event for it.
func (e *event) part() (p model.Part, ok bool) {
	switch {
	case e.Type == "content_block_delta" && e.Delta.Type == "text_delta":
		return model.Part{Text: e.Delta.Text}, true
	case e.Type == "content_block_delta" && e.Delta.Type == "thinking_delta":
		return model.Part{Reasoning: e.Delta.Thinking}, e.Delta.Thinking != ""
	case e.Type == "content_block_start":
		return model.Part{Text: e.Block.Text, Reasoning: e.Block.Thinking}, e.Block.Text+e.Block.Thinking != ""
	}
	return p, false
}

// addEvent adds an event to the answer. Pings and event types that are unknown here are
// ignored: the API's versioning policy reserves the right to add types. In a stream every
// tool call starts with the input {}, which is ignored: the real arguments follow as
// deltas.
func (a *answer) addEvent(e *event) error {
	if e.Type == "error" || upstream.Failed(e.Error) {
		return a.options.provider().NoAnswerError(a.events.Last(), "an event error")
	}
	switch e.Type {
	case "":
		if r := upstream.ReportIn(a.events.Last()); r.Text != "" {
			return a.options.provider().ReportError(r)
		}
	case "message_start":
		a.usage.update(e.Message.Usage)
	case "content_block_start":
		if string(e.Block.Input) == "{}" {
			e.Block.Input = nil
		}
		return a.add(a.start(e.Index, &e.Block), &e.Block)
	case "content_block_delta":
		return a.addDelta(e)
	case "message_delta":
		a.usage.update(e.Usage)
		if e.Delta.Reason != "" {
			a.stop = e.Delta.stop
		}
	}
	return nil
}

// addDelta adds a piece to its block. Other types of deltas (citations) are ignored.
func (a *answer) addDelta(e *event) error {
	d := &e.Delta
	switch d.Type {
	case "text_delta":
		return a.add(a.block(e.Index, blockText), &content{Text: d.Text})
	case "thinking_delta":
		return a.add(a.block(e.Index, blockThinking), &content{Thinking: d.Thinking})
	case "signature_delta":
		return a.add(a.block(e.Index, blockThinking), &content{Signature: d.Signature})
	case "input_json_delta":
		b := a.block(e.Index, blockCall)
		b.data = append(b.data, d.Arguments...)
		return a.hold(len(d.Arguments))
	}
	return nil
}
