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

// conversation is a request in the form that the Messages API accepts
// (https://platform.claude.com/docs/en/api/messages). The API has three rules that
// AgentOS's messages don't follow: the turns of user and assistant alternate, the
// results of tools are in a turn of the user, and no text is blank.
type conversation struct {
	params sdk.MessageNewParams
	tools  *names.Map // names of tools
}

// conversation converts a request.
func (o Options) conversation(r model.Request) *conversation {
	c := &conversation{tools: names.New()}
	c.params.Model, c.params.MaxTokens = o.ID, maxTokens
	if t := o.Temperature; t != nil {
		c.params.Temperature = sdk.Float(*t)
	}
	for _, t := range r.Tools {
		c.offer(t)
	}
	for _, m := range names.Calls(r.Messages, names.Fitting) {
		c.offerFormer(m)
		c.add(m)
	}
	return c
}

// offer adds a tool to the request. Its schema is sent unchanged, in place of the SDK's
// field: that field is a struct, for which the schema would have to be decoded. A tool
// without a schema gets an empty one, because the API requires a schema.
func (c *conversation) offer(t model.ToolSpec) {
	tool := sdk.ToolParam{Name: c.tools.Fit(t.Name)}
	if !blank(t.Description) {
		tool.Description = sdk.String(t.Description)
	}
	schema := json.RawMessage(`{"type":"object"}`)
	if len(t.Parameters) > 0 {
		schema = t.Parameters
	}
	tool.InputSchema = param.Override[sdk.ToolInputSchemaParam](schema)
	c.params.Tools = append(c.params.Tools, sdk.ToolUnionParam{OfTool: &tool})
}

// offerFormer declares the tools that an earlier message called and that are no longer
// offered, such as one that was removed from keyway.yaml during a session. The API
// refuses a conversation that has calls and declares no tools.
func (c *conversation) offerFormer(m model.Message) {
	for _, call := range m.ToolCalls {
		if !c.tools.Has(call.Name) {
			c.offer(model.ToolSpec{Name: call.Name, Description: "Can not be called any more."})
		}
	}
}

// add adds a message.
func (c *conversation) add(m model.Message) {
	switch m.Role {
	case model.System:
		if !blank(m.Content) {
			c.params.System = append(c.params.System, sdk.TextBlockParam{Text: m.Content})
		}
	case model.ToolRole:
		c.addBlocks(sdk.MessageParamRoleUser, c.result(m))
	case model.Assistant:
		blocks := c.opaqueBlocks(m)
		if blocks == nil {
			blocks = c.rebuiltBlocks(m)
		}
		c.addBlocks(sdk.MessageParamRoleAssistant, blocks...)
	default:
		c.addBlocks(sdk.MessageParamRoleUser, textBlocks(m.Content)...)
	}
}

// blank reports whether the API would refuse a text as blank.
func blank(text string) bool { return strings.TrimSpace(text) == "" }

// textBlocks returns a text as one block, or no block if it is blank.
func textBlocks(text string) []sdk.ContentBlockParamUnion {
	if blank(text) {
		return nil
	}
	return []sdk.ContentBlockParamUnion{sdk.NewTextBlock(text)}
}

// addBlocks adds blocks to the last turn if it has the same role, and starts a turn
// otherwise.
func (c *conversation) addBlocks(role sdk.MessageParamRole, blocks ...sdk.ContentBlockParamUnion) {
	last := len(c.params.Messages) - 1
	switch {
	case len(blocks) == 0:
	case last < 0 || c.params.Messages[last].Role != role:
		c.params.Messages = append(c.params.Messages, sdk.MessageParam{Role: role, Content: blocks})
	default:
		c.params.Messages[last].Content = append(c.params.Messages[last].Content, blocks...)
	}
}

// result converts a tool's message. A blank text is left out, because a result without
// content is allowed and a blank text isn't.
func (c *conversation) result(m model.Message) sdk.ContentBlockParamUnion {
	result := sdk.ToolResultBlockParam{ToolUseID: m.ToolCallID}
	if !blank(m.Content) {
		text := &sdk.TextBlockParam{Text: m.Content}
		result.Content = []sdk.ToolResultBlockParamContentUnion{{OfText: text}}
	}
	return sdk.ContentBlockParamUnion{OfToolResult: &result}
}

// rebuiltBlocks returns the blocks of an answer that was stored without Opaque, made of
// its text and calls.
func (c *conversation) rebuiltBlocks(m model.Message) []sdk.ContentBlockParamUnion {
	blocks := textBlocks(m.Content)
	for _, call := range m.ToolCalls {
		blocks = append(blocks, c.call(call))
	}
	return blocks
}

// call converts a tool call. Its arguments must be a JSON object for this API.
func (c *conversation) call(call model.ToolCall) sdk.ContentBlockParamUnion {
	return sdk.NewToolUseBlock(call.ID, call.Object(), c.tools.Fit(call.Name))
}

// storedBlock is a block of an answer as End.Opaque stores it. The names of its members
// are part of stored checkpoints and must stay as they are.
type storedBlock struct {
	Type string `json:"type"`
	// Text is the text of a text block or of thinking.
	Text string `json:"text,omitempty"`
	// Signature is the signature of thinking, or the encrypted data of redacted
	// thinking.
	Signature string `json:"seal,omitempty"`
	// Call is the index of a tool call in the message's ToolCalls.
	Call int `json:"call,omitempty"`
}

// opaqueBlocks returns the blocks of an answer from its Opaque, in the order in which
// the API sent them, with the thinking blocks. The API verifies their signatures and
// refuses blocks that are changed, reordered or missing
// (https://platform.claude.com/docs/en/build-with-claude/extended-thinking, "Preserving
// thinking blocks").
//
// nil means that Opaque is missing, is another provider's, or doesn't refer to each of
// the message's calls once.
func (c *conversation) opaqueBlocks(m model.Message) (blocks []sdk.ContentBlockParamUnion) {
	var stored []storedBlock
	if json.Unmarshal(m.Opaque, &stored) != nil {
		return nil
	}
	var calls []int
	for _, s := range stored {
		switch s.Type {
		case blockText:
			blocks = append(blocks, textBlocks(s.Text)...)
		case blockThinking:
			blocks = append(blocks, sdk.NewThinkingBlock(s.Signature, s.Text))
		case blockRedacted:
			blocks = append(blocks, sdk.NewRedactedThinkingBlock(s.Signature))
		case blockCall:
			if s.Call < 0 || s.Call >= len(m.ToolCalls) || slices.Contains(calls, s.Call) {
				return nil
			}
			calls = append(calls, s.Call)
			blocks = append(blocks, c.call(m.ToolCalls[s.Call]))
		}
	}
	if len(calls) != len(m.ToolCalls) {
		return nil
	}
	return blocks
}
