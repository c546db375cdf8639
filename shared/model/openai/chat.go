package openai

import (
	"context"
	"iter"
	"net/http"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// Chat is a model behind OpenAI's Chat Completions API, POST /chat/completions.
type Chat struct {
	options     Options
	service     sdk.ChatCompletionService
	wholeClient *http.Client
}

// NewChat returns a model configured by o alone. It doesn't connect.
func NewChat(o Options) *Chat {
	service := sdk.NewChatCompletionService(o.requestOptions()...)
	return &Chat{options: o, service: service, wholeClient: o.wholeClient()}
}

// Describe returns AgentOS's names for this model.
func (c *Chat) Describe() model.Description {
	return model.Describe("openai", c.options.ID)
}

// Stream implements model.Model. An answer is complete when its finish_reason has
// arrived. What happens to the connection afterwards doesn't matter: at worst the usage
// is missing and counts as zero. Without finish_reason the answer is an error, also
// after a clean end of the body or [DONE], because a server that was stopped sends
// those too. The text of a refusal is the text of the answer.
func (c *Chat) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	if r.Whole {
		send := func(ctx context.Context) (*http.Response, error) { return c.callWhole(ctx, r) }
		return c.options.stream(ctx, send, func(resp *http.Response, yield func(model.Part) bool) (model.Part, error) {
			a := answer{options: c.options}
			end, err := a.readWhole(resp.Body, yield)
			return model.Part{End: end, ProviderData: a.data}, err
		})
	}
	send := func(ctx context.Context) (*http.Response, error) { return c.call(ctx, r) }
	return c.options.stream(ctx, send, func(resp *http.Response, yield func(model.Part) bool) (model.Part, error) {
		a := answer{
			options: c.options, contentType: resp.Header.Get("Content-Type"), events: upstream.NewEvents(resp.Body),
		}
		end, err := a.read(yield)
		return model.Part{End: end, ProviderData: a.data}, err
	})
}

// call requests a streamed answer. The SDK builds the request, authorizes, sends and
// repeats it, but the response's body is decoded here. The SDK's typed stream decodes
// every field of every chunk and reports no error when the stream ends without
// finish_reason (docs/adr/0003 has the measurements).
func (c *Chat) call(ctx context.Context, r model.Request) (*http.Response, error) {
	var resp *http.Response
	stream := c.service.NewStreaming(ctx, c.params(r), option.WithResponseBodyInto(&resp))
	return resp, stream.Err()
}

// params converts a request to the API's form. include_usage is set because a stream
// reports no usage without it.
func (c *Chat) params(r model.Request) sdk.ChatCompletionNewParams {
	p := sdk.ChatCompletionNewParams{
		Model:         c.options.ID,
		StreamOptions: sdk.ChatCompletionStreamOptionsParam{IncludeUsage: sdk.Bool(true)},
	}
	if t := c.options.Temperature; t != nil {
		p.Temperature = sdk.Float(*t)
	}
	for _, m := range names.Calls(r.Messages, chatIDs) {
		p.Messages = append(p.Messages, message(m))
	}
	for _, t := range r.Tools {
		p.Tools = append(p.Tools, tool(t))
	}
	return p
}

// message converts a message.
func message(m model.Message) sdk.ChatCompletionMessageParamUnion {
	switch m.Role {
	case model.System:
		return sdk.SystemMessage(m.Content)
	case model.ToolRole:
		return sdk.ToolMessage(m.Content, m.ToolCallID)
	case model.Assistant:
		return assistant(m)
	default:
		return sdk.UserMessage(m.Content)
	}
}

// assistant converts an assistant's message. The API requires its content unless the
// message has tool calls.
func assistant(m model.Message) sdk.ChatCompletionMessageParamUnion {
	var p sdk.ChatCompletionAssistantMessageParam
	if m.Content != "" || len(m.ToolCalls) == 0 {
		p.Content.OfString = sdk.String(m.Content)
	}
	for _, call := range m.ToolCalls {
		p.ToolCalls = append(p.ToolCalls, sdk.ChatCompletionMessageToolCallUnionParam{
			OfFunction: &sdk.ChatCompletionMessageFunctionToolCallParam{
				ID: call.ID,
				Function: sdk.ChatCompletionMessageFunctionToolCallFunctionParam{
					Name: call.Name, Arguments: call.Arguments,
				},
			},
		})
	}
	return sdk.ChatCompletionMessageParamUnion{OfAssistant: &p}
}

// tool converts a tool. Its schema is sent unchanged, outside of the SDK's field: that field
// is a map, for which the schema would have to be decoded.
func tool(t model.ToolSpec) sdk.ChatCompletionToolUnionParam {
	f := shared.FunctionDefinitionParam{Name: t.Name}
	if t.Description != "" {
		f.Description = sdk.String(t.Description)
	}
	if len(t.Parameters) > 0 {
		f.SetExtraFields(map[string]any{"parameters": t.Parameters})
	}
	return sdk.ChatCompletionFunctionTool(f)
}
