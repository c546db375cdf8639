package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Outcome is the result of one tool call.
type Outcome struct {
	// Text is the result, or the text of the error if the call failed. The model receives it. It has at most the length
	// of a text that Truncate returns.
	Text string
	// Failed is true if the tool returned an error or panicked.
	Failed bool
	// Panicked is the value of a panic, or nil. It is for the log only, because it may contain internal data.
	Panicked any
	// Start and End are the times by the clock that Call was given.
	Start, End time.Time
}

// Call calls a tool once. arguments is a JSON object. An error or a panic becomes a result that the model receives, so
// that it can try something else. The text of a fault.Error is its public detail; the text of a panic is not shown. now
// returns the present time.
func Call(ctx context.Context, one Tool, arguments json.RawMessage, now func() time.Time) (o Outcome) {
	o.Start = now()
	defer func() {
		o.End = now()
		if o.Panicked = recover(); o.Panicked != nil {
			o.Failed, o.Text = true, "Error: "+one.Name+" failed with an internal error."
		}
		o.Text = Truncate(o.Text)
	}()
	var err error
	o.Text, err = one.Call(ctx, arguments)
	// The text of an ordinary error is shown to the model. Tools that handle secrets return a fault.Error.
	if err != nil {
		o.Failed, o.Text = true, err.Error()
		if e, ok := errors.AsType[*fault.Error](err); ok {
			o.Text = fault.Detail(e)
		}
	}
	return o
}

// maxResult bounds the bytes of a tool's result that the model receives and the run stores. A result is part of every
// later request to the model, and every checkpoint stores all messages.
const maxResult = 100 << 10

// Truncate shortens the text of a result to 100 KiB, plus a note for the model that says so.
func Truncate(text string) string {
	if len(text) <= maxResult {
		return text
	}
	kept := strings.ToValidUTF8(text[:maxResult], "") // The cut may have split a character.
	return fmt.Sprintf("%s\n[The answer had %d bytes; only the first %d are shown.]", kept, len(text), maxResult)
}
