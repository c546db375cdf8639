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
	text, textBlocks := "", 0
	for i, block := range message.Value.Content {
		switch b := block.(type) {
		case *types.ContentBlockMemberText:
			text += b.Value
			textBlocks++
		case *types.ContentBlockMemberToolUse:
			if err := a.addCall(int32(i), b.Value); err != nil { //nolint:gosec // the body is limited
				return nil, err
			}
		}
	}
	a.hasText = text != ""
	end, err := a.end()
	if err == nil && textBlocks > 0 && !yield(model.Part{Text: text}) {
		return nil, nil
	}
	return end, err
}

// addCall adds a tool call that arrived in one piece.
func (a *answer) addCall(block int32, use types.ToolUseBlock) error {
	var arguments []byte
	if use.Input != nil {
		arguments, _ = use.Input.MarshalSmithyDocument() // the SDK has just decoded it from JSON
	}
	if err := a.startCall(block, use.ToolUseId, use.Name); err != nil {
		return err
	}
	return a.addArguments(block, string(arguments))
}
