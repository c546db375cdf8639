package anthropic

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// message is what we need of an answer in one piece.
type message struct {
	Content []content `json:"content"`
	stop
	Usage usage           `json:"usage"`
	Error json.RawMessage `json:"error"`
}

// readWhole yields the answer's text and returns its end. Nothing comes before it is
// complete, so that only the request's context bounds the wait for its header.
func (a *answer) readWhole(body io.Reader, yield func(model.Part) bool) (*model.End, error) {
	var m message
	if err := upstream.ReadWhole(body, &m); err != nil {
		return nil, err
	}
	if len(m.Error) > 0 && string(m.Error) != "null" {
		return nil, a.options.streamError(m.Error)
	}
	if a.stop = m.stop; a.stop.Reason == "" {
		return nil, fault.Public(fault.Upstream, upstream.NoAnswer, errors.New("anthropic: a message without stop_reason"))
	}
	a.usage = m.Usage
	text, spoke := "", false
	for i, c := range m.Content {
		if err := a.take(i, &c); err != nil {
			return nil, err
		}
		if c.Type == blockText {
			text, spoke = text+c.Text, true
		}
	}
	end, err := a.end()
	if err == nil && spoke && !yield(model.Part{Text: text}) {
		return nil, nil
	}
	return end, err
}
