package openai

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"slices"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// Chat is a model behind OpenAI's Chat Completions API, POST /chat/completions.
type Chat struct {
	options  Options
	endpoint upstream.Endpoint
	// streams and whole are the clients for streamed answers and for those in one piece. The header of the latter comes
	// only when the answer is complete, so nothing but the request's context limits the wait for it.
	streams, whole *http.Client
}

// NewChat returns a model configured by o alone. It doesn't connect.
func NewChat(o Options) *Chat {
	return &Chat{
		options: o, endpoint: o.endpoint("/chat/completions"), streams: o.client(upstream.HeaderTimeout), whole: o.client(0),
	}
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
	return func(yield func(model.Part, error) bool) { c.Ask(ctx, r)(yield) }
}

// Ask implements model.Asker.
func (c *Chat) Ask(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	tools := names.New()
	send := func(ctx context.Context) (*http.Response, error) {
		p := c.params(r, tools)
		if r.Whole {
			return c.endpoint.Post(ctx, c.whole, p)
		}
		// A stream reports no usage without include_usage. The API refuses stream_options in other requests.
		p.Stream, p.StreamOptions = true, &streamOptions{IncludeUsage: true}
		return c.endpoint.Post(ctx, c.streams, p)
	}
	return c.options.ask(ctx, send, func(resp *http.Response, yield func(model.Part) bool) (model.Part, error) {
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

// chatRequest is the body of a request. https://platform.openai.com/docs/api-reference/chat/create describes all
// members.
type chatRequest struct {
	Messages      []chatMessage  `json:"messages,omitempty"`
	Model         string         `json:"model"`
	Temperature   *float64       `json:"temperature,omitempty"`
	Tools         []chatTool     `json:"tools,omitempty"`
	Stream        bool           `json:"stream,omitempty"`
	StreamOptions *streamOptions `json:"stream_options,omitempty"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// chatMessage is a message of any role. The last three members are those of other servers than OpenAI's.
type chatMessage struct {
	Role       string     `json:"role"`
	Content    string     `json:"content"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
	ToolCalls  []chatCall `json:"tool_calls,omitempty"`

	ExtraContent     json.RawMessage `json:"extra_content,omitempty"`
	ReasoningContent *string         `json:"reasoning_content,omitempty"`
	ReasoningDetails []detail        `json:"reasoning_details,omitempty"`
}

// chatCall is a call of a tool. ExtraContent is Google's.
type chatCall struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`
	Function     calledFunction  `json:"function"`
	ExtraContent json.RawMessage `json:"extra_content,omitempty"`
}

type calledFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// chatTool is a tool that is offered. Its schema is sent unchanged.
type chatTool struct {
	Type     string          `json:"type"`
	Function offeredFunction `json:"function"`
}

type offeredFunction struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
}

// params converts a request to the API's form. tools gets the names of the tools: the API accepts the
// pattern of package names.
func (c *Chat) params(r model.Request, tools *names.Map) chatRequest {
	p := chatRequest{Model: c.options.ID, Temperature: c.options.Temperature}
	for _, t := range r.Tools {
		p.Tools = append(p.Tools, chatTool{"function", offeredFunction{tools.Fit(t.Name), t.Description, t.Parameters}})
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
func message(m model.Message, tools *names.Map, reasoning *string) chatMessage {
	switch m.Role {
	case model.System:
		return chatMessage{Role: "system", Content: m.Content}
	case model.ToolRole:
		return chatMessage{Role: "tool", Content: m.Content, ToolCallID: m.ToolCallID}
	case model.Assistant:
		return assistant(m, tools, reasoning)
	default:
		return chatMessage{Role: "user", Content: m.Content}
	}
}

// assistant converts an assistant's message. The API requires its content unless the
// message has tool calls, and some servers require it beside them too (llama-cpp-python).
// Arguments that are not an object become {}: servers that parse them refuse the whole
// conversation otherwise (llama.cpp), and the tool's result names the mistake.
//
// Thoughts go back only in turns with calls, to the models that require them. DeepSeek's
// older models refuse them elsewhere.
func assistant(m model.Message, tools *names.Map, reasoning *string) chatMessage {
	back := chatOpaqueOf(m)
	p := chatMessage{
		Role: "assistant", Content: m.Content, ReasoningContent: reasoning, ExtraContent: back.MessageExtra,
		ReasoningDetails: back.Details,
	}
	for i, call := range m.ToolCalls {
		c := chatCall{call.ID, "function", calledFunction{tools.Fit(call.Name), string(call.Object())}, nil}
		if i < len(back.Extra) && upstream.Present(back.Extra[i]) {
			c.ExtraContent = back.Extra[i]
		}
		p.ToolCalls = append(p.ToolCalls, c)
	}
	return p
}
