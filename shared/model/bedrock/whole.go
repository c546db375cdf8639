package bedrock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// whole reads an answer in one piece, yields its text and returns its End. A nil End
// without an error means that the consumer stopped reading. The header of such a response
// comes only when the answer is complete, so only ctx limits the wait for it.
func (m *Model) whole(resp *http.Response, tools *names.Map, yield func(model.Part) bool) (*model.End, error) {
	data, err := io.ReadAll(&limitedBody{body: resp.Body, left: upstream.MaxEvent})
	if err != nil {
		return nil, readError(err)
	}
	var out converseAnswer
	if err := json.Unmarshal(data, &out); err != nil {
		text := upstream.DecodeFailureText(data, err)
		return nil, fault.Public(fault.Upstream, text, fmt.Errorf("bedrock: answer: %w", err))
	}
	if out.Output.Message == nil || out.StopReason == "" {
		err := errors.New("bedrock: a message without stopReason")
		return nil, fault.Public(fault.Upstream, upstream.NoAnswer, err)
	}
	a := &answer{tools: tools, stop: out.StopReason, usage: out.Usage}
	var text, reasoning string
	textBlocks := 0
	for i, block := range out.Output.Message.Content {
		index := int32(i) //nolint:gosec // the body is limited
		var err error
		switch {
		case block.Text != nil:
			text += *block.Text
			textBlocks++
			err = a.add(index, blockText, *block.Text)
		case block.Use != nil:
			err = a.addCall(index, block.Use)
		case block.Reasoning != nil:
			var piece string
			piece, err = a.addReasoning(index, block.Reasoning)
			reasoning += piece
		}
		if err != nil {
			return nil, err
		}
	}
	end, err := a.end()
	switch {
	case err != nil:
		return nil, err
	case reasoning != "" && !yield(model.Part{Reasoning: reasoning}), textBlocks > 0 && !yield(model.Part{Text: text}):
		return nil, nil
	}
	return end, nil
}

// addReasoning adds a block of reasoning that arrived in one piece, and returns its text.
func (a *answer) addReasoning(index int32, block *reasoningBlock) (text string, err error) {
	if shown := block.Shown; shown != nil {
		if err := a.add(index, blockReasoning, shown.Text); err != nil {
			return "", err
		}
		return shown.Text, a.sign(index, shown.Signature, nil)
	}
	return "", a.sign(index, "", block.Hidden)
}

// addCall adds a tool call that arrived in one piece.
func (a *answer) addCall(index int32, use *toolUse) error {
	if err := a.startCall(index, use.ID, use.Name); err != nil {
		return err
	}
	var arguments bytes.Buffer
	if len(use.Input) > 0 && string(use.Input) != "null" {
		_ = json.Compact(&arguments, use.Input) // it was decoded as JSON
	}
	return a.add(index, blockCall, arguments.String())
}
