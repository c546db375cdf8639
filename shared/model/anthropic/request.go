package anthropic

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
)

// conversation is a request in the form that the Messages API accepts
// (https://platform.claude.com/docs/en/api/messages). The API has three rules that
// AgentOS's messages don't follow: the turns of user and assistant alternate, the
// results of tools are in a turn of the user, and no text is blank.
type conversation struct {
	params request
	tools  *names.Map // names of tools
}

// request is the body of a request.
type request struct {
	MaxTokens   int         `json:"max_tokens"`
	Messages    []turn      `json:"messages,omitempty"`
	Model       string      `json:"model"`
	Temperature *float64    `json:"temperature,omitempty"`
	System      []sentBlock `json:"system,omitempty"`
	Tools       []tool      `json:"tools,omitempty"`
	Stream      bool        `json:"stream,omitempty"`
}

// turn is what one role says.
type turn struct {
	Content []sentBlock `json:"content"`
	Role    string      `json:"role"`
}

// sentBlock is a part of a turn. Type says which of the other members it has.
type sentBlock struct {
	Type string `json:"type"`
	// Text is that of a text.
	Text string `json:"text,omitempty"`
	// Thinking and Signature are those of thinking. They may be empty.
	Thinking  *string `json:"thinking,omitempty"`
	Signature *string `json:"signature,omitempty"`
	// Data is the encrypted thinking of a redacted block.
	Data *string `json:"data,omitempty"`
	// ID, Name and Input are those of a call.
	ID    string          `json:"id,omitempty"`
	Name  string          `json:"name,omitempty"`
	Input json.RawMessage `json:"input,omitempty"`
	// ToolUseID and Content are those of a call's result.
	ToolUseID string      `json:"tool_use_id,omitempty"`
	Content   []sentBlock `json:"content,omitempty"`
}

// tool is a tool that is offered. Its schema is sent unchanged.
type tool struct {
	InputSchema json.RawMessage `json:"input_schema"`
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
}

const (
	user      = "user"
	assistant = "assistant"
)

// conversation converts a request.
func (o Options) conversation(r model.Request) *conversation {
	c := &conversation{tools: names.New()}
	c.params.Model, c.params.MaxTokens, c.params.Temperature = o.ID, maxTokens, o.Temperature
	for _, t := range r.Tools {
		c.offer(t)
	}
	for _, m := range names.Calls(r.Messages, names.Fitting) {
		c.offerFormer(m)
		c.add(m)
	}
	return c
}

// offer adds a tool to the request. A tool
// without a schema gets an empty one, because the API requires a schema.
func (c *conversation) offer(t model.ToolSpec) {
	offered := tool{Name: c.tools.Fit(t.Name), InputSchema: json.RawMessage(`{"type":"object"}`)}
	if !blank(t.Description) {
		offered.Description = t.Description
	}
	if len(t.Parameters) > 0 {
		offered.InputSchema = t.Parameters
	}
	c.params.Tools = append(c.params.Tools, offered)
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
			c.params.System = append(c.params.System, sentBlock{Type: blockText, Text: m.Content})
		}
	case model.ToolRole:
		c.addBlocks(user, c.result(m))
	case model.Assistant:
		blocks := c.opaqueBlocks(m)
		if blocks == nil {
			blocks = c.rebuiltBlocks(m)
		}
		c.addBlocks(assistant, blocks...)
	default:
		c.addBlocks(user, textBlocks(m.Content)...)
	}
}

// blank reports whether the API would refuse a text as blank.
func blank(text string) bool { return strings.TrimSpace(text) == "" }

// textBlocks returns a text as one block, or no block if it is blank.
func textBlocks(text string) []sentBlock {
	if blank(text) {
		return nil
	}
	return []sentBlock{{Type: blockText, Text: text}}
}

// addBlocks adds blocks to the last turn if it has the same role, and starts a turn
// otherwise.
func (c *conversation) addBlocks(role string, blocks ...sentBlock) {
	last := len(c.params.Messages) - 1
	switch {
	case len(blocks) == 0:
	case last < 0 || c.params.Messages[last].Role != role:
		c.params.Messages = append(c.params.Messages, turn{Role: role, Content: blocks})
	default:
		c.params.Messages[last].Content = append(c.params.Messages[last].Content, blocks...)
	}
}

// result converts a tool's message. A blank text is left out, because a result without
// content is allowed and a blank text isn't.
func (c *conversation) result(m model.Message) sentBlock {
	result := sentBlock{Type: "tool_result", ToolUseID: m.ToolCallID}
	if !blank(m.Content) {
		result.Content = []sentBlock{{Type: blockText, Text: m.Content}}
	}
	return result
}

// rebuiltBlocks returns the blocks of an answer that was stored without Opaque, made of
// its text and calls.
func (c *conversation) rebuiltBlocks(m model.Message) []sentBlock {
	blocks := textBlocks(m.Content)
	for _, call := range m.ToolCalls {
		blocks = append(blocks, c.call(call))
	}
	return blocks
}

// call converts a tool call. Its arguments must be a JSON object for this API.
func (c *conversation) call(call model.ToolCall) sentBlock {
	return sentBlock{Type: blockCall, ID: call.ID, Name: c.tools.Fit(call.Name), Input: call.Object()}
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
func (c *conversation) opaqueBlocks(m model.Message) (blocks []sentBlock) {
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
			blocks = append(blocks, sentBlock{Type: blockThinking, Signature: &s.Signature, Thinking: &s.Text})
		case blockRedacted:
			blocks = append(blocks, sentBlock{Type: blockRedacted, Data: &s.Signature})
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
