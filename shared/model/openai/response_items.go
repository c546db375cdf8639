package openai

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// responseItems are the items of an answer of the Responses API as far as they have
// arrived, in the order of their arrival.
type responseItems struct {
	items []output
	held  int // bytes of all items
}

// output is one item: as it arrived last, and what its events added.
type output struct {
	item
	index     int // output_index, or noIndex
	raw       json.RawMessage
	done      bool   // output_item.done has arrived
	arguments []byte // of a call, from the events for them
}

// noIndex is the index of an event without output_index.
const noIndex = -1

// item is the part of an output item that this package uses. The other members are kept
// as raw JSON.
type item struct {
	Type      string          `json:"type"`
	ItemID    string          `json:"id"`
	Status    string          `json:"status"`
	CallID    string          `json:"call_id"`
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
	Encrypted string          `json:"encrypted_content"`
	Content   json.RawMessage `json:"content"`
	Summary   json.RawMessage `json:"summary"`
}

// The types of the items that this package uses.
const (
	typeCall      = "function_call"
	typeMessage   = "message"
	typeReasoning = "reasoning"
)

// maxItems limits the items of one answer. It is twice maxCalls, because each call may have
// a reasoning item before it.
const maxItems = 2 * maxCalls

// hold counts n more bytes and returns an error when the answer exceeds its limits.
func (s *responseItems) hold(n int) error {
	if s.held += n; len(s.items) > maxItems || s.held > upstream.MaxEvent {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("openai: too many or too long items"))
	}
	return nil
}

// set adds an item, or replaces it if it is there already: each item comes when it begins
// and when it is done, and some servers send one of these events twice.
func (s *responseItems) set(index int, raw json.RawMessage, done bool) error {
	var i item
	if err := json.Unmarshal(raw, &i); err != nil {
		return fault.Public(fault.Upstream, upstream.NoAnswer, fmt.Errorf("openai: item: %w", err))
	}
	n := slices.IndexFunc(s.items, func(o output) bool { return o.continuedBy(index, i, done) })
	if n < 0 {
		n = len(s.items)
		s.items = append(s.items, output{index: index})
	}
	to := &s.items[n]
	to.item, to.raw, to.done = i, raw, to.done || done
	return s.hold(len(raw))
}

// continuedBy reports whether an event for i is about this item, and not about a new one.
// Servers may give no IDs, one ID to several calls, another ID in each event, no indexes,
// or the index 0 to all items. So an event is about an item if none of these members
// speaks against it. An item that is done comes again only as a repetition.
func (o *output) continuedBy(index int, i item, done bool) bool {
	sameIndex := index == o.index && index != noIndex
	if o.Type != i.Type || differ(o.CallID, i.CallID) ||
		!sameIndex && (index != noIndex && o.index != noIndex || differ(o.ItemID, i.ItemID)) {
		return false
	}
	identified := sameIndex || o.ItemID != "" && o.ItemID == i.ItemID || o.CallID != "" && o.CallID == i.CallID
	if !o.done {
		return done || identified
	}
	return done && identified && !differ(o.ItemID, i.ItemID) &&
		o.Name == i.Name && bytes.Equal(o.item.Arguments, i.Arguments)
}

// differ reports whether two IDs are given and are not the same.
func differ(a, b string) bool { return a != "" && b != "" && a != b }

// call returns the call that an event for arguments means: the one with its index. If
// several have it, or the event has none, it is the call of the event's item_id, else the
// newest of them. A call whose item never came begins here. event is the data of the event:
// its item_id is decoded only where it is needed, because that costs each piece an
// allocation.
func (s *responseItems) call(index int, event []byte) *output {
	var found *output
	several := index == noIndex
	for n := range s.items {
		if o := &s.items[n]; o.Type == typeCall && (index == noIndex || o.index == index) {
			several = several || found != nil
			found = o
		}
	}
	if found != nil && !several {
		return found
	}
	var named struct {
		ID string `json:"item_id"`
	}
	_ = json.Unmarshal(event, &named) // "" if it stands on several lines
	for n := range s.items {
		if o := &s.items[n]; o.Type == typeCall && named.ID != "" && (o.ItemID == named.ID || o.CallID == named.ID) {
			return o
		}
	}
	if found == nil {
		s.items = append(s.items, output{index: index, item: item{Type: typeCall, ItemID: named.ID}})
		found = &s.items[len(s.items)-1]
	}
	return found
}

// addArguments adds a piece of the arguments of a call.
func (s *responseItems) addArguments(index int, piece string, event []byte) error {
	o := s.call(index, event)
	o.arguments = append(o.arguments, piece...)
	return s.hold(len(piece))
}

// setArguments replaces the arguments of a call by all of them. Empty ones replace nothing.
func (s *responseItems) setArguments(index int, arguments json.RawMessage, event []byte) error {
	if text := textOf(arguments); text != "" {
		s.call(index, event).arguments = []byte(text)
	}
	return s.hold(len(arguments))
}

// textOf returns the text of a member that is a string; "" for null; and the JSON itself
// for any other value, as some servers send the arguments as an object.
func textOf(value json.RawMessage) (text string) {
	if upstream.Present(value) && json.Unmarshal(value, &text) != nil {
		return string(value)
	}
	return text
}

// useList takes the list of items that the last event has. It replaces the items before it
// if it is longer, or if one of them was never done: some servers send no output_item.done
// events, and some send no list.
func (s *responseItems) useList(listed []json.RawMessage) error {
	if !slices.ContainsFunc(s.items, func(o output) bool { return o.index == noIndex }) {
		slices.SortStableFunc(s.items, func(x, y output) int { return cmp.Compare(x.index, y.index) })
	}
	open := slices.ContainsFunc(s.items, func(o output) bool { return !o.done })
	if len(listed) < len(s.items) || len(listed) == len(s.items) && !open {
		return nil
	}
	former := s.items
	*s = responseItems{}
	for n, raw := range listed {
		if err := s.set(n, raw, true); err != nil {
			return err
		}
		if len(former) == len(listed) && former[n].Type == s.items[n].Type {
			s.items[n].arguments = former[n].arguments
		}
	}
	return nil
}

// text returns the text of a message, or the thoughts of a reasoning item.
func (o *output) text() string {
	if o.Type == typeReasoning {
		return cmp.Or(textsOf(o.Summary), textsOf(o.Content))
	}
	return textsOf(o.Content)
}

// textsOf returns the text of a list of parts, or a string in place of it.
func textsOf(content json.RawMessage) (text string) {
	var parts []struct{ Text, Refusal string }
	if json.Unmarshal(content, &parts) != nil {
		_ = json.Unmarshal(content, &text) // any other form has no text
	}
	for _, p := range parts {
		text += p.Text + p.Refusal
	}
	return text
}

// argumentsText returns the arguments of a call: those of its item, or those that its
// events have added up to.
func (o *output) argumentsText() string {
	return cmp.Or(textOf(o.item.Arguments), string(o.arguments))
}

// back returns the items that the API requires back with the results of their calls. A
// reasoning item with neither text nor encrypted_content is left out. It refers to reasoning
// that OpenAI has stored, and since our requests set store to false, OpenAI stores none and
// would refuse the reference. Servers of open models send the reasoning itself, in content
// or in summary (LiteLLM), and want it back. OpenAI's items have no summary, because our
// requests ask for none.
func (s *responseItems) back() json.RawMessage {
	var back []json.RawMessage
	for n := range s.items {
		switch o := &s.items[n]; {
		case o.Type == typeCall:
			back = append(back, withTexts(o.raw, map[string]string{
				"type": typeCall, "call_id": o.CallID, "name": o.Name, "arguments": o.argumentsText(),
			}))
		case o.Type != typeReasoning || o.Encrypted != "" || o.text() != "":
			back = append(back, o.raw)
		}
	}
	opaque, _ := json.Marshal(back) // decoded values always encode
	return opaque
}

// withTexts returns an item in which these members have these texts: the item itself, byte
// for byte, if they have them already.
func withTexts(raw json.RawMessage, texts map[string]string) json.RawMessage {
	members := map[string]json.RawMessage{}
	_ = json.Unmarshal(raw, &members) // nothing, or what was decoded as an object before
	changed := false
	for name, text := range texts {
		var is *string
		if _ = json.Unmarshal(members[name], &is); is != nil && *is == text {
			continue
		}
		members[name], _ = json.Marshal(text)
		changed = true
	}
	if !changed {
		return raw
	}
	raw, _ = json.Marshal(members)
	return raw
}
