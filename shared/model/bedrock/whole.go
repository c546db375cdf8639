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

// whole asks for an answer in one piece. Nothing comes before it is complete, so
// that only ctx bounds the wait for its header.
func (m *Model) whole(ctx context.Context, r model.Request, yield func(model.Part) bool) (*model.End, error) {
	c, err := m.options.conversation(r)
	if err != nil {
		return nil, err
	}
	out, err := m.client.Converse(ctx, &bedrockruntime.ConverseInput{
		ModelId: &m.options.ID, System: c.system, Messages: c.messages, ToolConfig: c.tools, InferenceConfig: c.setup,
	}, ownProtocol, func(o *bedrockruntime.Options) { o.HTTPClient = m.patient })
	if err != nil {
		return nil, m.options.callError(err)
	}
	message, ok := out.Output.(*types.ConverseOutputMemberMessage)
	if !ok || out.StopReason == "" {
		return nil, fault.Public(fault.Upstream, upstream.NoAnswer, errors.New("bedrock: a message without stopReason"))
	}
	a := &answer{tools: c.names, stop: out.StopReason, usage: out.Usage}
	text, spoke := "", false
	for i, block := range message.Value.Content {
		switch b := block.(type) {
		case *types.ContentBlockMemberText:
			text, spoke = text+b.Value, true
		case *types.ContentBlockMemberToolUse:
			if err := a.addWhole(int32(i), b.Value); err != nil { //nolint:gosec // the body is bounded
				return nil, err
			}
		}
	}
	a.spoken = text != ""
	end, err := a.end()
	if err == nil && spoke && !yield(model.Part{Text: text}) {
		return nil, nil
	}
	return end, err
}

func (a *answer) addWhole(block int32, use types.ToolUseBlock) error {
	var arguments []byte
	if use.Input != nil {
		arguments, _ = use.Input.MarshalSmithyDocument() // it was JSON a moment ago
	}
	if err := a.startCall(block, use.ToolUseId, use.Name); err != nil {
		return err
	}
	return a.addArguments(block, string(arguments))
}
