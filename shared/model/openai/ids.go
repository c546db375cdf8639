package openai

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/keyway-agents/keyway/shared/model"
)

// The limits of the two APIs for the ID of a call. OpenAI's reference doesn't state them. The APIs refuse longer ones:
// "string too long. Expected a string with maximum length 40" (64 for call_id in the Responses API).
const (
	maxChatID = 40
	maxCallID = 64
)

// chatOpaque is End.Opaque of the Chat Completions API. The names of its members are part of stored checkpoints and
// must stay as they are.
type chatOpaque struct {
	// IDs are the IDs that the server gave to the calls of the answer; "" for one that can't be sent back.
	IDs []string `json:"ids"`
}

// storeIDs returns the Opaque of an answer with these calls; nil if there is nothing to send back. The server gets its
// own IDs back because the templates of some models show them to the model. Kimi, for example, imitates the IDs that
// it sees, and servers understand only calls with IDs of Kimi's own form.
func storeIDs(calls []model.ToolCall) json.RawMessage {
	o, any := chatOpaque{IDs: make([]string, len(calls))}, false
	for i, call := range calls {
		o.IDs[i] = sendable(call.ID, maxChatID)
		any = any || o.IDs[i] != ""
	}
	if !any {
		return nil
	}
	opaque, _ := json.Marshal(o) // texts always encode
	return opaque
}

// chatIDs returns the IDs that are best for the calls of a message: those that the server itself gave to them. The
// history of earlier runs has no Opaque. There, IDs that an earlier version stored are the server's own. An ID of the
// run loop is replaced by a shorter one, because Mistral's API refuses it.
func chatIDs(m model.Message) []string {
	var o chatOpaque
	if json.Unmarshal(m.Opaque, &o) == nil && len(o.IDs) == len(m.ToolCalls) {
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
