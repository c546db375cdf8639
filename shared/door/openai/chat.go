package openai

import (
	"strconv"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Completion is a chat completion that is not streamed.
type Completion struct {
	ID      string    `json:"id"`
	Object  string    `json:"object"`  // "chat.completion"
	Created int64     `json:"created"` // seconds
	Model   string    `json:"model"`   // the agent
	Choices []Choice  `json:"choices"` // one
	Usage   ChatUsage `json:"usage"`
	// Metadata is not in the answers of OpenAI's API.
	Metadata ChatMetadata `json:"metadata"`
}

// ChatMetadata are the ids by which AgentOS's API names the run.
type ChatMetadata struct {
	RunID     string `json:"run_id"`
	SessionID string `json:"session_id"`
}

// Choice is an answer.
type Choice struct {
	Index        int         `json:"index"`
	Message      ChatMessage `json:"message"`
	Logprobs     *string     `json:"logprobs"`      // null
	FinishReason string      `json:"finish_reason"` // "stop"
}

// ChatMessage is the message of the agent.
type ChatMessage struct {
	Role    string  `json:"role"` // "assistant"
	Content string  `json:"content"`
	Refusal *string `json:"refusal"` // null
	// ReasoningContent are the thoughts of the model. OpenAI's API has no such member; DeepSeek's has, and clients read
	// it.
	ReasoningContent *string `json:"reasoning_content,omitempty"`
}

// ChatUsage are the tokens of all model calls of a run.
type ChatUsage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

// NewCompletion returns the chat completion of a run that is completed or paused. The text of a paused run says that
// it waits; see Waits. The error of a run that failed or was cancelled is that of Ended.
func NewCompletion(r wire.Run, used wire.Metrics) (Completion, error) {
	if err := Ended(r); err != nil {
		return Completion{}, err
	}
	text := ""
	if r.Content != nil {
		text = *r.Content
	}
	if r.Status == wire.StatusPaused {
		text = withNotice(text, Waits(r.AgentID, r.RunID))
	}
	return Completion{
		ID: ChatID(r.RunID), Object: "chat.completion", Created: r.CreatedAt, Model: r.AgentID,
		Choices: []Choice{{
			Message: ChatMessage{Role: assistant, Content: text, ReasoningContent: thoughtsOf(r)}, FinishReason: "stop",
		}},
		Usage:    ChatUsage{used.InputTokens, used.OutputTokens, used.TotalTokens},
		Metadata: ChatMetadata{RunID: r.RunID, SessionID: r.SessionID},
	}, nil
}

// ChatStream encodes the events of a run as the chunks of a chat completion. It is for one stream.
//
// Each chunk has one choice with a delta, and the last one of them has the finish reason: clients fail without either.
// Usage is in one chunk without choices, and only if the client asked for it, because some clients add up what they
// get in all chunks.
type ChatStream struct {
	usage   bool
	out     []byte // of the present event; reused
	head    []byte // the beginning of each chunk, up to the choices
	texts   bool   // a text was sent
	thought bool   // thoughts were sent
}

// NewChatStream returns the encoder of one stream.
func NewChatStream(usage bool) *ChatStream { return &ChatStream{usage: usage} }

// Event returns the frames of an event of the run. They are valid until the next call.
func (c *ChatStream) Event(event wire.Event) []byte {
	c.out = c.out[:0]
	switch e := event.(type) {
	case wire.Content:
		c.think(e.Head, e.ReasoningContent)
		if e.Content != "" {
			c.delta(e.Head, e.Content)
		}
	case wire.ContentOpened:
		c.think(e.Head, e.ReasoningContent)
	case wire.Started:
		c.begin(e.Head)
	case wire.Completed:
		if !c.texts && !c.thought && e.ReasoningContent != nil { // the run was not streamed
			c.think(e.Head, *e.ReasoningContent)
		}
		if !c.texts && e.Content != "" {
			c.delta(e.Head, e.Content)
		}
		c.finish(e.Head, &e.Metrics)
	case wire.Paused:
		c.delta(e.Head, withNotice("", c.separated(Waits(e.AgentID, e.RunID))))
		c.finish(e.Head, nil)
	case wire.Failed:
		c.fail("run_failed", e.Content)
	case wire.Cancelled:
		c.fail("run_cancelled", cancelled)
	case wire.Meta: // of a stream that can't be continued
		c.fail("stream_failed", e.Error)
	}
	return c.out
}

// HandedOver returns the last frames of a stream whose run another process continues: an error, because the client
// would take any other end for that of the answer.
func (c *ChatStream) HandedOver(run wire.Accepted) []byte {
	c.out = c.out[:0]
	c.fail(runContinues, Continues(run.RunID))
	return c.out
}

// separated returns the notice with an empty line before it, if there is a text to separate it from.
func (c *ChatStream) separated(notice string) string {
	if c.texts {
		return between + notice
	}
	return notice
}

// begin appends the first chunk, which names the sender, unless it was sent.
func (c *ChatStream) begin(h wire.Head) {
	if c.head != nil {
		return
	}
	c.head = wire.AppendText([]byte(`data: {"id":`), ChatID(h.RunID))
	c.head = append(c.head, `,"object":"chat.completion.chunk","created":`...)
	c.head = strconv.AppendInt(c.head, h.CreatedAt, 10)
	c.head = append(c.head, `,"model":`...)
	c.head = wire.AppendText(c.head, h.AgentID)
	c.head = append(c.head, `,"choices":[`...)
	c.out = append(c.out, c.head...)
	c.out = append(c.out, `{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`+"\n\n"...)
}

// delta appends a chunk with a piece of the answer.
func (c *ChatStream) delta(h wire.Head, text string) {
	c.texts = true
	c.piece(h, `{"index":0,"delta":{"content":`, text)
}

// think appends a chunk with a piece of the model's thoughts, unless it is "".
func (c *ChatStream) think(h wire.Head, text string) {
	if text != "" {
		c.thought = true
		c.piece(h, `{"index":0,"delta":{"reasoning_content":`, text)
	}
}

func (c *ChatStream) piece(h wire.Head, choice, text string) {
	c.begin(h)
	c.out = append(c.out, c.head...)
	c.out = append(c.out, choice...)
	c.out = wire.AppendText(c.out, text)
	c.out = append(c.out, `},"finish_reason":null}]}`+"\n\n"...)
}

// finish appends the last chunk, the one with the usage, and the end of the stream.
func (c *ChatStream) finish(h wire.Head, used *wire.Metrics) {
	c.begin(h)
	c.out = append(c.out, c.head...)
	c.out = append(c.out, `{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\n"...)
	if c.usage && used != nil {
		c.out = append(c.out, c.head...)
		c.out = append(c.out, `],"usage":{"prompt_tokens":`...)
		c.out = strconv.AppendInt(c.out, int64(used.InputTokens), 10)
		c.out = append(c.out, `,"completion_tokens":`...)
		c.out = strconv.AppendInt(c.out, int64(used.OutputTokens), 10)
		c.out = append(c.out, `,"total_tokens":`...)
		c.out = strconv.AppendInt(c.out, int64(used.TotalTokens), 10)
		c.out = append(c.out, "}}\n\n"...)
	}
	c.out = append(c.out, done...)
}

// fail appends an error, at which every client stops, and the end of the stream.
func (c *ChatStream) fail(code, text string) {
	c.out = append(c.out, `data: {"error":{"message":`...)
	c.out = wire.AppendText(c.out, text)
	c.out = append(c.out, `,"type":"`+fault.FinalType+`","param":null,"code":"`...)
	c.out = append(c.out, code...)
	c.out = append(c.out, "\"}}\n\n"+done...)
}

// done ends a stream of OpenAI.
const done = "data: [DONE]\n\n"
