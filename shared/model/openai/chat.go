package openai

import (
	"context"
	"iter"
	"net/http"
	"slices"

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
	tools := names.New()
	send := func(ctx context.Context) (*http.Response, error) {
		if r.Whole {
			return c.callWhole(ctx, c.params(r, tools))
		}
		return c.call(ctx, c.params(r, tools))
	}
	return c.options.stream(ctx, send, func(resp *http.Response, yield func(model.Part) bool) (model.Part, error) {
		a := c.newAnswer(resp, tools, yield)
		end, err := a.readAs(resp, upstream.Whole(resp, r.Whole))
		return model.Part{End: end, ProviderData: a.data}, err
	})
}

// newAnswer returns an answer that is read from a response. It is not inlined, because the answer would be on the
// stack that waits for the model.
//
//go:noinline
func (c *Chat) newAnswer(resp *http.Response, tools *names.Map, yield func(model.Part) bool) *answer {
	return &answer{options: c.options, tools: tools, contentType: resp.Header.Get("Content-Type"), yield: yield}
}

// call requests a streamed answer. The SDK builds the request, authorizes, sends and
// repeats it, but the response's body is decoded here. The SDK's typed stream decodes
// every field of every chunk and reports no error when the stream ends without
// finish_reason (docs/adr/0003 has the measurements).
func (c *Chat) call(ctx context.Context, p sdk.ChatCompletionNewParams) (*http.Response, error) {
	var resp *http.Response
	stream := c.service.NewStreaming(ctx, p, option.WithResponseBodyInto(&resp))
	return resp, stream.Err()
}

// callWhole requests an answer in one piece. The API refuses stream_options in such a
// request.
func (c *Chat) callWhole(ctx context.Context, p sdk.ChatCompletionNewParams) (*http.Response, error) {
	var resp *http.Response
	p.StreamOptions = sdk.ChatCompletionStreamOptionsParam{}
	_, err := c.service.New(ctx, p, option.WithResponseBodyInto(&resp), option.WithHTTPClient(c.wholeClient))
	return resp, err
}

// params converts a request to the API's form. include_usage is set because a stream
// reports no usage without it. tools gets the names of the tools: the API accepts the
// pattern of package names.
func (c *Chat) params(r model.Request, tools *names.Map) sdk.ChatCompletionNewParams {
	p := sdk.ChatCompletionNewParams{
		Model:         c.options.ID,
		StreamOptions: sdk.ChatCompletionStreamOptionsParam{IncludeUsage: sdk.Bool(true)},
	}
	if t := c.options.Temperature; t != nil {
		p.Temperature = sdk.Float(*t)
	}
	for _, t := range r.Tools {
		p.Tools = append(p.Tools, tool(t, tools.Fit(t.Name)))
	}
	messages := names.Calls(r.Messages, chatIDs)
	reasoning := c.options.reasoning(messages)
	for i, m := range messages {
		p.Messages = append(p.Messages, message(m, tools, reasoning[i]))
	}
	return p
}

// turnHasCalls reports whether the turn of a message has calls of tools. A turn is the messages between two
// messages of the user.
func turnHasCalls(messages []model.Message, i int) bool {
	begin, end := i, i
	for begin > 0 && messages[begin-1].Role != model.User {
		begin--
	}
	for end < len(messages) && messages[end].Role != model.User {
		end++
	}
	return slices.ContainsFunc(messages[begin:end], func(m model.Message) bool { return len(m.ToolCalls) > 0 })
}

// message converts a message. reasoning is that of Options.reasoning.
func message(m model.Message, tools *names.Map, reasoning *string) sdk.ChatCompletionMessageParamUnion {
	switch m.Role {
	case model.System:
		return sdk.SystemMessage(m.Content)
	case model.ToolRole:
		return sdk.ToolMessage(m.Content, m.ToolCallID)
	case model.Assistant:
		return assistant(m, tools, reasoning)
	default:
		return sdk.UserMessage(m.Content)
	}
}

// assistant converts an assistant's message. The API requires its content unless the
// message has tool calls, and some servers require it beside them too (llama-cpp-python).
// Arguments that are not an object become {}: servers that parse them refuse the whole
// conversation otherwise (llama.cpp), and the tool's result names the mistake.
//
// Thoughts go back only in turns with calls, to the models that require them. DeepSeek's
// older models refuse them elsewhere.
func assistant(m model.Message, tools *names.Map, reasoning *string) sdk.ChatCompletionMessageParamUnion {
	var p sdk.ChatCompletionAssistantMessageParam
	p.Content.OfString = sdk.String(m.Content)
	back, extra := chatOpaqueOf(m), map[string]any{}
	for i, call := range m.ToolCalls {
		f := &sdk.ChatCompletionMessageFunctionToolCallParam{
			ID: call.ID,
			Function: sdk.ChatCompletionMessageFunctionToolCallFunctionParam{
				Name: tools.Fit(call.Name), Arguments: string(call.Object()),
			},
		}
		if i < len(back.Extra) && upstream.Present(back.Extra[i]) {
			f.SetExtraFields(map[string]any{"extra_content": back.Extra[i]})
		}
		p.ToolCalls = append(p.ToolCalls, sdk.ChatCompletionMessageToolCallUnionParam{OfFunction: f})
	}
	if reasoning != nil {
		extra[reasoningContent] = *reasoning
	}
	if back.MessageExtra != nil {
		extra["extra_content"] = back.MessageExtra
	}
	if back.Details != nil {
		extra["reasoning_details"] = back.Details
	}
	if len(extra) > 0 {
		p.SetExtraFields(extra)
	}
	return sdk.ChatCompletionMessageParamUnion{OfAssistant: &p}
}

// tool converts a tool. Its schema is sent unchanged, outside of the SDK's field: that field
// is a map, for which the schema would have to be decoded.
func tool(t model.ToolSpec, name string) sdk.ChatCompletionToolUnionParam {
	f := shared.FunctionDefinitionParam{Name: name}
	if t.Description != "" {
		f.Description = sdk.String(t.Description)
	}
	if len(t.Parameters) > 0 {
		f.SetExtraFields(map[string]any{"parameters": t.Parameters})
	}
	return sdk.ChatCompletionFunctionTool(f)
}
