package openai

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// answer assembles one answer of the Chat Completions API from its chunks. A short
// answer with a tool call looks like this, with most members left out:
//
//	data: {"id":"chatcmpl-1","choices":[{"delta":{"role":"assistant","content":""}}]}
//	data: {"id":"chatcmpl-1","choices":[{"delta":{"content":"Let me see."}}]}
//	data: {"id":"chatcmpl-1","choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1",
//	       "function":{"name":"web_search","arguments":""}}]}}]}
//	data: {"id":"chatcmpl-1","choices":[{"delta":{"tool_calls":[{"index":0,
//	       "function":{"arguments":"{\"query\":\"go\"}"}}]}}]}
//	data: {"id":"chatcmpl-1","choices":[{"delta":{},"finish_reason":"tool_calls"}]}
//	data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":10,…}}
//	data: [DONE]
type answer struct {
	options     Options
	contentType string // of the response
	events      *upstream.Events
	data        json.RawMessage // Part.ProviderData
	calls       []toolCall
	held        int // bytes of all calls
	usage       usage
	finish      string // finish_reason, "" until it has arrived
}

// chunk is the part of a chat.completion.chunk that this package uses
// (https://platform.openai.com/docs/api-reference/chat-streaming). There is one choice,
// since requests never ask for more. The array, unlike a slice, costs no allocation for
// each chunk.
type chunk struct {
	Choices [1]struct {
		Delta struct {
			Content   *string     `json:"content"`
			Refusal   *string     `json:"refusal"`
			ToolCalls []toolDelta `json:"tool_calls"`
		} `json:"delta"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Usage *usage `json:"usage"`
	// Error is not in OpenAI's API. Compatible servers (vLLM, OpenRouter) report a
	// failure within the stream by it.
	Error json.RawMessage `json:"error"`
}

// identifiers are equal in all chunks of an answer, so they are decoded only from the
// first chunk that has them. Encoded as JSON, they are the answer's Part.ProviderData, in
// AgentOS's form.
type identifiers struct {
	ID                string `json:"id,omitempty"`
	SystemFingerprint string `json:"system_fingerprint,omitempty"`
}

// toolDelta is a piece of a tool call. Index states to which call it belongs.
type toolDelta struct {
	Index    int    `json:"index"`
	ID       string `json:"id"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// toolCall is a tool call as far as it has arrived.
type toolCall struct {
	index     int
	id, name  string
	arguments []byte
}

// usage is the token counts of the last chunk. Prompt includes the cached tokens, and
// Completion includes the reasoning tokens.
type usage struct {
	Prompt        int `json:"prompt_tokens"`
	Completion    int `json:"completion_tokens"`
	Total         int `json:"total_tokens"`
	PromptDetails struct {
		Cached     int `json:"cached_tokens"`
		CacheWrite int `json:"cache_write_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		Reasoning int `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

// read yields the answer's text and returns its End. A nil End without an error means
// that the consumer stopped reading.
//
// One json.Decoder reads all events, because json.Unmarshal allocates its state anew
// for each. The first chunk's identifiers are decoded with the chunk; afterwards the
// decoder's target is the chunk alone. Azure OpenAI starts with a chunk that has
// neither identifiers nor choices (prompt_filter_results only), hence the test for
// them.
func (a *answer) read(yield func(model.Part) bool) (*model.End, error) {
	decoder := json.NewDecoder(a.events)
	var head struct {
		identifiers
		chunk
	}
	c, into := &head.chunk, any(&head)
	for {
		*c = chunk{}
		a.events.Next()
		if err := decoder.Decode(into); err != nil {
			return a.finished(err)
		}
		if a.data == nil && head.identifiers != (identifiers{}) {
			a.data, _ = json.Marshal(head.identifiers) // two strings always encode
			into = c
		}
		if p, ok := a.text(c); ok && !yield(p) {
			return nil, nil
		}
		if err := a.add(c); err != nil {
			return nil, err
		}
	}
}

// text returns the chunk's text as a part. ok is false if the chunk has none. An empty
// text is a part too, since AgentOS emits an event for it.
func (a *answer) text(c *chunk) (p model.Part, ok bool) {
	delta := &c.Choices[0].Delta
	text := delta.Content
	if delta.Refusal != nil && (text == nil || *text == "") {
		text = delta.Refusal
	}
	if text == nil {
		return p, false
	}
	return model.Part{Text: *text, ProviderData: a.data}, true
}

// add collects what the chunk contributes to the End, or returns the error that the
// chunk reports.
func (a *answer) add(c *chunk) error {
	if upstream.Present(c.Error) {
		return a.options.provider().ReportError(upstream.ReportInValue(c.Error))
	}
	for _, d := range c.Choices[0].Delta.ToolCalls {
		if err := a.addCall(d); err != nil {
			return err
		}
	}
	if c.Usage != nil {
		a.usage = *c.Usage
	}
	a.finish = cmp.Or(c.Choices[0].FinishReason, a.finish)
	return nil
}

// maxCalls is how many calls one answer may have. OpenAI allows as many tools in a
// request (https://platform.openai.com/docs/api-reference/chat/create).
const maxCalls = 128

// addCall adds a piece of a tool call. Calls may arrive interleaved, and servers number
// them in different ways, so the index is only compared and never used as a position.
func (a *answer) addCall(d toolDelta) error {
	i := slices.IndexFunc(a.calls, func(c toolCall) bool { return c.index == d.Index })
	if i < 0 {
		i = len(a.calls)
		a.calls = append(a.calls, toolCall{index: d.Index})
	}
	call := &a.calls[i]
	call.id = cmp.Or(d.ID, call.id)
	call.name += d.Function.Name
	call.arguments = append(call.arguments, d.Function.Arguments...)
	a.held += len(d.ID) + len(d.Function.Name) + len(d.Function.Arguments)
	if len(a.calls) > maxCalls || a.held > upstream.MaxEvent {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("openai: too many or too long tool calls"))
	}
	return nil
}

// finished decides whether the answer is complete, after the decoder failed with err
// and no chunk follows.
func (a *answer) finished(err error) (*model.End, error) {
	if a.finish != "" && a.events.Ended() {
		return a.end(), nil
	}
	return nil, a.options.provider().StreamError(a.events, err, a.contentType, "finish_reason")
}

// end returns the End of a complete answer.
func (a *answer) end() *model.End {
	u := a.usage
	e := &model.End{FinishReason: a.finish, Usage: model.Usage{
		Input: u.Prompt, Output: u.Completion, Total: cmp.Or(u.Total, u.Prompt+u.Completion),
		Reasoning: u.CompletionDetails.Reasoning,
		CacheRead: u.PromptDetails.Cached, CacheWrite: u.PromptDetails.CacheWrite,
	}}
	slices.SortFunc(a.calls, func(x, y toolCall) int { return cmp.Compare(x.index, y.index) })
	for _, c := range a.calls {
		e.ToolCalls = append(e.ToolCalls, model.ToolCall{ID: c.id, Name: c.name, Arguments: string(c.arguments)})
	}
	e.Opaque = storeIDs(e.ToolCalls)
	return e
}
