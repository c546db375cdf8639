package names

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/model"
)

// missing is the result of a call for which the conversation has none.
const missing = "The result of this call was not stored."

// Calls returns a copy of a conversation in which each call of a tool has an ID of its own and exactly one result,
// which names that ID. All providers require both, but the IDs of a conversation may come from another provider, and
// earlier versions stored IDs as the provider sent them: empty, repeated or long ones.
//
// wanted returns the IDs that are best for the calls of a message, in their order: fewer, or "", where any ID will do.
// A call without such an ID, or whose ID was used before, gets one like "call00001". All providers accept this form:
// the shortest limit and the smallest alphabet are those of Mistral, which requires nine letters and digits. The same
// messages at the start of a conversation always get the same IDs, so that a provider's prompt cache works.
//
// The results of an assistant's message are the tools' messages that directly follow it. A result belongs to the first
// call of that message that has the same ID and no result yet. A result without a call is left out, and a call without
// a result gets one that says so.
func Calls(messages []model.Message, wanted func(model.Message) []string) []model.Message {
	c := calls{wanted: wanted, used: map[string]bool{}}
	for _, m := range messages {
		c.add(m)
	}
	c.close()
	return c.out
}

// Fitting returns the IDs of a message's calls, for Calls, with "" in place of each that isn't [a-zA-Z0-9_-]{1,64}.
// Amazon Bedrock requires this form
// (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolUseBlock.html). Anthropic and OpenAI's
// Responses API accept it too. The Chat Completions API doesn't: it has a limit of 40 characters.
func Fitting(m model.Message) []string {
	ids := make([]string, len(m.ToolCalls))
	for i, call := range m.ToolCalls {
		if len(call.ID) <= maxName && strings.Map(replaceInvalid, call.ID) == call.ID {
			ids[i] = call.ID
		}
	}
	return ids
}

// calls is the state of Calls.
type calls struct {
	wanted func(model.Message) []string
	used   map[string]bool // all IDs so far
	last   int             // the number in the last ID that newID made
	open   []openCall      // the calls of the last assistant's message that have no result yet
	out    []model.Message
}

// openCall is a call that has no result yet.
type openCall struct {
	former string // the ID in the messages
	id     string // the ID that is sent
}

// add adds a message.
func (c *calls) add(m model.Message) {
	if m.Role == model.ToolRole {
		i := slices.IndexFunc(c.open, func(o openCall) bool { return o.former == m.ToolCallID })
		if i >= 0 {
			m.ToolCallID = c.open[i].id
			c.out, c.open = append(c.out, m), slices.Delete(c.open, i, i+1)
		}
		return
	}
	c.close()
	if len(m.ToolCalls) > 0 {
		m.ToolCalls = c.withIDs(m)
	}
	c.out = append(c.out, m)
}

// withIDs returns the calls of a message with the IDs that are sent, and adds them to the open calls.
func (c *calls) withIDs(m model.Message) []model.ToolCall {
	sent, wanted := slices.Clone(m.ToolCalls), c.wanted(m)
	for i := range sent {
		if i < len(wanted) && wanted[i] != "" && !c.used[wanted[i]] {
			sent[i].ID = wanted[i]
		} else {
			sent[i].ID = c.newID()
		}
		c.used[sent[i].ID] = true
		c.open = append(c.open, openCall{former: m.ToolCalls[i].ID, id: sent[i].ID})
	}
	return sent
}

// newID returns an ID that no call has.
func (c *calls) newID() (id string) {
	for id == "" || c.used[id] {
		c.last++
		id = fmt.Sprintf("call%05d", c.last)
	}
	return id
}

// close adds the results that are missing.
func (c *calls) close() {
	for _, o := range c.open {
		c.out = append(c.out, model.Message{Role: model.ToolRole, ToolCallID: o.id, Content: missing})
	}
	c.open = nil
}
