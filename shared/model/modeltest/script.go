package modeltest

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/keyway-agents/keyway/shared/model"
)

// Script is what the server does with one request. It is a value: every method
// returns a longer script and leaves its receiver as it was. The zero Script is
// an empty answer that ends as it should.
//
//	modeltest.Text("hel", "lo")
//	modeltest.Text("let me see").ToolCall("web_search", `{"query":"cats"}`)
//	modeltest.Text("first").Wait(seen).Text("second")
//	modeltest.Text("cut o").Drop()
//	modeltest.Fail(http.StatusTooManyRequests, "slow down").Header("Retry-After", "7")
type Script struct {
	steps  []step
	ending ending
	finish string
	usage  *model.Usage
	silent bool // no usage at all
	status int  // 0: an answer; else an HTTP error
	header http.Header
}

// step is one of textStep, callStep, waitStep, rawStep and hugeStep.
type step any

type (
	textStep string
	callStep struct{ name, arguments string }
	waitStep <-chan struct{}
	rawStep  string
	hugeStep int
)

type ending int

const (
	whole     ending = iota // the vendor's own end marks
	truncated               // a clean end of the body without them
	dropped                 // the connection breaks
)

// Text starts a script with pieces of text, each its own event and its own write.
// A piece with a character outside ASCII goes out in two writes, cut within that
// character.
func Text(parts ...string) Script { return Script{}.Text(parts...) }

// ToolCall starts a script with a wish to call a tool; see Script.ToolCall.
func ToolCall(name, arguments string) Script { return Script{}.ToolCall(name, arguments) }

// Fail is an HTTP error with the vendor's error body. It tells OpenAI's and
// Anthropic's clients not to try again, so that one Fail is one failure; undo that with
// Header("X-Should-Retry", "true"). Bedrock's type of error is that of the status,
// or the header X-Amzn-Errortype.
func Fail(status int, message string) Script {
	s := Script{status: status, steps: []step{textStep(message)}}
	return s.Header("X-Should-Retry", "false")
}

// Text goes on with pieces of text.
func (s Script) Text(parts ...string) Script {
	for _, p := range parts {
		s = s.then(textStep(p))
	}
	return s
}

// ToolCall goes on with a wish to call a tool. The arguments go out in pieces of
// three characters. Calls that follow each other directly go out interleaved, as
// parallel calls may. The n-th call of request r has the id CallID(r, n): in a
// Responses stream the item has "fc_" before it, and its call_id "_api" after that.
func (s Script) ToolCall(name, arguments string) Script {
	return s.then(callStep{name, arguments})
}

// CallID is the id of the call-th tool call in the answer to the request-th
// request; both count from 1.
func CallID(request, call int) string { return fmt.Sprintf("call_%d_%d", request, call) }

// Wait holds the answer until ch is closed or yields; a nil ch, until the client
// lets go or the test ends. As a script's first step it holds back the headers too.
func (s Script) Wait(ch <-chan struct{}) Script { return s.then(waitStep(ch)) }

// Raw goes on with bytes of the caller's own, in one write. As a script's first
// step it takes the place of the vendor's opening event; after Fail, of the body.
func (s Script) Raw(bytes string) Script { return s.then(rawStep(bytes)) }

// Huge goes on with one event that carries n bytes of text, all of them "x".
func (s Script) Huge(n int) Script { return s.then(hugeStep(n)) }

// Finish sets the reason of the end, in the vendor's own word. Without it the
// server says what the vendor says of a natural end or of tool calls. A Responses
// stream with a reason is incomplete.
func (s Script) Finish(reason string) Script { s.finish = reason; return s }

// Usage sets the token counts; without it they are DefaultUsage().
func (s Script) Usage(u model.Usage) Script { s.usage = &u; return s }

// DefaultUsage is what an answer costs unless its script says otherwise.
func DefaultUsage() model.Usage {
	return model.Usage{Input: 10, Output: 5, Total: 15, Reasoning: 2, CacheRead: 3}
}

// NoUsage leaves the token counts out.
func (s Script) NoUsage() Script { s.silent = true; return s }

// Truncate ends the body cleanly where the script ends, without any end mark.
func (s Script) Truncate() Script { s.ending = truncated; return s }

// Drop breaks the connection where the script ends.
func (s Script) Drop() Script { s.ending = dropped; return s }

// Header sets a response header.
func (s Script) Header(name, value string) Script {
	s.header = s.header.Clone()
	if s.header == nil {
		s.header = http.Header{}
	}
	s.header.Set(name, value)
	return s
}

func (s Script) then(next step) Script {
	s.steps = append(slices.Clip(s.steps), next)
	return s
}

func (s Script) calls() bool {
	return slices.ContainsFunc(s.steps, func(p step) bool { _, ok := p.(callStep); return ok })
}
