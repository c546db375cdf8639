// Package tool defines what a model may call: the Tool, the Caller that it acts for,
// and the HTTP clients through which tools reach the network (Egress). Which callers
// are allowed to run an agent, and with it its tools, was decided before (package
// authz).
package tool

import (
	"context"
	"encoding/json"
)

// Tool is one function that a model may call. Func and JSON make one of a Go function.
type Tool struct {
	// Name is the name by which the model calls the tool, of the form
	// [A-Za-z0-9_-]{1,64}. Required.
	Name string
	// Description explains to the model what the tool does. Defaults to none.
	Description string
	// Parameters is the JSON Schema of the arguments, an object. Defaults to none: the
	// tool has no parameters.
	Parameters json.RawMessage

	// Call does the work. arguments is a JSON object; Call itself checks that it fits
	// Parameters. The returned text is the tool's result, which the model reads. The
	// model reads an error too: its fault.Detail if it has one, its text otherwise.
	//
	// Call acts on behalf of CallerFrom(ctx). Never take the user from arguments, since
	// the model chooses those. ctx ends with the run. Several calls may happen at once.
	// Required unless External is set.
	Call func(ctx context.Context, arguments json.RawMessage) (string, error)

	// Unfit states why models can't call the tool, such as "has a name that models do
	// not accept". The tool is then left out, and the log says why. Defaults to none.
	Unfit string

	// Confirm, UserInput and External pause the run until a person has acted. At most
	// one of them may be set.

	// Confirm requires a person's consent before Call. Defaults to false.
	Confirm bool
	// UserInput names the arguments that a person fills in before Call. Defaults to
	// none.
	UserInput []string
	// External states that the work is done outside of this process: the caller sends
	// the result with the request to continue, and Call is never called. Defaults to
	// false.
	External bool
}

// Set is a source of tools. A Tool is a Set of one tool; an MCP server is a Set of all
// its tools.
type Set interface {
	// Tools returns the tools. It is called at the start of every run. On an error the
	// run fails, and its caller sees the error's fault.Detail.
	Tools(ctx context.Context) ([]Tool, error)
	// Close releases what the Set holds. Calls of its tools fail afterwards.
	Close() error
}

// Tools implements Set.
func (t Tool) Tools(context.Context) ([]Tool, error) { return []Tool{t}, nil }

// Close implements Set.
func (t Tool) Close() error { return nil }

// Caller identifies the user on whose behalf a tool is called, and the run. It comes
// from the verified token and from the run's row in the database, not from the model.
type Caller struct {
	// UserID is the subject of the token. Empty if authorization is off or the token
	// has none.
	UserID    string
	AgentID   string
	SessionID string
	RunID     string
	// CallID identifies the call among the calls of all runs. It is "call_" and 32
	// hexadecimal digits. A call that is repeated after a crash has the same CallID, so
	// it can be sent as an idempotency key. The calls of a run that an earlier version
	// started have the IDs that the model's server sent, which may be empty or repeat.
	CallID string
}

// callerKey is the context key of the Caller.
type callerKey struct{}

// WithCaller returns a context with the caller. The run loop calls it before Call.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the caller in ctx, or the zero Caller if there is none.
func CallerFrom(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
