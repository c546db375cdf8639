package bedrock

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
	tools   *names.Map // of the request
	blocks  []block
	held    int  // bytes of all blocks
	hasText bool // some piece of text wasn't empty
	stop    string
	usage   *tokenUsage
}

// block is one content block of the answer.
type block struct {
	index     int32
	kind      string
	id, name  string // of a tool call
	data      []byte // text, reasoning or arguments, as the kind determines
	signature string // of reasoning
	hidden    []byte // reasoning that is encrypted
}

// The kinds of blocks that become part of the answer or of Opaque. The names are part of
// stored checkpoints and must stay as they are.
const (
	blockText      = "text"
	blockReasoning = "reasoningContent"
	blockCall      = "toolUse"
)

// maxCalls and maxBlocks, with upstream.MaxEvent for the bytes, limit what one answer
// holds in memory. Every call may have a text block and a reasoning block before it.
const (
	maxCalls  = 128
	maxBlocks = 3 * maxCalls
)

// block returns the block to which a piece of that kind at an index belongs: the newest
// one of both. It is a new one if there is none, because text and reasoning have no start
// event. The search starts at the end because pieces nearly always belong to the newest
// block.
func (a *answer) block(index int32, kind string) *block {
	for i := len(a.blocks) - 1; i >= 0; i-- {
		if b := &a.blocks[i]; b.index == index && b.kind == kind {
			return b
		}
	}
	return a.newBlock(index, kind)
}

// newBlock adds a block.
func (a *answer) newBlock(index int32, kind string) *block {
	a.blocks = append(a.blocks, block{index: index, kind: kind})
	return &a.blocks[len(a.blocks)-1]
}

// startCall begins a call.
func (a *answer) startCall(index int32, id, name string) error {
	b := a.newBlock(index, blockCall)
	b.id, b.name = id, name
	return a.hold(len(b.id) + len(b.name))
}

// add adds a piece to the block of that kind at an index.
func (a *answer) add(index int32, kind, piece string) error {
	b := a.block(index, kind)
	b.data = append(b.data, piece...)
	a.hasText = a.hasText || kind == blockText && piece != ""
	return a.hold(len(piece))
}

// sign adds what the API requires back with a block of reasoning.
func (a *answer) sign(index int32, signature string, hidden []byte) error {
	b := a.block(index, blockReasoning)
	b.signature += signature
	b.hidden = append(b.hidden, hidden...)
	return a.hold(len(signature) + len(hidden))
}

// hold counts n more bytes and returns an error when the answer exceeds its limits.
func (a *answer) hold(n int) error {
	if a.held += n; a.held > upstream.MaxEvent || len(a.blocks) > maxBlocks {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("bedrock: too many or too long blocks"))
	}
	return nil
}

// storedBlock is a block of an answer as End.Opaque stores it. The names of its members
// are part of stored checkpoints and must stay as they are.
type storedBlock struct {
	Type      string `json:"type"`
	Text      string `json:"text,omitempty"` // of a text block or of reasoning
	Signature string `json:"signature,omitempty"`
	Hidden    []byte `json:"hidden,omitempty"`
	Call      int    `json:"call,omitempty"` // the index of a tool call in the message's ToolCalls
}

// end returns the End of an answer with a known stop reason, or the error of checkStop.
// Opaque is set only if the answer has tool calls and reasoning with a signature, or
// encrypted reasoning: such models (Claude) require it back with the results of the calls
// (https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html).
// Reasoning without a signature is left out, because other models refuse it in a request.
func (a *answer) end() (*model.End, error) {
	e := &model.End{FinishReason: a.stop}
	if u := a.usage; u != nil {
		in, out := int(u.Input), int(u.Output)
		e.Usage = model.Usage{
			Input: in, Output: out, Total: cmp.Or(int(u.Total), in+out),
			CacheRead: int(u.CacheRead), CacheWrite: int(u.CacheWrite),
		}
	}
	slices.SortStableFunc(a.blocks, func(x, y block) int { return cmp.Compare(x.index, y.index) })
	var stored []storedBlock
	signed := false
	for _, b := range a.blocks {
		s := storedBlock{Type: b.kind, Signature: b.signature, Hidden: b.hidden}
		switch {
		case b.kind == blockCall:
			s.Call = len(e.ToolCalls)
			call := model.ToolCall{ID: b.id, Name: a.tools.Original(b.name), Arguments: string(b.data)}
			e.ToolCalls = append(e.ToolCalls, call)
		case b.kind == blockReasoning && b.signature == "" && len(b.hidden) == 0:
			continue
		default:
			s.Text = string(b.data)
		}
		signed = signed || b.kind == blockReasoning
		stored = append(stored, s)
	}
	if err := a.checkStop(len(e.ToolCalls)); err != nil {
		return nil, err
	}
	if signed && len(e.ToolCalls) > 0 {
		e.Opaque, _ = json.Marshal(stored) // texts always encode
	}
	return e, nil
}

// checkStop returns an error for stop reasons with which the answer can't be used: those
// of upstream.EndError, and those by which Bedrock itself reports the answer as malformed.
// The stop reasons are listed at
// https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html.
func (a *answer) checkStop(calls int) error {
	switch {
	case calls > maxCalls:
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("bedrock: too many calls"))
	case a.stop == "malformed_model_output", a.stop == "malformed_tool_use":
		text := "The model's answer is malformed (" + a.stop + "); try again"
		return fault.Public(fault.Upstream, text, errors.New("bedrock: stop reason"))
	}
	return upstream.EndError(a.stop, calls, a.hasText)
}
