package anthropic

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// event is what we need of any event of a stream
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

// readStream yields the answer's text and returns its end; nil without an error says
// that the listener left.
func (a *answer) readStream(body io.Reader, yield func(model.Part) bool) (*model.End, error) {
	events := upstream.NewEvents(body)
	decoder := json.NewDecoder(events) // one for all events: json.Unmarshal allocates its state for each
	var e event
	for {
		e = event{}
		events.Next()
		if err := decoder.Decode(&e); err != nil {
			return nil, events.BrokeOff(err, a.contentType, "message_stop")
		}
		if text, ok := e.text(); ok && !yield(model.Part{Text: text}) {
			return nil, nil
		}
		if err := a.event(&e); err != nil {
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

// text is what the listener hears of an event, if anything.
func (e *event) text() (string, bool) {
	switch {
	case e.Type == "content_block_delta" && e.Delta.Type == "text_delta":
		return e.Delta.Text, true
	case e.Type == "content_block_start" && e.Block.Text != "":
		return e.Block.Text, true
	}
	return "", false
}

// event takes one event in. There may be others than these, and pings.
func (a *answer) event(e *event) error {
	if e.Type == "error" || len(e.Error) > 0 && string(e.Error) != "null" {
		return a.options.streamError(e.Error)
	}
	switch e.Type {
	case "message_start":
		a.usage.update(e.Message.Usage)
	case "content_block_start":
		if string(e.Block.Input) == "{}" { // what every call begins with
			e.Block.Input = nil
		}
		return a.take(e.Index, &e.Block)
	case "content_block_delta":
		return a.delta(e)
	case "message_delta":
		a.usage.update(e.Usage)
		if e.Delta.Reason != "" {
			a.stop = e.Delta.stop
		}
	}
	return nil
}

// delta adds a piece to a block.
func (a *answer) delta(e *event) error {
	d := &e.Delta
	switch d.Type {
	case "text_delta":
		return a.take(e.Index, &content{Type: blockText, Text: d.Text})
	case "thinking_delta":
		return a.take(e.Index, &content{Type: blockThinking, Thinking: d.Thinking})
	case "signature_delta":
		return a.take(e.Index, &content{Type: blockThinking, Signature: d.Signature})
	case "input_json_delta":
		b := a.block(e.Index, blockCall)
		b.said = append(b.said, d.Arguments...)
		return a.hold(len(d.Arguments))
	}
	return nil
}
