package openai

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// Responses is a model behind OpenAI's Responses API, POST /responses. Every request
// sends the whole conversation and sets store to false, so that OpenAI keeps nothing of
// it and a run can continue in another process.
type Responses struct {
	options  Options
	endpoint upstream.Endpoint
	client   *http.Client
}

// NewResponses returns a model configured by o alone. It doesn't connect.
func NewResponses(o Options) *Responses {
	return &Responses{options: o, endpoint: o.endpoint("/responses"), client: o.client(upstream.HeaderTimeout)}
}

// Describe returns AgentOS's names for this model.
func (m *Responses) Describe() model.Description {
	return model.Describe("openai-responses", m.options.ID)
}

// Stream implements model.Model. An answer has ended when the event
// response.completed or response.incomplete has arrived. The second one states the
// reason, as finish_reason does in the Chat Completions API. A stream that stops without
// either event is an error. The text of a refusal is the text of the answer.
// Request.Whole has no effect: a stream is requested in any case. Some servers answer with
// JSON all the same.
func (m *Responses) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) { m.Ask(ctx, r)(yield) }
}

// Ask implements model.Asker.
func (m *Responses) Ask(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	tools := names.New()
	send := func(ctx context.Context) (*http.Response, error) {
		return m.endpoint.Post(ctx, m.client, m.params(r, tools))
	}
	return m.options.ask(ctx, send, func(resp *http.Response, yield func(model.Part) bool) (model.Part, error) {
		whole := upstream.Whole(resp, false)
		a := response{
			options: m.options, tools: tools, yield: yield, contentType: resp.Header.Get("Content-Type"),
			events: upstream.NewEvents(resp.Body),
		}
		read := a.read
		if whole {
			read = func() (*model.End, error) { return a.readWhole(resp.Body) }
		}
		end, err := read()
		return model.Part{End: end, ProviderData: a.data}, err
	})
}

// responseRequest is the body of a request. https://platform.openai.com/docs/api-reference/responses/create
// describes all members.
type responseRequest struct {
	Store       bool     `json:"store"`
	Temperature *float64 `json:"temperature,omitempty"`
	Include     []string `json:"include,omitempty"`
	// Input are items of the types below, and items of the API's own answers, unchanged.
	Input  []any          `json:"input,omitempty"`
	Model  string         `json:"model"`
	Tools  []responseTool `json:"tools,omitempty"`
	Stream bool           `json:"stream"`
}

// messageItem is a text.
type messageItem struct {
	Content string `json:"content"`
	Role    string `json:"role"`
	Type    string `json:"type"`
}

// callItem is a call of a tool.
type callItem struct {
	Arguments string `json:"arguments"`
	CallID    string `json:"call_id"`
	Name      string `json:"name"`
	Type      string `json:"type"`
}

// outputItem is the result of a call.
type outputItem struct {
	CallID string `json:"call_id"`
	Output string `json:"output"`
	Type   string `json:"type"`
}

// responseTool is a tool that is offered. Its schema is sent unchanged. It turns strict mode off, which this API,
// unlike Chat Completions, has on by default. Strict mode requires schemas in which all properties are required and
// no others are allowed, and the schemas of MCP servers and of own tools are rarely like that.
type responseTool struct {
	Strict      bool            `json:"strict"`
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Type        string          `json:"type"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
}

// params converts a request to the API's form. The API accepts names of tools in the form of
// names.Map only.
func (m *Responses) params(r model.Request, tools *names.Map) responseRequest {
	p := responseRequest{Model: m.options.ID, Temperature: m.options.Temperature, Stream: true}
	if isReasoning(m.options.ID) {
		p.Include = []string{"reasoning.encrypted_content"}
	}
	for _, t := range r.Tools {
		p.Tools = append(p.Tools, responseTool{
			Name: tools.Fit(t.Name), Description: t.Description, Type: "function", Parameters: t.Parameters,
		})
	}
	for _, message := range names.Calls(r.Messages, callIDs) {
		p.Input = append(p.Input, items(message, tools)...)
	}
	return p
}

// isReasoning reports whether a model can return its reasoning in encrypted form
// (include reasoning.encrypted_content), which is needed for it to continue that
// reasoning after a tool call when nothing is stored at OpenAI. The API refuses a
// request that asks other models for it. A reasoning model that is missing here works
// too, but starts its reasoning anew after each tool call.
func isReasoning(id string) bool {
	prefixes := []string{"o1", "o3", "o4", "gpt-5", "gpt-6", "codex-"}
	return !strings.HasPrefix(id, "gpt-5-chat") &&
		slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(id, p) })
}

// items converts a message to the API's input items.
func items(m model.Message, tools *names.Map) []any {
	switch m.Role {
	case model.System:
		return textItem(m.Content, "developer")
	case model.ToolRole:
		return []any{outputItem{CallID: m.ToolCallID, Output: m.Content, Type: "function_call_output"}}
	case model.Assistant:
		if own := ownItems(m, tools); own != nil {
			return own
		}
		return rebuiltItems(m, tools)
	default:
		return textItem(m.Content, "user")
	}
}

// textItem returns a text as one item. OpenAI's API needs no type, but llama.cpp's server
// refuses an assistant's text without one.
func textItem(text, role string) []any {
	return []any{messageItem{Content: text, Role: role, Type: "message"}}
}

// ownItem is an item of an answer as it arrived.
type ownItem struct {
	item
	raw json.RawMessage
}

// opaqueItems returns the API's own items from a message's Opaque. nil means that Opaque is missing, is another
// provider's, or doesn't have one function_call for each of the message's calls. Their order is that of the calls.
func opaqueItems(m model.Message) []ownItem {
	var raw []json.RawMessage
	if json.Unmarshal(m.Opaque, &raw) != nil {
		return nil
	}
	own, calls := make([]ownItem, len(raw)), 0
	for i, r := range raw {
		own[i].raw = r
		if json.Unmarshal(r, &own[i].item) != nil {
			return nil
		}
		if own[i].Type == typeCall {
			calls++
		}
	}
	if calls != len(m.ToolCalls) {
		return nil
	}
	return own
}

// callIDs returns the call_ids that are best for the calls of a message: those of the API's own items, so that the
// items are sent back unchanged.
func callIDs(m model.Message) (ids []string) {
	own := opaqueItems(m)
	if own == nil {
		return names.Fitting(m)
	}
	for _, i := range own {
		if i.Type == typeCall {
			ids = append(ids, sendable(i.CallID, maxCallID))
		}
	}
	return ids
}

// maxItemID is the limit of OpenAI for the ID of an item. The API refuses longer ones as it refuses long call_ids, and
// empty ones.
const maxItemID = 64

// ownItems returns the API's own items as they arrived; nil if opaqueItems has none. A function_call is changed where
// it isn't what the API accepts back: its call_id must be that of the call (some compatible servers send none, or
// repeat one), its name one that a tool may have, its arguments a JSON object, and its own ID short. The item is valid
// without that ID.
func ownItems(m model.Message, tools *names.Map) (sent []any) {
	calls := m.ToolCalls
	for _, i := range opaqueItems(m) {
		if i.Type == typeCall {
			call := calls[0]
			i.raw = withTexts(i.raw, map[string]string{
				"call_id": call.ID, "name": tools.Fit(call.Name), "arguments": string(call.Object()),
			})
			calls = calls[1:]
		}
		if i.Type != typeReasoning && sendable(i.ItemID, maxItemID) == "" {
			i.raw = without(i.raw, "id")
		}
		sent = append(sent, i.raw)
	}
	return sent
}

// without returns an item without a member.
func without(raw json.RawMessage, name string) json.RawMessage {
	var members map[string]json.RawMessage
	if _ = json.Unmarshal(raw, &members); members[name] == nil { // opaqueItems has decoded the same object
		return raw
	}
	delete(members, name)
	changed, _ := json.Marshal(members) // decoded members always encode
	return changed
}

// rebuiltItems returns the items of an answer that was stored without Opaque, made of
// its text and calls.
func rebuiltItems(m model.Message, tools *names.Map) (out []any) {
	if m.Content != "" || len(m.ToolCalls) == 0 {
		out = textItem(m.Content, "assistant")
	}
	for _, c := range m.ToolCalls {
		out = append(out, callItem{
			Arguments: string(c.Object()), CallID: c.ID, Name: tools.Fit(c.Name), Type: typeCall,
		})
	}
	return out
}
