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

// response collects one answer of the Responses API from its events.
type response struct {
	options     Options
	contentType string
	events      *upstream.Events
	data        json.RawMessage // Part.ProviderData
	items       []output
	held        int // bytes of all items
}

// output is one finished item of the answer, as it came.
type output struct {
	index int
	raw   json.RawMessage
}

// responseEvent is what we need of any event: https://platform.openai.com/docs/api-reference/responses-streaming
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
	Error   json.RawMessage `json:"error"` // as HTTP errors have it, and some events
	Message string          `json:"message"`
}

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

// item is what we need of an item of the answer.
type item struct {
	Type      string  `json:"type"`
	ID        string  `json:"id"`
	CallID    string  `json:"call_id"`
	Name      string  `json:"name"`
	Arguments string  `json:"arguments"`
	Sealed    *string `json:"encrypted_content"`
}

// id is what the caller knows a call by.
func (i item) id() string { return cmp.Or(i.ID, i.CallID) }

// read yields the answer's opening and text and returns its end; nil without an
// error says that the listener left.
func (a *response) read(yield func(model.Part) bool) (*model.End, error) {
	decoder := json.NewDecoder(a.events) // one for all events, as in answer.read
	var e responseEvent
	for {
		e = responseEvent{}
		a.events.Next()
		if err := decoder.Decode(&e); err != nil {
			return nil, a.events.BrokeOff(err, a.contentType, "response.completed")
		}
		if err := a.failed(&e); err != nil {
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

// failed is the error that an event tells of.
func (a *response) failed(e *responseEvent) error {
	present := func(v json.RawMessage) bool { return len(v) > 0 && string(v) != "null" }
	if e.Type != "error" && e.Type != "response.failed" && !present(e.Error) && !present(e.Response.Error) {
		return nil
	}
	text := cmp.Or(vendorText(e.Error), vendorText(e.Response.Error), e.Message)
	return fault.Public(fault.Upstream, cmp.Or(a.options.public(text), upstream.NoAnswer), errors.New("openai: an error within the stream"))
}

// part is what the listener hears of an event, if anything.
func (a *response) part(e *responseEvent) (p model.Part, ok bool) {
	switch e.Type {
	case "response.output_text.delta", "response.refusal.delta":
		return model.Part{Text: e.Delta}, true
	case "response.created":
		if a.data == nil && a.name(e.Response.ID) {
			return model.Part{ProviderData: a.data, Opening: true}, true
		}
	}
	return p, false
}

// name keeps the answer's id, if it has one.
func (a *response) name(id string) bool {
	if id == "" {
		return false
	}
	a.data, _ = json.Marshal(map[string]string{"response_id": id}) // a string always encodes
	return true
}

// add keeps a finished item.
func (a *response) add(e *responseEvent) error {
	a.items = append(a.items, output{e.OutputIndex, e.Item})
	if a.held += len(e.Item); len(a.items) > maxItems || a.held > upstream.MaxEvent {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("openai: items without end"))
	}
	return nil
}

// maxItems bounds an answer's items: every call may have reasoning before it.
const maxItems = 2 * maxCalls

// end makes the end out of the last event and of the items that came before. The
// last event's own list counts when it is longer: there are servers that send no
// item by itself, and some that send no list.
func (a *response) end(e *responseEvent, reason string) (*model.End, error) {
	if a.data == nil {
		a.name(e.Response.ID)
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
	if err := a.take(end); err != nil {
		return nil, err
	}
	return end, nil
}

// take puts the calls into the end and, when there are any, all that the vendor
// wants back with their results. Reasoning that isn't sealed stays out: the vendor
// would look for it on its own side, where nothing is stored.
func (a *response) take(end *model.End) error {
	var back []json.RawMessage
	for _, o := range a.items {
		var i item
		if err := json.Unmarshal(o.raw, &i); err != nil {
			return fault.Public(fault.Upstream, upstream.NoAnswer, fmt.Errorf("openai: item: %w", err))
		}
		if i.Type == "function_call" {
			end.ToolCalls = append(end.ToolCalls, model.ToolCall{ID: i.id(), Name: i.Name, Arguments: i.Arguments})
		}
		if i.Type != "reasoning" || i.Sealed != nil {
			back = append(back, o.raw)
		}
	}
	if len(end.ToolCalls) > maxCalls {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("openai: tool calls without end"))
	}
	if len(end.ToolCalls) > 0 {
		end.Opaque, _ = json.Marshal(back) // decoded values always encode
	}
	return nil
}
