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

// Responses is a model behind POST /responses. It keeps nothing on the vendor's
// side: every request carries the whole conversation.
type Responses struct {
	options Options
	service responses.ResponseService
}

// NewResponses makes a model from the options alone.
func NewResponses(o Options) *Responses {
	return &Responses{options: o, service: responses.NewResponseService(o.requestOptions()...)}
}

// Describe uses the peer's names.
func (m *Responses) Describe() model.Description {
	return model.Describe("openai-responses", m.options.ID)
}

// Stream implements model.Model. The vendor's end marks are response.completed and
// response.incomplete, which says why it stopped, as the chat API's finish_reason
// does; without one the answer is an error. A call's ID is that of its item
// ("fc_…"), as the peer shows it; the API's own call_id travels in Opaque. A
// refusal's text is the answer's text.
func (m *Responses) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	send := func(ctx context.Context) (*http.Response, error) {
		var resp *http.Response
		stream := m.service.NewStreaming(ctx, m.params(r), option.WithResponseBodyInto(&resp))
		return resp, stream.Err()
	}
	return m.options.stream(ctx, send, func(resp *http.Response, yield func(model.Part) bool) (model.Part, error) {
		a := response{options: m.options, contentType: resp.Header.Get("Content-Type"), events: upstream.NewEvents(resp.Body)}
		end, err := a.read(yield)
		return model.Part{End: end, ProviderData: a.data}, err
	})
}

func (m *Responses) params(r model.Request) responses.ResponseNewParams {
	p := responses.ResponseNewParams{Model: m.options.ID, Store: sdk.Bool(false)}
	if t := m.options.Temperature; t != nil {
		p.Temperature = sdk.Float(*t)
	}
	if reasons(m.options.ID) {
		p.Include = []responses.ResponseIncludable{responses.ResponseIncludableReasoningEncryptedContent}
	}
	callIDs := map[string]string{} // by the item's id
	for _, message := range r.Messages {
		p.Input.OfInputItemList = append(p.Input.OfInputItemList, items(message, callIDs)...)
	}
	for _, t := range r.Tools {
		p.Tools = append(p.Tools, functionTool(t))
	}
	return p
}

// reasons reports whether a model takes part in sealed reasoning; one that doesn't
// refuses a request that asks for it. A model that isn't known here works, but
// thinks anew after each tool call.
func reasons(id string) bool {
	prefixes := []string{"o1", "o3", "o4", "gpt-5", "gpt-6", "codex-"}
	return !strings.HasPrefix(id, "gpt-5-chat") &&
		slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(id, p) })
}

// items are what a message is in the API's terms. callIDs collects the API's own
// ids of the calls, for the messages that answer them.
func items(m model.Message, callIDs map[string]string) responses.ResponseInputParam {
	switch m.Role {
	case model.System:
		return said(m.Content, responses.EasyInputMessageRoleDeveloper)
	case model.ToolRole:
		p := responses.ResponseInputItemParamOfFunctionCallOutput(m.Content)
		p.OfFunctionCallOutput.CallID = sdk.String(cmp.Or(callIDs[m.ToolCallID], m.ToolCallID))
		return responses.ResponseInputParam{p}
	case model.Assistant:
		if sent := returned(m.Opaque, callIDs); sent != nil {
			return sent
		}
		return retold(m)
	default:
		return said(m.Content, responses.EasyInputMessageRoleUser)
	}
}

func said(text string, role responses.EasyInputMessageRole) responses.ResponseInputParam {
	return responses.ResponseInputParam{responses.ResponseInputItemParamOfMessage(text, role)}
}

// returned gives the vendor its own items back as they came.
func returned(opaque json.RawMessage, callIDs map[string]string) responses.ResponseInputParam {
	var raw []json.RawMessage
	if json.Unmarshal(opaque, &raw) != nil {
		return nil // there is none, or it is another vendor's
	}
	var sent responses.ResponseInputParam
	for _, r := range raw {
		var i item
		_ = json.Unmarshal(r, &i) // it was decoded once already
		if i.Type == "function_call" {
			callIDs[i.id()] = cmp.Or(i.CallID, i.id())
		}
		sent = append(sent, param.Override[responses.ResponseInputItemUnionParam](r))
	}
	return sent
}

// retold makes items of an answer of which only text and calls were kept. The id
// of a call then serves as its call_id too: what counts is that the call and its
// output have the same.
func retold(m model.Message) (out responses.ResponseInputParam) {
	if m.Content != "" || len(m.ToolCalls) == 0 {
		out = said(m.Content, responses.EasyInputMessageRoleAssistant)
	}
	for _, c := range m.ToolCalls {
		out = append(out, responses.ResponseInputItemParamOfFunctionCall(c.Arguments, c.ID, c.Name))
	}
	return out
}

// functionTool offers a tool without the strict mode that this API, unlike the
// chat one, would use by default: it demands schemas that tools need not have.
func functionTool(t model.ToolSpec) responses.ToolUnionParam {
	f := responses.FunctionToolParam{Name: t.Name, Strict: sdk.Bool(false)}
	if t.Description != "" {
		f.Description = sdk.String(t.Description)
	}
	if len(t.Parameters) > 0 { // as it stands: the SDK's map would have to be decoded first
		f.SetExtraFields(map[string]any{"parameters": t.Parameters})
	}
	return responses.ToolUnionParam{OfFunction: &f}
}
