package openai

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// The limits of the two APIs for the ID of a call. OpenAI's reference doesn't state them. The APIs refuse longer ones:
// "string too long. Expected a string with maximum length 40" (64 for call_id in the Responses API).
const (
	maxChatID = 40
	maxCallID = 64
)

// chatOpaque is End.Opaque of the Chat Completions API: what a server requires or prefers to get back, as it was. The
// names of its members are part of stored checkpoints and must stay as they are.
type chatOpaque struct {
	// IDs are the IDs that the server gave to the calls of the answer; "" for one that can't be sent back. The server
	// gets its own IDs back because the templates of some models show them to the model. Kimi, for example, imitates the
	// IDs that it sees, and servers understand only calls with IDs of Kimi's own form.
	IDs []string `json:"ids,omitempty"`
	// Extra are the calls' extra_content, in the order of the calls. Gemini 3 refuses a request in which the signature
	// is missing that it sent there.
	Extra []json.RawMessage `json:"extra_content,omitempty"`
	// MessageExtra is the extra_content of the answer itself.
	MessageExtra json.RawMessage `json:"message_extra_content,omitempty"`
	// Details are OpenRouter's reasoning_details.
	Details []detail `json:"reasoning_details,omitempty"`

	held int // bytes of Details
	// reasoningContent states that the answer had the member reasoning_content, perhaps with an empty text.
	reasoningContent bool
}

// add adds what a chunk has.
func (o *chatOpaque) add(d *delta) {
	o.reasoningContent = o.reasoningContent || d.ReasoningContent.present
	if upstream.Present(d.ExtraContent) {
		o.MessageExtra = d.ExtraContent
	}
	for _, piece := range d.ReasoningDetails {
		if o.held += piece.size(); o.held > upstream.MaxEvent {
			return
		}
		if n := len(o.Details); n > 0 && o.Details[n-1].continuedBy(piece) {
			o.Details[n-1].add(piece)
		} else {
			o.Details = append(o.Details, piece)
		}
	}
}

// encode returns the Opaque of an answer with these calls; nil if there is nothing to send back.
func (o *chatOpaque) encode(calls []call) json.RawMessage {
	if len(calls) == 0 {
		return nil
	}
	needed := len(o.Details) > 0 || o.MessageExtra != nil
	for _, c := range calls {
		id := sendable(string(c.id), maxChatID)
		o.IDs, o.Extra = append(o.IDs, id), append(o.Extra, c.extra)
		needed = needed || id != "" || c.extra != nil
	}
	if !needed {
		return nil
	}
	if !hasAny(o.Extra) {
		o.Extra = nil
	}
	opaque, _ := json.Marshal(o) // texts and decoded values always encode
	return opaque
}

func hasAny(values []json.RawMessage) bool {
	for _, v := range values {
		if v != nil {
			return true
		}
	}
	return false
}

// detail is an element of reasoning_details, a piece of thoughts. In a stream, a long one comes in several elements of
// the same type and index.
type detail map[string]json.RawMessage

// details are the reasoning_details of a chunk.
type details []detail

// UnmarshalJSON implements json.Unmarshaler. Another form has no elements that could be put together.
func (d *details) UnmarshalJSON(data []byte) error {
	var list []detail
	if *d = nil; json.Unmarshal(data, &list) == nil {
		*d = list
	}
	return nil
}

// size is the number of bytes of the values.
func (d detail) size() (n int) {
	for _, v := range d {
		n += len(v)
	}
	return n
}

// continuedBy reports whether an element is a further piece of this one.
func (d detail) continuedBy(piece detail) bool {
	same := func(name string) bool { return string(d[name]) == string(piece[name]) }
	return same("type") && same("index") && (same("id") || piece["id"] == nil || d["id"] == nil) &&
		!upstream.Present(d["signature"])
}

// add adds a further piece: its texts are appended, and its other members replace those of the same name.
func (d detail) add(piece detail) {
	for _, name := range [...]string{"text", "summary", "data"} {
		var begin, end string
		if json.Unmarshal(d[name], &begin) == nil && json.Unmarshal(piece[name], &end) == nil {
			d[name], _ = json.Marshal(begin + end)
			delete(piece, name)
		}
	}
	maps.DeleteFunc(piece, func(_ string, v json.RawMessage) bool { return !upstream.Present(v) })
	maps.Copy(d, piece)
}

// chatOpaqueOf returns the Opaque of a message with calls. It is zero where the message has none, or that of another
// provider.
func chatOpaqueOf(m model.Message) (o chatOpaque) {
	if json.Unmarshal(m.Opaque, &o) != nil || len(o.IDs) != len(m.ToolCalls) {
		return chatOpaque{}
	}
	return o
}

// chatIDs returns the IDs that are best for the calls of a message: those that the server itself gave to them. The
// history of earlier runs has no Opaque. There, IDs that an earlier version stored are the server's own. An ID of the
// run loop is replaced by a shorter one, because Mistral's API refuses it.
func chatIDs(m model.Message) []string {
	if o := chatOpaqueOf(m); o.IDs != nil {
		return o.IDs
	}
	ids := make([]string, len(m.ToolCalls))
	for i, call := range m.ToolCalls {
		if !ownID.MatchString(call.ID) {
			ids[i] = sendable(call.ID, maxChatID)
		}
	}
	return ids
}

// ownID matches the IDs of the run loop.
var ownID = regexp.MustCompile(`^call_[0-9a-f]{32}$`)

// sendable returns id, or "" if it is longer than limit or has a character other than the visible ones of ASCII.
func sendable(id string, limit int) string {
	invisible := func(r rune) bool { return r <= ' ' || r > '~' }
	if len(id) > limit || strings.ContainsFunc(id, invisible) {
		return ""
	}
	return id
}

// reasoningContent is the name of the member for thoughts that some servers require back: DeepSeek refuses a request
// without it, also in later runs of a session. Others refuse a request with it, so it is sent only to a model that has
// used it: the data of an answer names both. That data is stored with the message, unlike Opaque, and an agent may get
// another model in the middle of a session or of a run.
const reasoningContent = "reasoning_content"

// providerData is the Part.ProviderData of an answer.
type providerData struct {
	identifiers
	// ReasoningField is the member in which the thoughts came, perhaps empty ones, if they must be sent back.
	ReasoningField string `json:"reasoning_field,omitempty"`
	// Model is the Options.ID with which the answer was requested.
	Model string `json:"model,omitempty"`
}

// sentReasoning reports whether an answer is one of this model, and had the member reasoning_content.
func (o Options) sentReasoning(m model.Message) bool {
	var data providerData
	return len(m.ProviderData) > 0 && json.Unmarshal(m.ProviderData, &data) == nil &&
		data.ReasoningField == reasoningContent && data.Model == o.ID
}

// reasoning returns what each message of a conversation has as reasoning_content; nil for one without the member. If
// the model has used the member in the conversation, it requires it in all answers of turns with calls, also in those
// without thoughts and in those of another model. The thoughts of another model are not sent.
func (o Options) reasoning(messages []model.Message) []*string {
	out := make([]*string, len(messages))
	if !slices.ContainsFunc(messages, o.sentReasoning) {
		return out
	}
	for i, m := range messages {
		if m.Role == model.Assistant && turnHasCalls(messages, i) {
			if out[i] = new(string); o.sentReasoning(m) {
				*out[i] = m.Reasoning
			}
		}
	}
	return out
}
