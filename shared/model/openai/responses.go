package openai

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"slices"
	"strings"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// Responses is a model behind OpenAI's Responses API, POST /responses. Every request
// sends the whole conversation and sets store to false, so that OpenAI keeps nothing of
// it and a run can continue in another process.
type Responses struct {
	options Options
	service responses.ResponseService
}

// NewResponses returns a model configured by o alone. It doesn't connect.
func NewResponses(o Options) *Responses {
	return &Responses{options: o, service: responses.NewResponseService(o.requestOptions()...)}
}

// Describe returns AgentOS's names for this model.
func (m *Responses) Describe() model.Description {
	return model.Describe("openai-responses", m.options.ID)
}

// Stream implements model.Model. An answer has ended when the event
// response.completed or response.incomplete has arrived. The second one states the
// reason, as finish_reason does in the Chat Completions API. A stream that stops without
// either event is an error. The text of a refusal is the text of the answer.
// Request.Whole has no effect: the answer is streamed in any case.
func (m *Responses) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	send := func(ctx context.Context) (*http.Response, error) {
		var resp *http.Response
		stream := m.service.NewStreaming(ctx, m.params(r), option.WithResponseBodyInto(&resp))
		return resp, stream.Err()
	}
	return m.options.stream(ctx, send, func(resp *http.Response, yield func(model.Part) bool) (model.Part, error) {
		a := response{
			options: m.options, contentType: resp.Header.Get("Content-Type"), events: upstream.NewEvents(resp.Body),
		}
		end, err := a.read(yield)
		return model.Part{End: end, ProviderData: a.data}, err
	})
}

// params converts a request to the API's form.
func (m *Responses) params(r model.Request) responses.ResponseNewParams {
	p := responses.ResponseNewParams{Model: m.options.ID, Store: sdk.Bool(false)}
	if t := m.options.Temperature; t != nil {
		p.Temperature = sdk.Float(*t)
	}
	if isReasoning(m.options.ID) {
		p.Include = []responses.ResponseIncludable{responses.ResponseIncludableReasoningEncryptedContent}
	}
	for _, message := range names.Calls(r.Messages, callIDs) {
		p.Input.OfInputItemList = append(p.Input.OfInputItemList, items(message)...)
	}
	for _, t := range r.Tools {
		p.Tools = append(p.Tools, functionTool(t))
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
func items(m model.Message) responses.ResponseInputParam {
	switch m.Role {
	case model.System:
		return textItem(m.Content, responses.EasyInputMessageRoleDeveloper)
	case model.ToolRole:
		p := responses.ResponseInputItemParamOfFunctionCallOutput(m.Content)
		p.OfFunctionCallOutput.CallID = sdk.String(m.ToolCallID)
		return responses.ResponseInputParam{p}
	case model.Assistant:
		if own := ownItems(m); own != nil {
			return own
		}
		return rebuiltItems(m)
	default:
		return textItem(m.Content, responses.EasyInputMessageRoleUser)
	}
}

// textItem returns a text as one item.
func textItem(text string, role responses.EasyInputMessageRole) responses.ResponseInputParam {
	return responses.ResponseInputParam{responses.ResponseInputItemParamOfMessage(text, role)}
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

// ownItems returns the API's own items as they arrived; nil if opaqueItems has none. The call_id of a function_call is
// replaced if it isn't that of the call: some compatible servers send none, or repeat one.
func ownItems(m model.Message) (sent responses.ResponseInputParam) {
	calls := m.ToolCalls
	for _, i := range opaqueItems(m) {
		if i.Type == typeCall {
			if id := calls[0].ID; i.CallID != id {
				i.raw = withCallID(i.raw, id)
			}
			calls = calls[1:]
		}
		sent = append(sent, param.Override[responses.ResponseInputItemUnionParam](i.raw))
	}
	return sent
}

// withCallID returns an item with another call_id.
func withCallID(raw json.RawMessage, id string) json.RawMessage {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(raw, &members) // opaqueItems has decoded the same object
	members["call_id"], _ = json.Marshal(id)
	changed, _ := json.Marshal(members) // decoded members always encode
	return changed
}

// rebuiltItems returns the items of an answer that was stored without Opaque, made of
// its text and calls.
func rebuiltItems(m model.Message) (out responses.ResponseInputParam) {
	if m.Content != "" || len(m.ToolCalls) == 0 {
		out = textItem(m.Content, responses.EasyInputMessageRoleAssistant)
	}
	for _, c := range m.ToolCalls {
		out = append(out, responses.ResponseInputItemParamOfFunctionCall(c.Arguments, c.ID, c.Name))
	}
	return out
}

// functionTool offers a tool. It turns strict mode off, which this API, unlike Chat
// Completions, has on by default. Strict mode requires schemas in which all properties
// are required and no others are allowed, and the schemas of MCP servers and of own
// tools are rarely like that.
func functionTool(t model.ToolSpec) responses.ToolUnionParam {
	f := responses.FunctionToolParam{Name: t.Name, Strict: sdk.Bool(false)}
	if t.Description != "" {
		f.Description = sdk.String(t.Description)
	}
	if len(t.Parameters) > 0 { // sent as it is: the SDK's field is a map, into which it would have to be decoded
		f.SetExtraFields(map[string]any{"parameters": t.Parameters})
	}
	return responses.ToolUnionParam{OfFunction: &f}
}
