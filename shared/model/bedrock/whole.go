package bedrock

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// whole requests an answer in one piece, yields its text and returns its End. A nil End
// without an error means that the consumer stopped reading. The header of such a response
// comes only when the answer is complete, so only ctx limits the wait for it.
func (m *Model) whole(ctx context.Context, r model.Request, yield func(model.Part) bool) (*model.End, error) {
	c, err := m.options.conversation(r)
	if err != nil {
		return nil, err
	}
	out, err := m.client.Converse(ctx, &bedrockruntime.ConverseInput{
		ModelId: &m.options.ID, System: c.system, Messages: c.messages, ToolConfig: c.tools, InferenceConfig: c.inference,
	}, limitProtocol, func(o *bedrockruntime.Options) { o.HTTPClient = m.wholeClient })
	if err != nil {
		return nil, m.options.callError(err)
	}
	message, ok := out.Output.(*types.ConverseOutputMemberMessage)
	if !ok || out.StopReason == "" {
		err := errors.New("bedrock: a message without stopReason")
		return nil, fault.Public(fault.Upstream, upstream.NoAnswer, err)
	}
	a := &answer{tools: c.names, stop: out.StopReason, usage: out.Usage}
	var text, reasoning string
	textBlocks := 0
	for i, block := range message.Value.Content {
		index := int32(i) //nolint:gosec // the body is limited
		var err error
		switch b := block.(type) {
		case *types.ContentBlockMemberText:
			text += b.Value
			textBlocks++
			err = a.add(index, blockText, b.Value)
		case *types.ContentBlockMemberToolUse:
			err = a.addCall(index, b.Value)
		case *types.ContentBlockMemberReasoningContent:
			var piece string
			piece, err = a.addReasoning(index, b.Value)
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
func (a *answer) addReasoning(index int32, block types.ReasoningContentBlock) (text string, err error) {
	switch r := block.(type) {
	case *types.ReasoningContentBlockMemberReasoningText:
		text = value(r.Value.Text)
		if err := a.add(index, blockReasoning, text); err != nil {
			return "", err
		}
		return text, a.sign(index, value(r.Value.Signature), nil)
	case *types.ReasoningContentBlockMemberRedactedContent:
		return "", a.sign(index, "", r.Value)
	}
	return "", nil
}

// addCall adds a tool call that arrived in one piece.
func (a *answer) addCall(index int32, use types.ToolUseBlock) error {
	var arguments []byte
	if use.Input != nil {
		arguments, _ = use.Input.MarshalSmithyDocument() // the SDK has just decoded it from JSON
	}
	if err := a.startCall(index, use.ToolUseId, use.Name); err != nil {
		return err
	}
	return a.add(index, blockCall, string(arguments))
}
