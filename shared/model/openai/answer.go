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

// answer collects one chat completion from its chunks.
type answer struct {
	options     Options
	contentType string
	events      *upstream.Events
	data        json.RawMessage // Part.ProviderData
	calls       []toolCall
	held        int // bytes of all calls
	usage       usage
	finish      string
}

// chunk is what we need of a chat.completion.chunk. There is one choice, since we
// never ask for more. The array, unlike a slice, costs no allocation.
type chunk struct {
	Choices [1]struct {
		Delta struct {
			Content   *string     `json:"content"`
			Refusal   *string     `json:"refusal"`
			ToolCalls []toolDelta `json:"tool_calls"`
		} `json:"delta"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Usage *usage          `json:"usage"`
	Error json.RawMessage `json:"error"` // compatible servers fail within the stream
}

// marks are the same in all chunks of an answer, so they are decoded once.
type marks struct {
	ID                string `json:"id,omitempty"`
	SystemFingerprint string `json:"system_fingerprint,omitempty"`
}

type toolDelta struct {
	Index    int    `json:"index"`
	ID       string `json:"id"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

type toolCall struct {
	index     int
	id, name  string
	arguments []byte
}

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

// read yields the answer's text and returns its end; nil without an error says
// that the listener left.
func (a *answer) read(yield func(model.Part) bool) (*model.End, error) {
	// One decoder for all events: json.Unmarshal allocates its state for each.
	decoder := json.NewDecoder(a.events)
	var head struct {
		marks
		chunk
	}
	c, into := &head.chunk, any(&head)
	for {
		*c = chunk{}
		a.events.Next()
		if err := decoder.Decode(into); err != nil {
			return a.end(err)
		}
		if a.data == nil && head.marks != (marks{}) { // Azure's first chunk has none
			a.data, _ = json.Marshal(head.marks) // two strings always encode
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

// text is the part that the chunk makes, if its delta has a content at all.
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

// add keeps what only the end tells.
func (a *answer) add(c *chunk) error {
	if len(c.Error) > 0 && string(c.Error) != "null" {
		text := cmp.Or(a.options.public(vendorText(c.Error)), upstream.NoAnswer)
		return fault.Public(fault.Upstream, text, errors.New("openai: an error within the stream"))
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

// maxCalls is what OpenAI allows in tools and, with that, in one answer.
const maxCalls = 128

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
	a.held += len(d.Function.Name) + len(d.Function.Arguments)
	if len(a.calls) > maxCalls || a.held > upstream.MaxEvent {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("openai: tool calls without end"))
	}
	return nil
}

// end decides, once there is no further chunk, whether the answer is whole. err is
// the decoder's.
func (a *answer) end(err error) (*model.End, error) {
	if a.finish != "" && a.events.Ended() {
		return a.whole(), nil
	}
	return nil, a.events.BrokeOff(err, a.contentType, "finish_reason")
}

func (a *answer) whole() *model.End {
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
	return e
}
