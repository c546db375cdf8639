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

// answer assembles one answer from its pieces.
type answer struct {
	tools   *names.Map // of the request
	calls   []toolCall
	held    int  // bytes of all calls
	hasText bool // some piece of text wasn't empty
	stop    types.StopReason
	usage   *types.TokenUsage
}

// toolCall is a tool call. block is the index of its content block in the answer.
type toolCall struct {
	block     int32
	id, name  string
	arguments []byte
}

// maxCalls, with upstream.MaxEvent for the bytes, limits what one answer holds in
// memory.
const maxCalls = 128

// call returns the call in a content block and creates it if it doesn't exist.
func (a *answer) call(block int32) *toolCall {
	i := slices.IndexFunc(a.calls, func(c toolCall) bool { return c.block == block })
	if i < 0 {
		i = len(a.calls)
		a.calls = append(a.calls, toolCall{block: block})
	}
	return &a.calls[i]
}

// startCall sets the ID and the name of the call in a content block.
func (a *answer) startCall(block int32, id, name *string) error {
	c := a.call(block)
	c.id, c.name = cmp.Or(value(id), c.id), cmp.Or(value(name), c.name)
	return a.hold(len(c.id) + len(c.name))
}

// addArguments adds a piece of the arguments of the call in a content block.
func (a *answer) addArguments(block int32, piece string) error {
	c := a.call(block)
	c.arguments = append(c.arguments, piece...)
	return a.hold(len(piece))
}

// hold counts n more bytes and returns an error when the answer exceeds its limits.
func (a *answer) hold(n int) error {
	if a.held += n; a.held > upstream.MaxEvent || len(a.calls) > maxCalls {
		return fault.Public(fault.Upstream, upstream.TooLong, errors.New("bedrock: too many or too long tool calls"))
	}
	return nil
}

// end returns the End of an answer with a known stop reason. It is an error if Bedrock
// itself reports the answer as malformed, or if a filter or guardrail has withheld all
// of its text: the caller would see an empty answer without an explanation. The stop
// reasons are listed at
// https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html.
func (a *answer) end() (*model.End, error) {
	cause := errors.New("bedrock: stop reason")
	switch a.stop {
	case types.StopReasonMalformedModelOutput, types.StopReasonMalformedToolUse:
		text := "The model's answer is malformed (" + string(a.stop) + "); try again"
		return nil, fault.Public(fault.Upstream, text, cause)
	case types.StopReasonContentFiltered, types.StopReasonGuardrailIntervened:
		if !a.hasText {
			return nil, fault.Public(fault.Upstream, "The model's answer was withheld ("+string(a.stop)+")", cause)
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
		call := model.ToolCall{ID: c.id, Name: a.tools.Original(c.name), Arguments: string(c.arguments)}
		e.ToolCalls = append(e.ToolCalls, call)
	}
	return e, nil
}

// value returns what p points to, or the zero value for nil. Every field of the SDK's
// structs may be nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
