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
	events := upstream.NewEvents(body)
	decoder := json.NewDecoder(events)
	var e event
	for {
		e = event{}
		events.Next()
		if err := decoder.Decode(&e); err != nil {
			return nil, a.options.provider().StreamError(events, err, a.contentType, "message_stop")
		}
		if text, ok := e.text(); ok && !yield(model.Part{Text: text}) {
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

// text returns the answer's text in an event. ok is false if the event has none. An
// empty delta counts as text, since AgentOS emits an event for it.
func (e *event) text() (text string, ok bool) {
	switch {
	case e.Type == "content_block_delta" && e.Delta.Type == "text_delta":
		return e.Delta.Text, true
	case e.Type == "content_block_start" && e.Block.Text != "":
		return e.Block.Text, true
	}
	return "", false
}

// addEvent adds an event to the answer. Pings and event types that are unknown here are
// ignored: the API's versioning policy reserves the right to add types. In a stream every
// tool call starts with the input {}, which is ignored: the real arguments follow as
// deltas.
func (a *answer) addEvent(e *event) error {
	if e.Type == "error" || upstream.Present(e.Error) {
		return a.options.provider().ReportError(upstream.ReportInValue(e.Error))
	}
	switch e.Type {
	case "message_start":
		a.usage.update(e.Message.Usage)
	case "content_block_start":
		if string(e.Block.Input) == "{}" {
			e.Block.Input = nil
		}
		return a.add(e.Index, &e.Block)
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
		return a.add(e.Index, &content{Type: blockText, Text: d.Text})
	case "thinking_delta":
		return a.add(e.Index, &content{Type: blockThinking, Thinking: d.Thinking})
	case "signature_delta":
		return a.add(e.Index, &content{Type: blockThinking, Signature: d.Signature})
	case "input_json_delta":
		b := a.block(e.Index, blockCall)
		b.data = append(b.data, d.Arguments...)
		return a.hold(len(d.Arguments))
	}
	return nil
}
