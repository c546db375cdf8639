package bedrock

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
)

// conversation is a request in the form that the Converse API accepts
// (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html).
// The API has three rules that AgentOS's messages don't follow: the turns of user and
// assistant alternate, the results of tools are in a turn of the user, and no text is
// blank.
type conversation struct {
	request converseRequest
	names   *names.Map // names of tools
}

// conversation converts a request. Its only error is a tool's schema that isn't JSON.
func (o Options) conversation(r model.Request) (*conversation, error) {
	c := &conversation{names: names.New()}
	if t := o.Temperature; t != nil {
		c.request.Inference = &inferenceConfig{Temperature: float32(*t)}
	}
	var offered []offeredTool
	for _, t := range r.Tools {
		one, err := c.tool(t)
		if err != nil {
			return nil, err
		}
		offered = append(offered, one)
	}
	for _, m := range names.Calls(r.Messages, names.Fitting) {
		offered = append(offered, c.formerTools(m)...)
		c.add(m)
	}
	if len(offered) > 0 {
		c.request.Tools = &toolConfig{Tools: offered}
	}
	return c, nil
}

// tool converts a tool. A tool without a schema gets an empty one, because the API requires
// a schema.
func (c *conversation) tool(t model.ToolSpec) (offeredTool, error) {
	spec := toolSpec{Name: c.names.Fit(t.Name)}
	if strings.TrimSpace(t.Description) != "" {
		spec.Description = t.Description
	}
	schema := []byte(`{"type":"object"}`)
	if len(t.Parameters) > 0 {
		schema = t.Parameters
	}
	if !json.Valid(schema) {
		return offeredTool{}, errors.New("bedrock: the parameters of tool " + t.Name + " are not JSON")
	}
	spec.Schema.JSON = schema
	return offeredTool{spec}, nil
}

// formerTools declares the tools that an earlier message called and that are no longer
// offered, such as one that was removed from keyway.yaml during a session. The API
// refuses a conversation that calls a tool without declaring it.
func (c *conversation) formerTools(m model.Message) (tools []offeredTool) {
	for _, call := range m.ToolCalls {
		if c.names.Has(call.Name) {
			continue
		}
		former := model.ToolSpec{Name: call.Name, Description: "Can not be called any more."}
		one, _ := c.tool(former) // it has no schema that could be invalid
		tools = append(tools, one)
	}
	return tools
}

// add adds a message.
func (c *conversation) add(m model.Message) {
	blank := strings.TrimSpace(m.Content) == ""
	switch {
	case m.Role == model.System && !blank:
		c.request.System = append(c.request.System, textBlock(m.Content))
	case m.Role == model.System:
	case m.Role == model.ToolRole:
		c.addBlock(user, c.result(m))
	case m.Role == model.Assistant:
		blocks := c.opaqueBlocks(m)
		if blocks == nil {
			blocks = c.rebuiltBlocks(m)
		}
		for _, block := range blocks {
			c.addBlock(assistant, block)
		}
	case !blank:
		c.addBlock(user, textBlock(m.Content))
	}
}

// rebuiltBlocks returns the blocks of an answer that was stored without Opaque, made of
// its text and calls.
func (c *conversation) rebuiltBlocks(m model.Message) (blocks []contentBlock) {
	if strings.TrimSpace(m.Content) != "" {
		blocks = append(blocks, textBlock(m.Content))
	}
	for _, call := range m.ToolCalls {
		blocks = append(blocks, c.call(call))
	}
	return blocks
}

// opaqueBlocks returns the blocks of an answer from its Opaque, in the order in which the
// API sent them, with the reasoning. nil means that Opaque is missing, is another
// provider's, or doesn't refer to each of the message's calls once.
func (c *conversation) opaqueBlocks(m model.Message) (blocks []contentBlock) {
	var stored []storedBlock
	if json.Unmarshal(m.Opaque, &stored) != nil {
		return nil
	}
	var calls []int
	for _, s := range stored {
		switch {
		case s.Type == blockText && strings.TrimSpace(s.Text) != "":
			blocks = append(blocks, textBlock(s.Text))
		case s.Type == blockReasoning:
			blocks = append(blocks, storedReasoning(s))
		case s.Type == blockCall:
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

// storedReasoning converts reasoning.
func storedReasoning(s storedBlock) contentBlock {
	if len(s.Hidden) > 0 {
		return contentBlock{Reasoning: &reasoningBlock{Hidden: s.Hidden}}
	}
	return contentBlock{Reasoning: &reasoningBlock{Shown: &reasoningText{Text: s.Text, Signature: s.Signature}}}
}

// call converts a tool call. Its arguments must be a JSON object for this API.
func (c *conversation) call(call model.ToolCall) contentBlock {
	return contentBlock{Use: &toolUse{ID: call.ID, Name: c.names.Fit(call.Name), Input: call.Object()}}
}

// addBlock adds a block to the last turn if it has the same role, and starts a turn
// otherwise.
func (c *conversation) addBlock(role string, block contentBlock) {
	turns := c.request.Messages
	if len(turns) == 0 || turns[len(turns)-1].Role != role {
		turns = append(turns, turn{Role: role})
	}
	last := &turns[len(turns)-1]
	last.Content = append(last.Content, block)
	c.request.Messages = turns
}

// The roles of turns.
const (
	user      = "user"
	assistant = "assistant"
)

// textBlock returns a block of text.
func textBlock(text string) contentBlock { return contentBlock{Text: &text} }

// result converts a tool's message. The API requires content and refuses a blank text, so
// a blank text is sent within a JSON object, such as {"result": ""}.
func (c *conversation) result(m model.Message) contentBlock {
	content := resultBlock{Text: &m.Content}
	if strings.TrimSpace(m.Content) == "" {
		object, _ := json.Marshal(map[string]string{"result": m.Content}) // a text always encodes
		content = resultBlock{JSON: object}
	}
	return contentBlock{Result: &toolResult{ID: m.ToolCallID, Content: []resultBlock{content}}}
}
