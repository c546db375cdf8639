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
	tools       *names.Map       // of the request
	contentType string           // of the response
	events      *upstream.Events // nil for an answer in one piece
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
// them first, and message_delta reports them again. Both are cumulative, and compatible
// servers report zeros in one of them (LiteLLM in the first), so the higher count is right.
type usage struct {
	Input         upstream.Count `json:"input_tokens"`
	Output        upstream.Count `json:"output_tokens"`
	CacheRead     upstream.Count `json:"cache_read_input_tokens"`
	CacheWrite    upstream.Count `json:"cache_creation_input_tokens"`
	OutputDetails struct {
		Thinking upstream.Count `json:"thinking_tokens"`
	} `json:"output_tokens_details"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (u *usage) UnmarshalJSON(data []byte) error {
	type plain usage
	return upstream.Lenient(data, (*plain)(u))
}

// update takes the counts of n that are higher.
func (u *usage) update(n usage) {
	u.Input, u.Output = max(n.Input, u.Input), max(n.Output, u.Output)
	u.CacheRead, u.CacheWrite = max(n.CacheRead, u.CacheRead), max(n.CacheWrite, u.CacheWrite)
	u.OutputDetails.Thinking = max(n.OutputDetails.Thinking, u.OutputDetails.Thinking)
}

// tokens returns the counts as AgentOS counts them: tokens read from or written to the
// cache aren't input.
func (u usage) tokens() model.Usage {
	return model.Usage{
		Input: int(u.Input), Output: int(u.Output), Total: int(u.Input + u.Output),
		Reasoning: int(u.OutputDetails.Thinking), CacheRead: int(u.CacheRead), CacheWrite: int(u.CacheWrite),
	}
}

// maxCalls and maxBlocks, with upstream.MaxEvent for the bytes, limit what one answer
// holds in memory. Every call may have a text block and a thinking block before it.
const (
	maxCalls  = 128
	maxBlocks = 3 * maxCalls
)

// block returns the block to which a piece of that kind at an index belongs: the newest one
// of the index. It is a new one if there is none, or if the newest can't have such a piece,
// because a server left out the start of a block. The search starts at the end because
// pieces nearly always belong to the newest block.
func (a *answer) block(index int, kind string) *block {
	for _, b := range slices.Backward(a.blocks) {
		if b.index != index {
			continue
		}
		if b.kind == kind || kind == blockCall && !ours[b.kind] {
			return b
		}
		break
	}
	return a.newBlock(index, kind)
}

// ours are the kinds of blocks that this package reads. The pieces of arguments at the
// index of another kind belong to a tool that the provider itself runs.
var ours = map[string]bool{blockText: true, blockThinking: true, blockRedacted: true, blockCall: true}

// newBlock adds a block.
func (a *answer) newBlock(index int, kind string) *block {
	b := &block{index: index, kind: kind}
	a.blocks = append(a.blocks, b)
	return b
}

// start returns the block that an event content_block_start begins. Its index may be one
// that an earlier block has: some servers number all blocks 0. A block that has started
// and has had no pieces is started again only if a server repeats the event.
func (a *answer) start(index int, c *content) *block {
	if n := len(a.blocks) - 1; n >= 0 {
		last := a.blocks[n]
		if last.index == index && last.kind == c.Type && last.id == c.ID && last.name == c.Name &&
			last.input == inputText(c.Input) && len(last.data) == 0 {
			return last
		}
	}
	return a.newBlock(index, c.Type)
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

// inputText returns the arguments of a call that arrived in one piece. They are an object.
// Some servers send it as a text, as OpenAI's APIs do.
func inputText(input json.RawMessage) string {
	if !upstream.Present(input) {
		return ""
	}
	var text string
	if json.Unmarshal(input, &text) != nil {
		return string(input)
	}
	return text
}

// add adds c to a block.
func (a *answer) add(b *block, c *content) error {
	b.id, b.name = cmp.Or(c.ID, b.id), cmp.Or(c.Name, b.name)
	b.signature = cmp.Or(c.Signature, c.Data, b.signature)
	b.data = append(append(b.data, c.Text...), c.Thinking...)
	b.input = cmp.Or(inputText(c.Input), b.input)
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
// (docs/differences.md lists them): those of upstream.EndError, to which a refusal may add
// its explanation, and pause_turn. With that one the API interrupted a long turn and
// expects it to be sent back, which only tools run by Anthropic need.
func (a *answer) checkStop(calls int) error {
	if calls > maxCalls {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("anthropic: too many calls"))
	}
	if a.stop.Reason == "pause_turn" {
		return fault.Public(fault.Upstream, upstream.CutShort+" (pause_turn)", errors.New("anthropic: stop reason"))
	}
	err := upstream.EndError(a.stop.Reason, calls, a.hasText)
	explanation := a.options.provider().SafeText(a.stop.Details.Explanation)
	if err != nil && explanation != "" {
		return fault.Public(fault.Upstream, fault.Detail(err)+": "+explanation, errors.New("anthropic: stop reason"))
	}
	return err
}
