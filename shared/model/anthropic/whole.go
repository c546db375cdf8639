package anthropic

import (
	"encoding/json"
	"io"

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
	data, err := a.options.provider().ReadWhole(body, &m)
	if err != nil {
		return nil, err
	}
	if a.stop = m.stop; a.stop.Reason == "" || upstream.Failed(m.Error) {
		return nil, a.options.provider().NoAnswerError(data, "a message without stop_reason")
	}
	a.usage = m.Usage
	var text, thinking string
	hasText := false
	for i, c := range m.Content {
		if err := a.add(a.newBlock(i, c.Type), &c); err != nil {
			return nil, err
		}
		thinking += c.Thinking
		if c.Type == blockText {
			text, hasText = text+c.Text, true
		}
	}
	end, err := a.end()
	switch {
	case err != nil:
		return nil, err
	case thinking != "" && !yield(model.Part{Reasoning: thinking}), hasText && !yield(model.Part{Text: text}):
		return nil, nil
	}
	return end, nil
}
