package anthropic

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// message is the part of an answer in one piece that this package uses.
type message struct {
	Content []content `json:"content"`
	stop
	Usage usage           `json:"usage"`
	Error json.RawMessage `json:"error"`
}

// readWhole yields the text of an answer in one piece and returns its End. A nil End
// without an error means that the consumer stopped reading.
func (a *answer) readWhole(body io.Reader, yield func(model.Part) bool) (*model.End, error) {
	var m message
	if err := upstream.ReadWhole(body, &m); err != nil {
		return nil, err
	}
	if len(m.Error) > 0 && string(m.Error) != "null" {
		return nil, a.options.streamError(m.Error)
	}
	if a.stop = m.stop; a.stop.Reason == "" {
		err := errors.New("anthropic: a message without stop_reason")
		return nil, fault.Public(fault.Upstream, upstream.NoAnswer, err)
	}
	a.usage = m.Usage
	text, hasText := "", false
	for i, c := range m.Content {
		if err := a.add(i, &c); err != nil {
			return nil, err
		}
		if c.Type == blockText {
			text, hasText = text+c.Text, true
		}
	}
	end, err := a.end()
	if err == nil && hasText && !yield(model.Part{Text: text}) {
		return nil, nil
	}
	return end, err
}
