package anthropic

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// answer assembles one answer from its content blocks.
type answer struct {
	options     Options
	tools       *names.Map // of the request
	contentType string     // of the response
	blocks      []*block
	held        int  // bytes of all blocks
	hasText     bool // some block has text that isn't empty
	stop        stop
	usage       usage
}

// block is one content block of the answer.
type block struct {
	index     int
	kind      string
	id, name  string // of a tool call
	data      []byte // text, thinking or arguments, as the kind determines
	input     string // arguments that arrived in one piece
	signature string // of thinking; for redacted thinking, its encrypted data
}

// The kinds of blocks that become part of the answer or of Opaque. Others belong to
// tools that Anthropic itself runs; requests never offer those, and their blocks are
// left out.
const (
	blockText     = "text"
	blockThinking = "thinking"
	blockRedacted = "redacted_thinking"
	blockCall     = "tool_use"
)

// stop is why the answer ended.
type stop struct {
	Reason  string `json:"stop_reason"`
	Details struct {
		Explanation string `json:"explanation"`
	} `json:"stop_details"`
}

// usage holds the token counts that have been reported. The event message_start reports
// them first, and message_delta reports those that have changed since; the pointers
// distinguish a count of 0 from one that isn't reported.
type usage struct {
	Input         *int `json:"input_tokens"`
	Output        *int `json:"output_tokens"`
	CacheRead     *int `json:"cache_read_input_tokens"`
	CacheWrite    *int `json:"cache_creation_input_tokens"`
	OutputDetails *struct {
		Thinking int `json:"thinking_tokens"`
	} `json:"output_tokens_details"`
}

// update replaces the counts that n reports.
func (u *usage) update(n usage) {
	u.Input, u.Output = cmp.Or(n.Input, u.Input), cmp.Or(n.Output, u.Output)
	u.CacheRead, u.CacheWrite = cmp.Or(n.CacheRead, u.CacheRead), cmp.Or(n.CacheWrite, u.CacheWrite)
	u.OutputDetails = cmp.Or(n.OutputDetails, u.OutputDetails)
}

// tokens returns the counts as AgentOS counts them: tokens read from or written to the
// cache aren't input.
func (u usage) tokens() model.Usage {
	t := model.Usage{
		Input: value(u.Input), Output: value(u.Output), CacheRead: value(u.CacheRead), CacheWrite: value(u.CacheWrite),
	}
	t.Total = t.Input + t.Output
	t.Reasoning = value(u.OutputDetails).Thinking
	return t
}

// value returns what p points to, or the zero value for nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// maxCalls and maxBlocks, with upstream.MaxEvent for the bytes, limit what one answer
// holds in memory. Every call may have a text block and a thinking block before it.
const (
	maxCalls  = 128
	maxBlocks = 3 * maxCalls
)

// block returns the block at an index and creates it, with that kind, if it doesn't
// exist. The search starts at the end because pieces nearly always belong to the newest
// block.
func (a *answer) block(index int, kind string) *block {
	for _, b := range slices.Backward(a.blocks) {
		if b.index == index {
			return b
		}
	}
	b := &block{index: index, kind: kind}
	a.blocks = append(a.blocks, b)
	return b
}

// hold counts n more bytes and returns an error when the answer exceeds its limits.
func (a *answer) hold(n int) error {
	if a.held += n; a.held > upstream.MaxEvent || len(a.blocks) > maxBlocks {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("anthropic: too many or too long blocks"))
	}
	return nil
}

// content is a content block as the API sends it: the start of one in a stream, or a
// whole one.
type content struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	Thinking  string          `json:"thinking"`
	Signature string          `json:"signature"`
	Data      string          `json:"data"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
}

// size returns how many bytes the block adds to the answer.
func (c *content) size() int {
	return len(c.ID) + len(c.Name) + len(c.Signature) + len(c.Data) + len(c.Text) + len(c.Thinking) + len(c.Input)
}

// add adds c to the block at index.
func (a *answer) add(index int, c *content) error {
	b := a.block(index, c.Type)
	b.id, b.name = cmp.Or(c.ID, b.id), cmp.Or(c.Name, b.name)
	b.signature = cmp.Or(c.Signature, c.Data, b.signature)
	b.data = append(append(b.data, c.Text...), c.Thinking...)
	b.input = cmp.Or(string(c.Input), b.input)
	a.hasText = a.hasText || c.Text != ""
	return a.hold(c.size())
}

// end returns the End of an answer with a known stop reason, or the error of checkStop.
// Opaque is set only if the answer has both thinking and tool calls, because only then the
// API requires the blocks back.
func (a *answer) end() (*model.End, error) {
	e := &model.End{FinishReason: a.stop.Reason, Usage: a.usage.tokens()}
	slices.SortStableFunc(a.blocks, func(x, y *block) int { return cmp.Compare(x.index, y.index) })
	var stored []storedBlock
	thought := false
	for _, b := range a.blocks {
		s := storedBlock{Type: b.kind, Signature: b.signature}
		switch b.kind {
		case blockText:
			s.Text = string(b.data)
		case blockThinking, blockRedacted:
			s.Text, thought = string(b.data), true
		case blockCall:
			s.Call = len(e.ToolCalls)
			e.ToolCalls = append(e.ToolCalls, model.ToolCall{
				ID: b.id, Name: a.tools.Original(b.name), Arguments: cmp.Or(string(b.data), b.input),
			})
		default:
			continue
		}
		stored = append(stored, s)
	}
	if err := a.checkStop(len(e.ToolCalls)); err != nil {
		return nil, err
	}
	if thought && len(e.ToolCalls) > 0 {
		e.Opaque, _ = json.Marshal(stored) // texts always encode
	}
	return e, nil
}

// checkStop returns an error for stop reasons with which the answer can't be used
// (docs/differences.md lists them):
//   - pause_turn: the API interrupted a long turn and expects it to be sent back, which only tools run by Anthropic
//     need;
//   - refusal without text or with calls: the caller would see an empty answer without an explanation;
//   - max_tokens or model_context_window_exceeded with calls: the last call's arguments may be cut, and nothing in
//     the answer shows whether they are.
func (a *answer) checkStop(calls int) error {
	text := ""
	switch reason := a.stop.Reason; {
	case calls > maxCalls:
		text = upstream.TooLong
	case reason == "pause_turn":
		text = upstream.CutShort + " (pause_turn)"
	case reason == "refusal" && (!a.hasText || calls > 0):
		text = "The model's answer was withheld (refusal)"
		if explanation := a.options.safeText(a.stop.Details.Explanation); explanation != "" {
			text += ": " + explanation
		}
	case calls > 0 && (reason == "max_tokens" || reason == "model_context_window_exceeded"):
		text = "The model's answer ended within a tool call (" + reason + "); ask for less at once"
	default:
		return nil
	}
	return fault.Public(fault.Upstream, text, errors.New("anthropic: stop reason"))
}
