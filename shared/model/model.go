// Package model is the interface between the run loop and a language model: the request
// that the run loop sends, and the parts of the answer that it receives. Each provider
// implements the interface in a package below this one, and package providers opens a
// model by its provider's name. The only provider-specific knowledge here is the table
// of AgentOS's display names in Describe.
package model

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
)

// Model is one configured model of one provider. Implementations must be safe for
// concurrent use, because one Model serves all runs of its agent.
type Model interface {
	// Stream requests one answer and yields it as it arrives: any number of text parts,
	// then exactly one part with an End. An error ends the sequence, and no part
	// follows it. An answer that stops before the provider's own end mark is an error,
	// not an End, so that the run loop never stores a partial answer as a complete one.
	//
	// When ctx is cancelled, the error is context.Cause(ctx) itself, so that the run
	// loop recognises why it stopped (cancelled by the caller, deadline of the
	// process). Every other error has a fault.Kind and a text that a caller is allowed
	// to see: fault.Upstream for a failure of the provider, fault.Unavailable (with
	// RetryAfter, where the provider states a delay) when the provider limits the rate
	// of requests.
	//
	// A consumer that stops ranging over the sequence ends the request to the provider.
	Stream(ctx context.Context, r Request) iter.Seq2[Part, error]
	// Describe returns AgentOS's names for this model.
	Describe() Description
}

// Asker is a Model that can send a request before its answer is read. The run loop uses that while PostgreSQL
// commits the start of a run. A model without it is asked afterwards.
type Asker interface {
	Model
	// Ask sends the request and returns when the answer begins or the request has failed, with the sequence of Stream.
	// The caller reads the sequence once, or cancels ctx.
	Ask(ctx context.Context, r Request) iter.Seq2[Part, error]
}

// Description holds the names under which AgentOS shows a model. Clients of AgentOS's
// API display them and group by them, so they must be the same as AgentOS's.
type Description struct {
	// ID is the provider's name of the model, such as "gpt-4o".
	ID string
	// Name is the name of the class that implements the model in agno, such as
	// "OpenAIChat".
	Name string
	// Provider is the provider's name in run events and in the list of agents, such as
	// "OpenAI".
	Provider string
	// Family is the provider's name in a run's metrics, such as "OpenAI Chat".
	Family string
}

// Describe returns AgentOS's names for the model id of a provider, as keyway.yaml names
// the provider. For an unknown provider, the Description has only the ID. The table is
// here and not in the packages of the providers, because the Lambda functions that only
// list agents use it too. Otherwise they would link every provider's SDK (docs/adr/0003
// has the sizes).
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

// Role is the author of a Message.
type Role string

// The four roles, spelled as in AgentOS's API.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
	ToolRole  Role = "tool"
)

// Message is one message of the conversation.
type Message struct {
	// Role is the author.
	Role Role
	// Content is the text. It may be empty, for example beside tool calls.
	Content string
	// ToolCalls are the calls that an assistant's message requests. Empty for the other
	// roles.
	ToolCalls []ToolCall
	// ToolCallID is the ID of the call that a tool's message answers, one of the calls of
	// the last assistant's message before it. Empty for the other roles.
	ToolCallID string

	// Reasoning is the text of the thoughts of an assistant's message, all Part.Reasoning
	// of the answer. It may be empty.
	Reasoning string
	// ProviderData is that of the last part of the answer from which an assistant's message
	// was made. It may be nil. Another provider may have made it.
	ProviderData json.RawMessage
	// Opaque is the End.Opaque of the answer from which an assistant's message was
	// made. It is nil where it was not stored: the history of earlier runs has none.
	// ToolCalls then has the same calls in the same order as that End, but with other
	// IDs. So only its position shows which call of Opaque a call is.
	Opaque json.RawMessage
}

// ToolCall is a model's request to call a tool.
type ToolCall struct {
	// ID identifies the call. In an End it is what the provider sent: it may be empty,
	// repeated or long. In the Messages of a Request it is the run loop's ID, which is
	// unique, or in the history of runs of an earlier version the provider's. An
	// implementation of Model must send IDs that its provider accepts in place of them;
	// names.Calls makes them.
	ID string
	// Name is the name of the tool, as Request.Tools has it.
	Name string
	// Arguments is the text that the model wrote: nothing has checked it, and it may not
	// be JSON at all.
	Arguments string
}

// Object returns the arguments as a JSON object, for providers that accept nothing else
// when a call is sent back to them in the history (Anthropic's Messages API, Bedrock's
// Converse API). If the model wrote anything but one JSON object, the result is {}. The
// model still learns of its mistake, because the tool's result names it.
func (c ToolCall) Object() json.RawMessage {
	text := bytes.TrimSpace([]byte(c.Arguments))
	if !bytes.HasPrefix(text, []byte("{")) || !json.Valid(text) {
		return json.RawMessage("{}")
	}
	return text
}

// ToolSpec offers a tool to the model.
type ToolSpec struct {
	// Name is the name by which the model calls the tool.
	Name string
	// Description explains to the model what the tool does. May be empty.
	Description string
	// Parameters is the JSON Schema of the arguments, an object. Empty means that the
	// tool declares no parameters.
	Parameters json.RawMessage
}

// Request is one call of the model.
type Request struct {
	// Messages is the whole conversation, oldest message first. Nothing is kept at the
	// provider between two requests.
	Messages []Message
	// Tools are the tools that the model is allowed to call. May be empty.
	Tools []ToolSpec
	// Whole permits the provider to return the answer in one piece. The run loop sets
	// it when no client reads the stream: one response costs less than several hundred
	// chunks. An implementation may ignore it.
	Whole bool
}

// Part is one piece of an answer: a piece of text or of the model's thoughts, or, as the
// last part, the End.
type Part struct {
	// Text is a piece of the answer. It may be empty: AgentOS emits an event for a
	// provider's empty first chunk too.
	Text string
	// Reasoning is a piece of the model's thoughts, which clients see beside the answer.
	// A part with Reasoning and without Text has no piece of the answer.
	Reasoning string
	// ProviderData holds the provider's identifiers of this answer (such as OpenAI's
	// response_id), where AgentOS shows them to clients. May be nil.
	ProviderData json.RawMessage
	// Opening marks a part that has ProviderData and comes before the first text.
	// AgentOS emits it as an event whose content is absent instead of empty. OpenAI's
	// Responses API has such a part, its event response.created.
	Opening bool
	// End is set on the last part only, and Text is empty then.
	End *End
}

// End completes an answer.
type End struct {
	// ToolCalls are the calls that the model requests, in the order of the answer. Empty
	// when the answer is only text. The run loop replaces their IDs by its own, so an
	// implementation may return any.
	ToolCalls []ToolCall
	// Usage is zero where the provider reports none.
	Usage Usage
	// FinishReason is the provider's own reason for the end of the answer, such as
	// "stop", "tool_calls" or "length".
	FinishReason string

	// Opaque is data that the provider requires back unchanged, in the Message made of
	// this answer, when the tools' results are sent: encrypted reasoning, signatures,
	// the provider's IDs. Only the provider that made it can read it. It must refer to
	// the calls by their position in ToolCalls, because their IDs change. May be nil.
	Opaque json.RawMessage
}

// Usage counts the tokens of one answer. A field is zero where the provider doesn't
// report it.
type Usage struct {
	Input, Output, Total             int
	Reasoning, CacheRead, CacheWrite int
}
