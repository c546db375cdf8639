package openai

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
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
//
// Many servers offer this API, and they differ in nearly every member. docs/models.md
// lists the forms that are read and the servers that send them.
type answer struct {
	options     Options
	tools       *names.Map // of the request
	contentType string     // of the response
	events      *upstream.Events
	yield       func(model.Part) bool
	data        json.RawMessage // Part.ProviderData
	ids         identifiers
	tags        tags
	calls       calls
	back        chatOpaque // what goes back to the server
	usage       usage
	finish      text // finish_reason, "" until it has arrived
	deltas      bool // a delta had something to add
	said        bool // there was a text that isn't empty
}

// chunk is the part of a chat.completion.chunk that this package uses
// (https://platform.openai.com/docs/api-reference/chat-streaming), and of a
// chat.completion, the same answer in one piece. There is one choice, since requests
// never ask for more. The array, unlike a slice, costs no allocation for each chunk.
type chunk struct {
	Choices [1]choice `json:"choices"`
	Usage   *usage    `json:"usage"`
	// Error is not in OpenAI's API. Compatible servers (vLLM, OpenRouter) report a
	// failure within the stream by it.
	Error json.RawMessage `json:"error"`
}

// choice has a delta in a chunk, and a message in an answer in one piece. Some servers
// send a message in each chunk too. Moonshot's sends the usage here.
type choice struct {
	Delta        delta  `json:"delta"`
	Message      *delta `json:"message"`
	FinishReason text   `json:"finish_reason"`
	Usage        *usage `json:"usage"`
	// Error is OpenRouter's.
	Error json.RawMessage `json:"error"`
}

// delta is what a chunk adds to the answer. ReasoningContent and Reasoning are two names
// for the model's thoughts: DeepSeek, Moonshot, llama.cpp and LiteLLM use the first one,
// Groq, Ollama, OpenRouter and the newer vLLM the second one.
type delta struct {
	Role             text            `json:"role"`
	Content          content         `json:"content"`
	Refusal          text            `json:"refusal"`
	ReasoningContent content         `json:"reasoning_content"`
	Reasoning        text            `json:"reasoning"`
	ReasoningDetails details         `json:"reasoning_details"`
	ToolCalls        []toolDelta     `json:"tool_calls"`
	ExtraContent     json.RawMessage `json:"extra_content"`
}

// silent reports whether the delta has no more than an empty text.
func (d *delta) silent() bool {
	return d.Content.text == "" && d.Content.thoughts == "" && d.Refusal == "" && d.ReasoningContent.text == "" &&
		d.Reasoning == "" && len(d.ReasoningDetails) == 0 && len(d.ToolCalls) == 0
}

// identifiers are equal in all chunks of an answer, so they are decoded only from the
// first chunk that has them. Encoded as JSON, they are the answer's Part.ProviderData, in
// AgentOS's form.
type identifiers struct {
	ID                text `json:"id,omitempty"`
	SystemFingerprint text `json:"system_fingerprint,omitempty"`
}

// usage is the token counts of the last chunk that has some. Prompt includes the cached
// tokens, and Completion includes the reasoning tokens.
type usage struct {
	Prompt        upstream.Count `json:"prompt_tokens"`
	Completion    upstream.Count `json:"completion_tokens"`
	Total         upstream.Count `json:"total_tokens"`
	PromptDetails struct {
		Cached     upstream.Count `json:"cached_tokens"`
		CacheWrite upstream.Count `json:"cache_write_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		Reasoning upstream.Count `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (u *usage) UnmarshalJSON(data []byte) error {
	type plain usage
	return upstream.Lenient(data, (*plain)(u))
}

// read yields the answer's text and returns its End. A nil End without an error means
// that the consumer stopped reading.
//
// One json.Decoder reads all events that readPlain does not know, because json.Unmarshal allocates its state anew
// for each. The first chunk's identifiers are decoded with the chunk; afterwards the
// decoder's target is the chunk alone. Azure OpenAI starts with a chunk that has
// neither identifiers nor choices (prompt_filter_results only), hence the test for
// them.
func (a *answer) read() (*model.End, error) {
	decoder := json.NewDecoder(a.events)
	var head struct {
		identifiers
		chunk
	}
	c, into := &head.chunk, any(&head)
	for {
		a.events.Next()
		if err := a.decode(decoder, into, c); err != nil {
			return a.endAt(err)
		}
		if a.data == nil && head.identifiers != (identifiers{}) {
			a.identify(head.identifiers)
			into = c
		}
		if proceed, err := a.add(c); err != nil || !proceed {
			return nil, err
		}
	}
}

// readAs reads the answer, in one piece or as a stream.
func (a *answer) readAs(resp *http.Response, whole bool) (*model.End, error) {
	if whole {
		return a.readWhole(resp.Body)
	}
	a.events = upstream.NewEvents(resp.Body)
	return a.read()
}

// endAt returns the End of an answer whose next chunk could not be read, if it was complete before.
func (a *answer) endAt(err error) (*model.End, error) {
	_, broken := errors.AsType[*json.SyntaxError](err)
	if a.finish != "" && (broken || a.events.Ended()) { // [DONE] may be cut too
		return a.end()
	}
	return nil, a.options.provider().StreamError(a.events, err, a.contentType, "finish_reason")
}

// decode reads the next chunk into c, which is a part of into or the same. Before the identifiers are known, there
// is more to read than readPlain does.
func (a *answer) decode(decoder *json.Decoder, into any, c *chunk) error {
	if a.data != nil && a.events.Peek(decoder.InputOffset()) && readPlain(a.events.Last(), c) {
		a.events.Skip()
		return nil
	}
	*c = chunk{}
	return decoder.Decode(into)
}

// readWhole is read for an answer in one piece.
func (a *answer) readWhole(body io.Reader) (*model.End, error) {
	var one struct {
		identifiers
		chunk
	}
	data, err := a.options.provider().ReadWhole(body, &one)
	if err != nil {
		return nil, err
	}
	a.identify(one.identifiers)
	if m := one.Choices[0].Message; m != nil {
		for i := range m.ToolCalls { // Calls have no index in this form, but each is a call of its own.
			m.ToolCalls[i].Index = index{n: i, known: true}
		}
	}
	if first := &one.Choices[0]; first.FinishReason == "" && !upstream.Failed(one.Error) && !upstream.Failed(first.Error) {
		return nil, a.options.provider().NoAnswerError(data, "a completion without finish_reason")
	}
	if proceed, err := a.add(&one.chunk); err != nil || !proceed {
		return nil, err
	}
	return a.end()
}

// identify sets the identifiers.
func (a *answer) identify(ids identifiers) {
	a.ids = ids
	a.data, _ = json.Marshal(ids) // two strings always encode
}

// add adds a chunk to the answer, or returns the error that the chunk reports. proceed is false if the
// consumer stopped reading.
func (a *answer) add(c *chunk) (proceed bool, err error) {
	choice := &c.Choices[0]
	d := &choice.Delta
	if choice.Message != nil && !a.deltas && d.silent() {
		d = choice.Message // Where there are deltas, a message repeats them (Perplexity).
	} else if !d.silent() {
		a.deltas = true
	}
	if err := a.failure(c, d); err != nil {
		return false, err
	}
	if err := a.calls.add(d.ToolCalls); err != nil {
		return false, err
	}
	a.back.add(d)
	for _, u := range [...]*usage{choice.Usage, c.Usage} {
		if u != nil && u.Prompt+u.Completion > 0 {
			a.usage = *u
		}
	}
	if choice.FinishReason != "" {
		a.finish = choice.FinishReason
	}
	return a.emit(d), nil
}

// failure returns the error that a chunk reports, in the member error or, where it has nothing else, in any other
// form.
func (a *answer) failure(c *chunk, d *delta) error {
	for _, e := range [...]json.RawMessage{c.Error, c.Choices[0].Error} {
		if upstream.Failed(e) {
			return a.options.provider().ReportError(upstream.ReportInValue(e))
		}
	}
	if a.events == nil || !d.silent() || d.Content.present || d.Role != "" || c.Usage != nil ||
		c.Choices[0].FinishReason != "" {
		return nil
	}
	if r := upstream.ReportIn(a.events.Last()); r != (upstream.Report{}) {
		return a.options.provider().ReportError(r)
	}
	return nil
}

// emit yields the text and the thoughts of a delta, if it has any. It is false if the consumer stopped reading. An
// empty text is a part too, since AgentOS emits an event for it. The text of a refusal is the text of the answer.
func (a *answer) emit(d *delta) bool {
	said := d.Content.text
	if said == "" {
		said = string(d.Refusal)
	}
	thoughts := d.Content.thoughts + d.ReasoningContent.text
	if d.ReasoningContent.text == "" {
		thoughts += string(d.Reasoning)
	}
	shown, tagged := a.tags.split(said)
	if thoughts += tagged; shown+thoughts == "" && (said != "" || !d.Content.present) {
		return true // There is nothing, or only what may be a part of a tag.
	}
	return a.part(shown, thoughts)
}

// part yields a part.
func (a *answer) part(said, thoughts string) bool {
	a.said = a.said || said != ""
	p := model.Part{Text: said, Reasoning: thoughts}
	if said != "" || thoughts == "" { // AgentOS sends the identifiers with texts only.
		p.ProviderData = a.data
	}
	return a.yield(p)
}

// end returns the End of a complete answer, or that of upstream.EndError.
func (a *answer) end() (*model.End, error) {
	if said, thoughts := a.tags.rest(); said+thoughts != "" && !a.part(said, thoughts) {
		return nil, nil
	}
	u := a.usage
	e := &model.End{FinishReason: string(a.finish), Usage: model.Usage{
		Input: int(u.Prompt), Output: int(u.Completion), Total: int(u.Total),
		Reasoning: int(u.CompletionDetails.Reasoning),
		CacheRead: int(u.PromptDetails.Cached), CacheWrite: int(u.PromptDetails.CacheWrite),
	}}
	if e.Usage.Total == 0 {
		e.Usage.Total = e.Usage.Input + e.Usage.Output
	}
	calls := a.calls.all()
	for _, c := range calls {
		e.ToolCalls = append(e.ToolCalls, model.ToolCall{
			ID: string(c.id), Name: a.tools.Original(string(c.name)), Arguments: string(c.arguments),
		})
	}
	if err := upstream.EndError(e.FinishReason, len(e.ToolCalls), a.said); err != nil {
		return nil, err
	}
	if a.back.reasoningContent {
		a.data, _ = json.Marshal(providerData{a.ids, reasoningContent, a.options.ID})
	}
	e.Opaque = a.back.encode(calls)
	return e, nil
}
