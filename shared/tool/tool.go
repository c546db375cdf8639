// Package tool is what a model may call: the Tool itself, the caller it acts for,
// and the one client through which tools reach the network.
// It knows no model, no run and no agent; who may run what was decided before.
package tool

import (
	"context"
	"encoding/json"
)

// Tool is one function that a model may call. The zero Tool is none.
type Tool struct {
	Name        string          // as the model sees it: [A-Za-z0-9_-]{1,64}
	Description string          // for the model
	Parameters  json.RawMessage // a JSON Schema of an object; nil takes none

	// Call does the work. arguments is a JSON object (whether it fits Parameters is
	// for Call to find out). The text goes back to the model, and so does an error:
	// its fault.Detail when it has one, else its own words. For whom it acts is
	// CallerFrom(ctx), never an argument. ctx ends with the run.
	Call func(ctx context.Context, arguments json.RawMessage) (string, error)

	// At most one of these says what a person does first; the run is paused until
	// then.
	Confirm   bool     // says yes or no to the call
	UserInput []string // fills in these arguments
	External  bool     // does the work, and brings its result; Call is never called
}

// Set is where tools come from: a Tool is a Set of one, an MCP server one of many.
type Set interface {
	// Tools lists them, at the beginning of every run. An error's fault.Detail is
	// shown to the caller of the run, which then fails.
	Tools(ctx context.Context) ([]Tool, error)
	// Close gives up what the Set holds. Runs that still use its tools fail.
	Close() error
}

// Tools implements Set.
func (t Tool) Tools(context.Context) ([]Tool, error) { return []Tool{t}, nil }

// Close implements Set.
func (t Tool) Close() error { return nil }

// Caller is on whose behalf a tool is called, as the verified token and the run's
// row have it.
type Caller struct {
	UserID    string // the token's subject; "" for nobody
	AgentID   string
	SessionID string
	RunID     string
	CallID    string // the same when the step is repeated: fit for an idempotency key
}

type callerKey struct{}

// WithCaller puts the caller into ctx.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom is the caller in ctx; the zero Caller is nobody.
func CallerFrom(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
