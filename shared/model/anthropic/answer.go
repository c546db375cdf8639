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

// answer collects one answer from its blocks.
type answer struct {
	options     Options
	tools       *names.Fitted
	contentType string
	blocks      []*block
	held        int // bytes of all blocks
	spoken      bool
	stop        stop
	usage       usage
}

// block is a content block of a kind that we ask for or may get unasked.
type block struct {
	index    int
	kind     string
	id, name string // of a call
	said     []byte // text, thought or arguments
	input    string // arguments that came whole
	seal     string // of a thought: its signature, or what stands in its place
}

// The types of blocks that count. Others, of the vendor's own tools, are never asked
// for and left out.
const (
	blockText     = "text"
	blockThinking = "thinking"
	blockRedacted = "redacted_thinking"
	blockCall     = "tool_use"
)

// stop is why the answer is over.
type stop struct {
	Reason  string `json:"stop_reason"`
	Details struct {
		Explanation string `json:"explanation"`
	} `json:"stop_details"`
}

// usage has no member that the vendor did not tell: the last event tells anew what has
// changed since the first.
type usage struct {
	Input         *int `json:"input_tokens"`
	Output        *int `json:"output_tokens"`
	CacheRead     *int `json:"cache_read_input_tokens"`
	CacheWrite    *int `json:"cache_creation_input_tokens"`
	OutputDetails *struct {
		Thinking int `json:"thinking_tokens"`
	} `json:"output_tokens_details"`
}

func (u *usage) update(n usage) {
	u.Input, u.Output = cmp.Or(n.Input, u.Input), cmp.Or(n.Output, u.Output)
	u.CacheRead, u.CacheWrite = cmp.Or(n.CacheRead, u.CacheRead), cmp.Or(n.CacheWrite, u.CacheWrite)
	u.OutputDetails = cmp.Or(n.OutputDetails, u.OutputDetails)
}

// tokens are counted as AgentOS does: those of the cache are no input.
func (u usage) tokens() model.Usage {
	t := model.Usage{Input: value(u.Input), Output: value(u.Output), CacheRead: value(u.CacheRead), CacheWrite: value(u.CacheWrite)}
	t.Total = t.Input + t.Output
	t.Reasoning = value(u.OutputDetails).Thinking
	return t
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// maxCalls and maxBlocks, and upstream.MaxEvent, bound what one answer may hold in
// memory. Every call may have a text and a thought before it.
const (
	maxCalls  = 128
	maxBlocks = 3 * maxCalls
)

// block finds the block of an index, or begins one of that kind.
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

// hold counts what a block has taken in.
func (a *answer) hold(n int) error {
	if a.held += n; a.held > upstream.MaxEvent || len(a.blocks) > maxBlocks {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("anthropic: blocks without end"))
	}
	return nil
}

// content is a block as the vendor begins one in a stream, or sends it whole.
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

// take adds a block, or its beginning.
func (a *answer) take(index int, c *content) error {
	b := a.block(index, c.Type)
	b.id, b.name, b.seal = cmp.Or(c.ID, b.id), cmp.Or(c.Name, b.name), cmp.Or(c.Signature, c.Data, b.seal)
	b.said = append(append(b.said, c.Text...), c.Thinking...)
	b.input = cmp.Or(string(c.Input), b.input)
	a.spoken = a.spoken || c.Text != ""
	return a.hold(len(c.ID) + len(c.Name) + len(c.Signature) + len(c.Data) + len(c.Text) + len(c.Thinking) + len(c.Input))
}

// end is the answer's end, once it is known why it stopped. What the vendor itself
// calls unfinished, or of which it shows nothing, is an error, and so is a call that
// the answer's bound may have cut: what is missing of it can't be seen.
func (a *answer) end() (*model.End, error) {
	e := &model.End{FinishReason: a.stop.Reason, Usage: a.usage.tokens()}
	slices.SortStableFunc(a.blocks, func(x, y *block) int { return cmp.Compare(x.index, y.index) })
	var back []kept
	thought := false
	for _, b := range a.blocks {
		k := kept{Type: b.kind, Seal: b.seal}
		switch b.kind {
		case blockText:
			k.Text = string(b.said)
		case blockThinking, blockRedacted:
			k.Text, thought = string(b.said), true
		case blockCall:
			k.Call = len(e.ToolCalls)
			e.ToolCalls = append(e.ToolCalls, model.ToolCall{ID: b.id, Name: a.tools.Own(b.name), Arguments: cmp.Or(string(b.said), b.input)})
		default:
			continue
		}
		back = append(back, k)
	}
	if err := a.unfinished(len(e.ToolCalls)); err != nil {
		return nil, err
	}
	if thought && len(e.ToolCalls) > 0 {
		e.Opaque, _ = json.Marshal(back) // texts always encode
	}
	return e, nil
}

func (a *answer) unfinished(calls int) error {
	text := ""
	switch reason := a.stop.Reason; {
	case calls > maxCalls:
		text = upstream.TooLong
	case reason == "pause_turn":
		text = upstream.CutShort + " (pause_turn)"
	case reason == "refusal" && (!a.spoken || calls > 0):
		text = "The model's answer was withheld (refusal)"
		if words := a.options.public(a.stop.Details.Explanation); words != "" {
			text += ": " + words
		}
	case calls > 0 && (reason == "max_tokens" || reason == "model_context_window_exceeded"):
		text = "The model's answer ended within a tool call (" + reason + "); ask for less at once"
	default:
		return nil
	}
	return fault.Public(fault.Upstream, text, errors.New("anthropic: stop reason"))
}
