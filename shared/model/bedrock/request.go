package bedrock

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/document"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
)

// conversation is a request as the Converse API wants it: users and assistants in
// turns, the results of tools in a user's turn, and no text that is blank.
type conversation struct {
	system   []types.SystemContentBlock
	messages []types.Message
	tools    *types.ToolConfiguration
	setup    *types.InferenceConfiguration

	names *names.Fitted // of tools
	ids   *names.Fitted // of calls
}

func (o Options) conversation(r model.Request) (*conversation, error) {
	c := &conversation{names: names.New(), ids: names.New()}
	if t := o.Temperature; t != nil {
		c.setup = &types.InferenceConfiguration{Temperature: new(float32(*t))}
	}
	var offered []types.Tool
	for _, t := range r.Tools {
		one, err := c.tool(t)
		if err != nil {
			return nil, err
		}
		offered = append(offered, one)
	}
	for _, m := range r.Messages {
		offered = append(offered, c.formerTools(m)...)
		c.add(m)
	}
	if len(offered) > 0 {
		c.tools = &types.ToolConfiguration{Tools: offered}
	}
	return c, nil
}

func (c *conversation) tool(t model.ToolSpec) (types.Tool, error) {
	spec := types.ToolSpecification{Name: new(c.names.Fit(t.Name))}
	if strings.TrimSpace(t.Description) != "" {
		spec.Description = &t.Description
	}
	schema := []byte(`{"type":"object"}`)
	if len(t.Parameters) > 0 {
		schema = t.Parameters
	}
	if !json.Valid(schema) {
		return nil, errors.New("bedrock: the parameters of tool " + t.Name + " are not JSON")
	}
	spec.InputSchema = &types.ToolInputSchemaMemberJson{Value: verbatim{json: schema}}
	return &types.ToolMemberToolSpec{Value: spec}, nil
}

// formerTools declares tools that were called but are not offered any more: the
// API refuses a conversation that calls what isn't declared.
func (c *conversation) formerTools(m model.Message) (tools []types.Tool) {
	for _, call := range m.ToolCalls {
		if c.names.Knows(call.Name) {
			continue
		}
		one, _ := c.tool(model.ToolSpec{Name: call.Name, Description: "Can not be called any more."}) // its schema is ours
		tools = append(tools, one)
	}
	return tools
}

func (c *conversation) add(m model.Message) {
	blank := strings.TrimSpace(m.Content) == ""
	switch {
	case m.Role == model.System && !blank:
		c.system = append(c.system, &types.SystemContentBlockMemberText{Value: m.Content})
	case m.Role == model.System:
	case m.Role == model.ToolRole:
		c.say(types.ConversationRoleUser, c.result(m))
	default:
		role := types.ConversationRoleUser
		if m.Role == model.Assistant {
			role = types.ConversationRoleAssistant
		}
		if !blank {
			c.say(role, &types.ContentBlockMemberText{Value: m.Content})
		}
		for _, call := range m.ToolCalls {
			c.say(role, &types.ContentBlockMemberToolUse{Value: types.ToolUseBlock{
				ToolUseId: new(c.ids.Fit(call.ID)), Name: new(c.names.Fit(call.Name)), Input: verbatim{json: call.Object()},
			}})
		}
	}
}

// say goes on with the last turn when it is role's, else starts one.
func (c *conversation) say(role types.ConversationRole, block types.ContentBlock) {
	last := len(c.messages) - 1
	if last < 0 || c.messages[last].Role != role {
		c.messages = append(c.messages, types.Message{Role: role})
		last++
	}
	c.messages[last].Content = append(c.messages[last].Content, block)
}

func (c *conversation) result(m model.Message) types.ContentBlock {
	var said types.ToolResultContentBlock = &types.ToolResultContentBlockMemberText{Value: m.Content}
	if strings.TrimSpace(m.Content) == "" {
		empty, _ := json.Marshal(map[string]string{"result": m.Content}) // a text always encodes
		said = &types.ToolResultContentBlockMemberJson{Value: verbatim{json: empty}}
	}
	return &types.ContentBlockMemberToolResult{Value: types.ToolResultBlock{
		ToolUseId: new(c.ids.Fit(m.ToolCallID)), Content: []types.ToolResultContentBlock{said},
	}}
}

// verbatim is a document that is JSON already. The SDK would have it decoded first,
// and would write its numbers as texts then.
type verbatim struct {
	document.Interface
	json []byte
}

// MarshalSmithyDocument implements document.Interface.
func (v verbatim) MarshalSmithyDocument() ([]byte, error) { return v.json, nil }
