package openai

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// response assembles one answer of the Responses API from its events. A short answer
// with a tool call looks like this, with most events and members left out:
//
//	data: {"type":"response.created","response":{"id":"resp_1"}}
//	data: {"type":"response.output_text.delta","delta":"Let me see."}
//	data: {"type":"response.output_item.done","output_index":0,"item":{"type":"message",…}}
//	data: {"type":"response.output_item.done","output_index":1,"item":{"id":"fc_1",
//	       "type":"function_call","call_id":"call_1","name":"web_search","arguments":"{…}"}}
//	data: {"type":"response.completed","response":{"id":"resp_1","output":[…],"usage":{…}}}
//
// Compatible servers leave out most of it: the indexes and numbers (llama.cpp, LiteLLM),
// the IDs of items, the items or their list at the end. responseItems finds the items in
// what is left.
type response struct {
	options     Options
	tools       *names.Map // of the request
	contentType string     // of the HTTP response
	events      *upstream.Events
	yield       func(model.Part) bool
	data        json.RawMessage // Part.ProviderData
	items       responseItems
	said        bool // there was a text that isn't empty
	thought     bool // there was a thought that isn't empty
}

// responseEvent is the part of any event that this package uses
// (https://platform.openai.com/docs/api-reference/responses-streaming).
type responseEvent struct {
	Type      string          `json:"type"`
	Delta     string          `json:"delta"`
	Index     int             `json:"output_index"`
	Item      json.RawMessage `json:"item"`
	Arguments json.RawMessage `json:"arguments"`
	Response  wholeResponse   `json:"response"`
	// Error and Message: some servers send the body of an HTTP error as an event; the
	// API's own event "error" has its text in message.
	Error   json.RawMessage `json:"error"`
	Message string          `json:"message"`
}

// wholeResponse is an answer in one piece, which the last event contains too.
type wholeResponse struct {
	ID         string            `json:"id"`
	Status     string            `json:"status"`
	Output     []json.RawMessage `json:"output"`
	Usage      responseUsage     `json:"usage"`
	Error      json.RawMessage   `json:"error"`
	Incomplete struct {
		Reason string `json:"reason"`
	} `json:"incomplete_details"`
}

// responseUsage is the token counts of the last event. They include cached and
// reasoning tokens, as those of Chat Completions do.
type responseUsage struct {
	Input        upstream.Count `json:"input_tokens"`
	Output       upstream.Count `json:"output_tokens"`
	Total        upstream.Count `json:"total_tokens"`
	InputDetails struct {
		Cached     upstream.Count `json:"cached_tokens"`
		CacheWrite upstream.Count `json:"cache_write_tokens"`
	} `json:"input_tokens_details"`
	OutputDetails struct {
		Reasoning upstream.Count `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (u *responseUsage) UnmarshalJSON(data []byte) error {
	type plain responseUsage
	return upstream.Lenient(data, (*plain)(u))
}

// tokens returns the usage in the form of the run loop.
func (u responseUsage) tokens() model.Usage {
	return model.Usage{
		Input: int(u.Input), Output: int(u.Output), Total: int(cmp.Or(u.Total, u.Input+u.Output)),
		Reasoning: int(u.OutputDetails.Reasoning),
		CacheRead: int(u.InputDetails.Cached), CacheWrite: int(u.InputDetails.CacheWrite),
	}
}

// read yields the answer's parts and returns its End. A nil End without an error means that
// the consumer stopped reading.
func (a *response) read() (*model.End, error) {
	decoder := json.NewDecoder(a.events) // one for all events, as in answer.read
	var e responseEvent
	for {
		e = responseEvent{Index: noIndex}
		a.events.Next()
		if err := decoder.Decode(&e); err != nil && !a.events.OtherForm(err, e.Type, isRead) {
			return nil, a.options.provider().StreamError(a.events, err, a.contentType, "response.completed")
		}
		if err := a.failure(&e); err != nil {
			return nil, err
		}
		if p, ok := a.part(&e); ok && !a.yield(p) {
			return nil, nil
		}
		switch e.Type {
		case "response.output_item.added", "response.output_item.done":
			if err := a.items.set(e.Index, e.Item, e.Type == "response.output_item.done"); err != nil {
				return nil, err
			}
		case "response.function_call_arguments.delta":
			if err := a.items.addArguments(e.Index, e.Delta, a.events.Last()); err != nil {
				return nil, err
			}
		case "response.function_call_arguments.done":
			if err := a.items.setArguments(e.Index, e.Arguments, a.events.Last()); err != nil {
				return nil, err
			}
		case "response.completed":
			return a.end(&e.Response, e.Response.Status == statusIncomplete)
		case "response.incomplete":
			return a.end(&e.Response, true)
		}
	}
}

// isRead holds the types of the events that this package reads.
var isRead = map[string]bool{
	"": true, "error": true, "response.created": true, "response.completed": true, "response.incomplete": true,
	"response.failed": true, "response.output_item.added": true, "response.output_item.done": true,
	"response.output_text.delta": true, "response.refusal.delta": true,
	"response.reasoning_text.delta": true, "response.reasoning_summary_text.delta": true,
	"response.function_call_arguments.delta": true, "response.function_call_arguments.done": true,
}

// readWhole is read for an answer in one piece, which some servers send although a stream
// was requested.
func (a *response) readWhole(body io.Reader) (*model.End, error) {
	var r wholeResponse
	data, err := a.options.provider().ReadWhole(body, &r)
	if err != nil {
		return nil, err
	}
	if upstream.Failed(r.Error) || r.Status != statusCompleted && r.Status != statusIncomplete {
		return nil, a.options.provider().NoAnswerError(data, "a response with the status "+r.Status)
	}
	if a.setID(r.ID) && !a.yield(model.Part{ProviderData: a.data, Opening: true}) {
		return nil, nil
	}
	return a.end(&r, r.Status == statusIncomplete)
}

// The states of an answer, and of an item, that has ended.
const (
	statusCompleted  = "completed"
	statusIncomplete = "incomplete"
)

// failure returns the error that an event reports, or nil. An event whose type isn't of this
// API may report an error in another form.
func (a *response) failure(e *responseEvent) error {
	switch {
	case upstream.Failed(e.Error):
		return a.options.provider().ReportError(upstream.ReportInValue(e.Error))
	case upstream.Failed(e.Response.Error):
		return a.options.provider().ReportError(upstream.ReportInValue(e.Response.Error))
	case e.Type == "error" || e.Type == "response.failed":
		return a.options.provider().NoAnswerError(a.events.Last(), "an event "+e.Type)
	case !strings.HasPrefix(e.Type, "response."):
		if r := upstream.ReportIn(a.events.Last()); r.Text != "" {
			return a.options.provider().ReportError(r)
		}
	}
	return nil
}

// part returns the part that an event yields. ok is false if it yields none. OpenAI shows
// summaries of its models' reasoning. The reasoning itself comes from servers of open
// models (vLLM, llama.cpp, LM Studio).
func (a *response) part(e *responseEvent) (p model.Part, ok bool) {
	switch e.Type {
	case "response.output_text.delta", "response.refusal.delta":
		a.said = a.said || e.Delta != ""
		return model.Part{Text: e.Delta}, true
	case "response.reasoning_summary_text.delta", "response.reasoning_text.delta":
		a.thought = a.thought || e.Delta != ""
		return model.Part{Reasoning: e.Delta}, e.Delta != ""
	case "response.created":
		if a.data == nil && a.setID(e.Response.ID) {
			return model.Part{ProviderData: a.data, Opening: true}, true
		}
	}
	return p, false
}

// maxResponseID limits the IDs of answers, which every event of a run repeats to clients.
// LiteLLM's have some 400 characters.
const maxResponseID = 1000

// setID makes the provider data of the answer's ID. It reports false if there is no ID.
func (a *response) setID(id string) bool {
	if id == "" || len(id) > maxResponseID {
		return false
	}
	a.data, _ = json.Marshal(map[string]string{"response_id": id}) // a string always encodes
	return true
}

// end yields what the items have and no event had before, and returns the End. incomplete
// states that the answer was cut. The cause of that is the finish reason.
func (a *response) end(r *wholeResponse, incomplete bool) (*model.End, error) {
	if a.data == nil {
		a.setID(r.ID)
	}
	if err := a.items.useList(r.Output); err != nil {
		return nil, err
	}
	end := &model.End{Usage: r.Usage.tokens()}
	text := map[string]string{} // by the type of the items
	for n := range a.items.items {
		o := &a.items.items[n]
		text[o.Type] += o.text()
		if o.Type == typeCall {
			incomplete = incomplete || o.Status == statusIncomplete || !o.done && o.argumentsText() == ""
			end.ToolCalls = append(end.ToolCalls, model.ToolCall{
				ID: o.CallID, Name: a.tools.Original(o.Name), Arguments: o.argumentsText(),
			})
		}
	}
	if end.FinishReason = statusCompleted; incomplete {
		end.FinishReason = cmp.Or(r.Incomplete.Reason, statusIncomplete)
	}
	if len(end.ToolCalls) > maxCalls {
		return nil, fault.Public(fault.Upstream, upstream.TooLong, errors.New("openai: too many tool calls"))
	}
	if thoughts := text[typeReasoning]; !a.thought && thoughts != "" && !a.yield(model.Part{Reasoning: thoughts}) {
		return nil, nil
	}
	if said := text[typeMessage]; !a.said && said != "" {
		if a.said = true; !a.yield(model.Part{Text: said}) {
			return nil, nil
		}
	}
	if err := upstream.EndError(end.FinishReason, len(end.ToolCalls), a.said); err != nil {
		return nil, err
	}
	if len(end.ToolCalls) > 0 {
		end.Opaque = a.items.back()
	}
	return end, nil
}
