package openai

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
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
type response struct {
	options     Options
	contentType string // of the HTTP response
	events      *upstream.Events
	data        json.RawMessage // Part.ProviderData
	items       []output
	held        int // bytes of all items
}

// output is one finished item of the answer, as it arrived, and its position in the
// answer.
type output struct {
	index int
	raw   json.RawMessage
}

// responseEvent is the part of any event that this package uses
// (https://platform.openai.com/docs/api-reference/responses-streaming).
type responseEvent struct {
	Type        string          `json:"type"`
	Delta       string          `json:"delta"`
	OutputIndex int             `json:"output_index"`
	Item        json.RawMessage `json:"item"`
	Response    struct {
		ID         string            `json:"id"`
		Output     []json.RawMessage `json:"output"`
		Usage      responseUsage     `json:"usage"`
		Error      json.RawMessage   `json:"error"`
		Incomplete struct {
			Reason string `json:"reason"`
		} `json:"incomplete_details"`
	} `json:"response"`
	// Error and Message: some servers send the body of an HTTP error as an event; the
	// API's own event "error" has its text in message.
	Error   json.RawMessage `json:"error"`
	Message string          `json:"message"`
}

// responseUsage is the token counts of the last event. They include cached and
// reasoning tokens, as those of Chat Completions do.
type responseUsage struct {
	Input        int `json:"input_tokens"`
	Output       int `json:"output_tokens"`
	Total        int `json:"total_tokens"`
	InputDetails struct {
		Cached     int `json:"cached_tokens"`
		CacheWrite int `json:"cache_write_tokens"`
	} `json:"input_tokens_details"`
	OutputDetails struct {
		Reasoning int `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
}

// item is the part of an output item that this package uses. The other members are kept
// as raw JSON.
type item struct {
	Type      string  `json:"type"`
	CallID    string  `json:"call_id"`
	Name      string  `json:"name"`
	Arguments string  `json:"arguments"`
	Encrypted *string `json:"encrypted_content"`
}

// typeCall is the type of the items that are calls of tools.
const typeCall = "function_call"

// read yields the answer's opening part and text and returns its End. A nil End without
// an error means that the consumer stopped reading.
func (a *response) read(yield func(model.Part) bool) (*model.End, error) {
	decoder := json.NewDecoder(a.events) // one for all events, as in answer.read
	var e responseEvent
	for {
		e = responseEvent{}
		a.events.Next()
		if err := decoder.Decode(&e); err != nil {
			return nil, a.options.provider().StreamError(a.events, err, a.contentType, "response.completed")
		}
		if err := a.failure(&e); err != nil {
			return nil, err
		}
		if p, ok := a.part(&e); ok && !yield(p) {
			return nil, nil
		}
		switch e.Type {
		case "response.output_item.done":
			if err := a.add(&e); err != nil {
				return nil, err
			}
		case "response.completed":
			return a.end(&e, "completed")
		case "response.incomplete":
			return a.end(&e, cmp.Or(e.Response.Incomplete.Reason, "incomplete"))
		}
	}
}

// failure returns the error that an event reports, or nil. An event without a type is
// none of this API's, but may report an error.
func (a *response) failure(e *responseEvent) error {
	p := a.options.provider()
	for _, v := range []json.RawMessage{e.Error, e.Response.Error} {
		if upstream.Present(v) {
			return p.ReportError(upstream.ReportInValue(v))
		}
	}
	switch e.Type {
	case "error", "response.failed":
		return p.NoAnswerError(a.events.Last(), "an event "+e.Type)
	case "":
		if r := upstream.ReportIn(a.events.Last()); r.Text != "" {
			return p.ReportError(r)
		}
	}
	return nil
}

// part returns the part that an event yields. ok is false if it yields none.
func (a *response) part(e *responseEvent) (p model.Part, ok bool) {
	switch e.Type {
	case "response.output_text.delta", "response.refusal.delta":
		return model.Part{Text: e.Delta}, true
	case "response.created":
		if a.data == nil && a.setID(e.Response.ID) {
			return model.Part{ProviderData: a.data, Opening: true}, true
		}
	}
	return p, false
}

// setID makes the provider data of the answer's ID. It reports false if there is no ID.
func (a *response) setID(id string) bool {
	if id == "" {
		return false
	}
	a.data, _ = json.Marshal(map[string]string{"response_id": id}) // a string always encodes
	return true
}

// add keeps a finished item, within the limits for one answer.
func (a *response) add(e *responseEvent) error {
	a.items = append(a.items, output{e.OutputIndex, e.Item})
	if a.held += len(e.Item); len(a.items) > maxItems || a.held > upstream.MaxEvent {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("openai: too many or too long items"))
	}
	return nil
}

// maxItems limits the items of one answer. It is twice maxCalls, because each call may have
// a reasoning item before it.
const maxItems = 2 * maxCalls

// end returns the End, made of the last event and of the items before it. The last
// event's own list of items is used if it is longer: some compatible servers send no
// output_item.done events, and some send no list.
func (a *response) end(e *responseEvent, reason string) (*model.End, error) {
	if a.data == nil {
		a.setID(e.Response.ID)
	}
	if listed := e.Response.Output; len(listed) > len(a.items) {
		a.items = nil
		for i, raw := range listed {
			a.items = append(a.items, output{i, raw})
		}
	}
	slices.SortStableFunc(a.items, func(x, y output) int { return cmp.Compare(x.index, y.index) })
	u := e.Response.Usage
	end := &model.End{FinishReason: reason, Usage: model.Usage{
		Input: u.Input, Output: u.Output, Total: cmp.Or(u.Total, u.Input+u.Output),
		Reasoning: u.OutputDetails.Reasoning,
		CacheRead: u.InputDetails.Cached, CacheWrite: u.InputDetails.CacheWrite,
	}}
	if err := a.addItems(end); err != nil {
		return nil, err
	}
	return end, nil
}

// addItems sets the End's tool calls and, if there are any, its Opaque: the items that
// the API requires back with the calls' results. A reasoning item without
// encrypted_content is left out. It refers to reasoning that the API has stored, and
// since our requests set store to false, the API stores none and would refuse the
// reference.
func (a *response) addItems(end *model.End) error {
	var back []json.RawMessage
	for _, o := range a.items {
		var i item
		if err := json.Unmarshal(o.raw, &i); err != nil {
			return fault.Public(fault.Upstream, upstream.NoAnswer, fmt.Errorf("openai: item: %w", err))
		}
		if i.Type == typeCall {
			end.ToolCalls = append(end.ToolCalls, model.ToolCall{ID: i.CallID, Name: i.Name, Arguments: i.Arguments})
		}
		if i.Type != "reasoning" || i.Encrypted != nil {
			back = append(back, o.raw)
		}
	}
	if len(end.ToolCalls) > maxCalls {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("openai: too many tool calls"))
	}
	if len(end.ToolCalls) > 0 {
		end.Opaque, _ = json.Marshal(back) // decoded values always encode
	}
	return nil
}
