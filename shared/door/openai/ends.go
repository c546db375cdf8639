package openai

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Waits is the text for the client about a paused run. OpenAI's API has no such state: clients show the text.
func Waits(agent, run string) string {
	return fmt.Sprintf("[The run waits for a person's decision about a tool call. Decide with "+
		"POST /agents/%s/runs/%s/continue, or cancel it with POST /v1/responses/%s/cancel.]", agent, run, ResponseID(run))
}

// Continues is the text about a run that continues although this answer ends.
func Continues(run string) string {
	return fmt.Sprintf("The run continues. GET /v1/responses/%s returns its answer", ResponseID(run))
}

const cancelled = "The run was cancelled"

// withNotice appends a notice to an answer.
func withNotice(answer, notice string) string {
	if answer == "" {
		return notice
	}
	return answer + between + notice
}

// Ended returns the error of a run that failed or was cancelled, and nil for one that didn't.
//
// It is fault.RunFailed, of status 400. All clients repeat a request after a 500 or 502, and LangChain.js after each
// 4xx that it doesn't know as final, such as 424; some of them ignore x-should-retry. The agent would run again, and
// call its tools again.
func Ended(r wire.Run) error {
	text, code := "", ""
	switch r.Status {
	case wire.StatusError:
		code, text = "run_failed", "The run failed"
		if r.Content != nil {
			text = cmp.Or(*r.Content, text)
		}
	case wire.StatusCancelled:
		code, text = "run_cancelled", cancelled
	default:
		return nil
	}
	return failure(r.RunID, code, text)
}

// HandedOver returns the error for a client that waits for a run which another process continues.
func HandedOver(run string) error { return failure(run, runContinues, Continues(run)) }

// IsHandedOver reports whether an error is that of HandedOver.
func IsHandedOver(err error) bool {
	e, ok := errors.AsType[*fault.Error](err)
	return ok && e.Kind == fault.RunFailed && e.Extra[0].Value == runContinues
}

const runContinues = "run_continues"

// Unstored returns the error for a run whose end could not be stored.
func Unstored(run string, cause error) error {
	e := failure(run, "run_failed", fault.Detail(cause))
	e.Cause = cause
	return e
}

func failure(run, code, text string) *fault.Error {
	e := fault.Public(fault.RunFailed, text, nil)
	e.Extra = fault.Members{{Name: "code", Value: code}, {Name: "response_id", Value: ResponseID(run)}}
	return e
}
