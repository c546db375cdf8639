package modeltest

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/keyway-agents/keyway/shared/model"
)

// Script is what the server does with one request. It is a value: every method returns
// a longer script and leaves its receiver unchanged. The zero Script is an empty answer
// with a regular end.
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
	silent bool          // report no usage
	linger time.Duration // between the end mark and the end of the body
	status int           // of an HTTP error; 0 for an answer
	header http.Header
	forms  []Form
}

// step is one action of a script: a textStep, thoughtStep, callStep, waitStep, rawStep or
// hugeStep.
type step any

type (
	textStep    string
	thoughtStep string
	callStep    struct {
		name, arguments string
		id              *string // nil for CallID
	}
	waitStep <-chan struct{}
	rawStep  string
	hugeStep int
)

// ending is how the answer ends.
type ending int

const (
	whole     ending = iota // with the provider's end marks
	truncated               // without them, by a clean end of the body
	dropped                 // without them, by a connection that breaks
)

// Text starts a script with pieces of text, each its own event and its own write. A
// piece with a character outside ASCII is sent in two writes, cut within that
// character.
func Text(parts ...string) Script { return Script{}.Text(parts...) }

// ToolCall starts a script with a tool call; see Script.ToolCall.
func ToolCall(name, arguments string) Script { return Script{}.ToolCall(name, arguments) }

// Fail returns an HTTP error with the provider's form of an error body. Its header
// X-Should-Retry stops the providers of OpenAI's and Anthropic's APIs from repeating the request, so one
// Fail is one request; Header("X-Should-Retry", "true") undoes that. The type of Bedrock's
// exception is the value of the header X-Amzn-Errortype. If the script doesn't set that
// header, the type follows from the status.
func Fail(status int, message string) Script {
	s := Script{status: status, steps: []step{textStep(message)}}
	return s.Header("X-Should-Retry", "false")
}

// Text adds pieces of text.
func (s Script) Text(parts ...string) Script {
	for _, p := range parts {
		s = s.then(textStep(p))
	}
	return s
}

// Thoughts adds pieces of the model's thoughts, each its own event. They come before the
// text and the calls.
func (s Script) Thoughts(parts ...string) Script {
	for _, p := range parts {
		s = s.then(thoughtStep(p))
	}
	return s
}

// ToolCall adds a tool call. The arguments are sent in pieces of three characters.
// Calls that directly follow each other are sent interleaved, as providers may send
// parallel calls. The n-th call in the answer to request r has the ID CallID(r, n). In
// a Responses stream the call's item has that ID with "fc_" before it, and its call_id
// has "_api" after that.
func (s Script) ToolCall(name, arguments string) Script {
	return s.then(callStep{name: name, arguments: arguments})
}

// ToolCallWithID adds a tool call with this ID. In a Responses stream it is the call_id
// of the item.
func (s Script) ToolCallWithID(id, name, arguments string) Script {
	return s.then(callStep{name: name, arguments: arguments, id: &id})
}

// CallID returns the ID of a tool call in the answer to a request. Both count from 1.
func CallID(request, call int) string { return fmt.Sprintf("call_%d_%d", request, call) }

// callID returns the ID of the call, which is by default that of the n-th call in the
// answer to a request.
func (c callStep) callID(request, n int) string {
	if c.id != nil {
		return *c.id
	}
	return CallID(request, n)
}

// Wait stops the answer until ch is closed or yields. With a nil ch it stops until the
// client closes the connection or the test ends. As a script's first step it delays the
// response's header too.
func (s Script) Wait(ch <-chan struct{}) Script { return s.then(waitStep(ch)) }

// Raw adds bytes that are sent as they are, in one write. As a script's first step it
// replaces the provider's opening event; after Fail it replaces the body.
func (s Script) Raw(bytes string) Script { return s.then(rawStep(bytes)) }

// Huge adds one event with n bytes of text, all of them "x".
func (s Script) Huge(n int) Script { return s.then(hugeStep(n)) }

// Finish sets the provider's reason for the end of the answer. Defaults to the reason
// for a regular end, or for tool calls if the script has some. A Responses stream with
// a reason ends with response.incomplete.
func (s Script) Finish(reason string) Script { s.finish = reason; return s }

// Usage sets the token counts. Defaults to DefaultUsage().
func (s Script) Usage(u model.Usage) Script { s.usage = &u; return s }

// DefaultUsage returns the token counts of a script without Usage.
func DefaultUsage() model.Usage {
	return model.Usage{Input: 10, Output: 5, Total: 15, Reasoning: 2, CacheRead: 3}
}

// NoUsage leaves the token counts out of the answer.
func (s Script) NoUsage() Script { s.silent = true; return s }

// Truncate ends the body cleanly where the script ends, without an end mark.
func (s Script) Truncate() Script { s.ending = truncated; return s }

// Drop breaks the connection where the script ends.
func (s Script) Drop() Script { s.ending = dropped; return s }

// Linger keeps the body open for d after the end mark.
func (s Script) Linger(d time.Duration) Script { s.linger = d; return s }

// Header sets a response header.
func (s Script) Header(name, value string) Script {
	s.header = s.header.Clone()
	if s.header == nil {
		s.header = http.Header{}
	}
	s.header.Set(name, value)
	return s
}

// then returns the script with one more step. It copies the steps, because two scripts
// may continue the same one.
func (s Script) then(next step) Script {
	s.steps = append(slices.Clip(s.steps), next)
	return s
}

// thoughts returns the thoughts of all steps.
func (s Script) thoughts() (all string) {
	for _, p := range s.steps {
		if t, ok := p.(thoughtStep); ok {
			all += string(t)
		}
	}
	return all
}

// calls reports whether the script has a tool call.
func (s Script) calls() bool {
	return slices.ContainsFunc(s.steps, func(p step) bool { _, ok := p.(callStep); return ok })
}
