// Package model is what the run loop says to a language model and what it hears
// back. It knows no vendor; each vendor is a package below this one.
package model

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
)

// Model is one configured model of one vendor. Implementations are safe for
// concurrent use.
type Model interface {
	// Stream asks for one answer and yields it as it arrives: any number of Text
	// parts, then exactly one End. An error ends the sequence and is never followed
	// by a part. An answer that stops short of the vendor's own end mark is an
	// error, not an End: no partial answer passes for a whole one.
	//
	// Errors carry a fault.Kind and a public text: Upstream for the vendor's
	// failures, Unavailable (with a retry hint) for throttling.
	Stream(ctx context.Context, r Request) iter.Seq2[Part, error]
	// Describe tells how AgentOS names this model.
	Describe() Description
}

// Description holds AgentOS's names of a model.
type Description struct {
	ID       string // "gpt-4o"
	Name     string // the peer's class name: "OpenAIChat"
	Provider string // as in events and lists: "OpenAI"
	Family   string // as in metrics: "OpenAI Chat"
}

// Describe is how AgentOS names the model that a provider serves under id, also for
// programs that link no vendor.
func Describe(provider, id string) Description {
	d := map[string]Description{
		"openai":           {Name: "OpenAIChat", Provider: "OpenAI", Family: "OpenAI Chat"},
		"openai-responses": {Name: "OpenAIResponses", Provider: "OpenAI", Family: "OpenAI Responses"},
		"anthropic":        {Name: "Claude", Provider: "Anthropic", Family: "Anthropic"},
		"bedrock":          {Name: "AwsBedrock", Provider: "AwsBedrock", Family: "AwsBedrock"},
		"demo":             {Name: "Demo", Provider: "Demo", Family: "Demo"},
	}[provider]
	d.ID = id
	return d
}

// Role is who speaks in a Message.
type Role string

// The four roles, as on AgentOS's wire.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
	ToolRole  Role = "tool"
)

// Message is one turn of the conversation.
type Message struct {
	Role       Role
	Content    string
	ToolCalls  []ToolCall // assistant: the calls it made
	ToolCallID string     // tool: which call this answers

	// Opaque is the End.Opaque of the answer that an assistant's message was made
	// of; nil where it was not kept, such as in the history of earlier runs.
	Opaque json.RawMessage
}

// ToolCall is a model's wish to call a tool. Arguments is the JSON text as the
// model wrote it: not checked, possibly not JSON at all.
type ToolCall struct {
	ID        string
	Name      string
	Arguments string
}

// Object is the arguments for a vendor who takes a JSON object back. A model writes
// what it likes; what is none is shown to it as {}, beside the tool's complaint about
// it.
func (c ToolCall) Object() json.RawMessage {
	text := bytes.TrimSpace([]byte(c.Arguments))
	if !bytes.HasPrefix(text, []byte("{")) || !json.Valid(text) {
		return json.RawMessage("{}")
	}
	return text
}

// ToolSpec offers a tool to the model. Parameters is a JSON Schema object.
type ToolSpec struct {
	Name        string
	Description string
	Parameters  json.RawMessage
}

// Request is one call of the model.
type Request struct {
	Messages []Message
	Tools    []ToolSpec
	Whole    bool // nobody hears the pieces: the answer may come as one
}

// Part is one piece of an answer: text, or (last) the end with everything that
// is known only then.
type Part struct {
	Text         string          // a piece of the answer; may be empty (a vendor's opening chunk)
	ProviderData json.RawMessage // the vendor's marks of this answer (response id), where the peer shows them; may be nil
	Opening      bool            // ProviderData alone, before the first text, which the peer shows as content that is absent
	End          *End            // non-nil on the last part only; Text is then empty
}

// End closes an answer.
type End struct {
	ToolCalls    []ToolCall
	Usage        Usage
	FinishReason string // the vendor's own word: "stop", "tool_calls", "length"

	// Opaque is what the vendor wants back, unread, in the Message of this answer
	// when the tools' results are sent: sealed reasoning, ids of its own. It is for
	// the model that made it. May be nil.
	Opaque json.RawMessage
}

// Usage counts tokens.
type Usage struct {
	Input, Output, Total             int
	Reasoning, CacheRead, CacheWrite int
}
