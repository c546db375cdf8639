package bedrock

import (
	"cmp"
	"errors"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// answer collects one answer from its pieces.
type answer struct {
	tools  *names.Fitted
	calls  []toolCall
	held   int // bytes of all calls
	spoken bool
	stop   types.StopReason
	usage  *types.TokenUsage
}

type toolCall struct {
	block     int32
	id, name  string
	arguments []byte
}

// maxCalls, and upstream.MaxEvent, bound what one answer may hold in memory.
const maxCalls = 128

// call finds the call that is written in a content block.
func (a *answer) call(block int32) *toolCall {
	i := slices.IndexFunc(a.calls, func(c toolCall) bool { return c.block == block })
	if i < 0 {
		i = len(a.calls)
		a.calls = append(a.calls, toolCall{block: block})
	}
	return &a.calls[i]
}

func (a *answer) startCall(block int32, id, name *string) error {
	c := a.call(block)
	c.id, c.name = cmp.Or(value(id), c.id), cmp.Or(value(name), c.name)
	return a.hold(len(c.id) + len(c.name))
}

func (a *answer) addArguments(block int32, piece string) error {
	c := a.call(block)
	c.arguments = append(c.arguments, piece...)
	return a.hold(len(piece))
}

func (a *answer) hold(n int) error {
	if a.held += n; a.held > upstream.MaxEvent || len(a.calls) > maxCalls {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("bedrock: tool calls without end"))
	}
	return nil
}

// end is the answer's end, once its stop reason is known. An answer that the vendor
// itself calls broken, or of which it shows nothing, is an error: silence explains
// nothing.
func (a *answer) end() (*model.End, error) {
	switch a.stop {
	case types.StopReasonMalformedModelOutput, types.StopReasonMalformedToolUse:
		return nil, fault.Public(fault.Upstream, "The model's answer is malformed ("+string(a.stop)+"); try again", errors.New("bedrock: stop reason"))
	case types.StopReasonContentFiltered, types.StopReasonGuardrailIntervened:
		if !a.spoken {
			return nil, fault.Public(fault.Upstream, "The model's answer was withheld ("+string(a.stop)+")", errors.New("bedrock: stop reason"))
		}
	}
	e := &model.End{FinishReason: string(a.stop)}
	if u := a.usage; u != nil {
		in, out := int(value(u.InputTokens)), int(value(u.OutputTokens))
		e.Usage = model.Usage{
			Input: in, Output: out, Total: cmp.Or(int(value(u.TotalTokens)), in+out),
			CacheRead: int(value(u.CacheReadInputTokens)), CacheWrite: int(value(u.CacheWriteInputTokens)),
		}
	}
	slices.SortStableFunc(a.calls, func(x, y toolCall) int { return cmp.Compare(x.block, y.block) })
	for _, c := range a.calls {
		e.ToolCalls = append(e.ToolCalls, model.ToolCall{ID: c.id, Name: a.tools.Own(c.name), Arguments: string(c.arguments)})
	}
	return e, nil
}

// value is what p points to; every member of the SDK's structs may be absent.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
