package openai

import (
	"cmp"
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
// either event is an error. The ID of a tool call is the ID of its output item ("fc_…"),
// because AgentOS shows that one; the API's own call_id, which the tool's result must
// name, is in Opaque. The text of a refusal is the text of the answer. Request.Whole has
// no effect: the answer is streamed in any case.
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
	callIDs := map[string]string{} // by the ID of the call's item
	for _, message := range r.Messages {
		p.Input.OfInputItemList = append(p.Input.OfInputItemList, items(message, callIDs)...)
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

// items converts a message to the API's input items. callIDs maps the item IDs of calls
// to the API's call_ids: items adds those of an assistant's message and looks up that
// of a tool's message.
func items(m model.Message, callIDs map[string]string) responses.ResponseInputParam {
	switch m.Role {
	case model.System:
		return textItem(m.Content, responses.EasyInputMessageRoleDeveloper)
	case model.ToolRole:
		p := responses.ResponseInputItemParamOfFunctionCallOutput(m.Content)
		p.OfFunctionCallOutput.CallID = sdk.String(cmp.Or(callIDs[m.ToolCallID], m.ToolCallID))
		return responses.ResponseInputParam{p}
	case model.Assistant:
		if own := opaqueItems(m.Opaque, callIDs); own != nil {
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

// opaqueItems returns the API's own items as they arrived. nil means that opaque isn't
// a list of items: it is missing, or another provider made it.
func opaqueItems(opaque json.RawMessage, callIDs map[string]string) responses.ResponseInputParam {
	var raw []json.RawMessage
	if json.Unmarshal(opaque, &raw) != nil {
		return nil
	}
	var sent responses.ResponseInputParam
	for _, r := range raw {
		var i item
		_ = json.Unmarshal(r, &i) // it can't fail: addItems has already decoded the same item
		if i.Type == "function_call" {
			callIDs[i.id()] = cmp.Or(i.CallID, i.id())
		}
		sent = append(sent, param.Override[responses.ResponseInputItemUnionParam](r))
	}
	return sent
}

// rebuiltItems returns the items of an answer that was stored without Opaque, made of
// its text and calls. The ID of a call is used as its call_id too: the API only
// requires that the call and its output have the same one.
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
