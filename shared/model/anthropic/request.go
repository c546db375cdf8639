package anthropic

import (
	"encoding/json"
	"slices"
	"strings"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/packages/param"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
)

// conversation is a request as the Messages API wants it: users and assistants in
// turns, the results of tools in a user's turn, and no text that is blank.
type conversation struct {
	params sdk.MessageNewParams
	tools  *names.Fitted
	calls  *names.Fitted // their ids
}

func (o Options) conversation(r model.Request) *conversation {
	c := &conversation{tools: names.New(), calls: names.New()}
	c.params.Model, c.params.MaxTokens = o.ID, maxTokens
	if t := o.Temperature; t != nil {
		c.params.Temperature = sdk.Float(*t)
	}
	for _, t := range r.Tools {
		c.offer(t)
	}
	for _, m := range r.Messages {
		c.offerFormer(m)
		c.add(m)
	}
	return c
}

func (c *conversation) offer(t model.ToolSpec) {
	tool := sdk.ToolParam{Name: c.tools.Fit(t.Name)}
	if strings.TrimSpace(t.Description) != "" {
		tool.Description = sdk.String(t.Description)
	}
	if len(t.Parameters) > 0 { // as it stands: the SDK's struct would have to be filled first
		tool.InputSchema = param.Override[sdk.ToolInputSchemaParam](t.Parameters)
	} else {
		tool.InputSchema = param.Override[sdk.ToolInputSchemaParam](json.RawMessage(`{"type":"object"}`))
	}
	c.params.Tools = append(c.params.Tools, sdk.ToolUnionParam{OfTool: &tool})
}

// offerFormer declares tools that were called but are not offered any more: the API
// refuses a conversation with calls and without tools.
func (c *conversation) offerFormer(m model.Message) {
	for _, call := range m.ToolCalls {
		if !c.tools.Knows(call.Name) {
			c.offer(model.ToolSpec{Name: call.Name, Description: "Can not be called any more."})
		}
	}
}

func (c *conversation) add(m model.Message) {
	switch m.Role {
	case model.System:
		if !blank(m.Content) {
			c.params.System = append(c.params.System, sdk.TextBlockParam{Text: m.Content})
		}
	case model.ToolRole:
		c.say(sdk.MessageParamRoleUser, c.result(m))
	case model.Assistant:
		blocks := c.returned(m)
		if blocks == nil {
			blocks = c.retold(m)
		}
		c.say(sdk.MessageParamRoleAssistant, blocks...)
	default:
		c.say(sdk.MessageParamRoleUser, texts(m.Content)...)
	}
}

func blank(text string) bool { return strings.TrimSpace(text) == "" }

// texts is the block that text makes, if it is not blank.
func texts(text string) []sdk.ContentBlockParamUnion {
	if blank(text) {
		return nil
	}
	return []sdk.ContentBlockParamUnion{sdk.NewTextBlock(text)}
}

// say goes on with the last turn when it is role's, else starts one.
func (c *conversation) say(role sdk.MessageParamRole, blocks ...sdk.ContentBlockParamUnion) {
	last := len(c.params.Messages) - 1
	switch {
	case len(blocks) == 0:
	case last < 0 || c.params.Messages[last].Role != role:
		c.params.Messages = append(c.params.Messages, sdk.MessageParam{Role: role, Content: blocks})
	default:
		c.params.Messages[last].Content = append(c.params.Messages[last].Content, blocks...)
	}
}

// result leaves a blank text out: a result may be without content.
func (c *conversation) result(m model.Message) sdk.ContentBlockParamUnion {
	result := sdk.ToolResultBlockParam{ToolUseID: c.calls.Fit(m.ToolCallID)}
	if !blank(m.Content) {
		result.Content = []sdk.ToolResultBlockParamContentUnion{{OfText: &sdk.TextBlockParam{Text: m.Content}}}
	}
	return sdk.ContentBlockParamUnion{OfToolResult: &result}
}

// retold makes blocks of an answer of which only text and calls were kept.
func (c *conversation) retold(m model.Message) []sdk.ContentBlockParamUnion {
	blocks := texts(m.Content)
	for _, call := range m.ToolCalls {
		blocks = append(blocks, c.call(call))
	}
	return blocks
}

func (c *conversation) call(call model.ToolCall) sdk.ContentBlockParamUnion {
	return sdk.NewToolUseBlock(c.calls.Fit(call.ID), call.Object(), c.tools.Fit(call.Name))
}

// kept is a block of an answer as it lies in End.Opaque.
type kept struct {
	Type string `json:"type"`
	Text string `json:"text,omitempty"` // what was said or thought
	Seal string `json:"seal,omitempty"` // of a thought: its signature, or what stands in its place
	Call int    `json:"call,omitempty"` // of a call: which of the message's, from 0
}

// returned gives the vendor its own answer back in the order in which it came, thoughts
// included: it verifies their signatures and wants none of them changed. nil says that
// Opaque is none of this package's.
func (c *conversation) returned(m model.Message) (blocks []sdk.ContentBlockParamUnion) {
	var all []kept
	if json.Unmarshal(m.Opaque, &all) != nil {
		return nil
	}
	var calls []int
	for _, k := range all {
		switch k.Type {
		case blockText:
			blocks = append(blocks, texts(k.Text)...)
		case blockThinking:
			blocks = append(blocks, sdk.NewThinkingBlock(k.Seal, k.Text))
		case blockRedacted:
			blocks = append(blocks, sdk.NewRedactedThinkingBlock(k.Seal))
		case blockCall:
			if k.Call < 0 || k.Call >= len(m.ToolCalls) || slices.Contains(calls, k.Call) {
				return nil
			}
			calls = append(calls, k.Call)
			blocks = append(blocks, c.call(m.ToolCalls[k.Call]))
		}
	}
	if len(calls) != len(m.ToolCalls) {
		return nil
	}
	return blocks
}
