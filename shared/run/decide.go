package run

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// applyAnswers executes the tool calls as people decided, and records and returns their results. Calls that had a
// result before the pause are not repeated. A checkpoint is stored before the model is called, so that a crash after
// that does not execute the confirmed calls again.
func (l *leg) applyAnswers(ctx context.Context, box toolbox) ([]model.Message, error) {
	// The calls of the pause are planned anew from the row, with the decisions in place of planCall's checks: those were
	// made before the pause.
	var all []plannedCall
	for i := range l.Calls {
		call := &l.Calls[i]
		if hasResult(*call, l.Messages) {
			continue
		}
		one := box.byName[call.ToolName]
		w := plannedCall{requested: model.ToolCall{ID: call.ToolCallID, Name: call.ToolName}, tool: one, call: call}
		var confirmed bool
		w.refusal, confirmed = applyAnswer(call, one, l.Answers[call.ToolCallID])
		w.settled = !confirmed
		all = append(all, w)
	}
	if err := l.executeCalls(ctx, all); err != nil {
		return nil, err
	}
	results := l.recordResults(all)
	for _, w := range all { // Nothing is required any more.
		for _, required := range []*bool{
			w.call.RequiresConfirmation, w.call.RequiresUserInput, w.call.ExternalExecutionRequired,
		} {
			if required != nil {
				*required = false
			}
		}
	}
	// The stored requirements show what was decided, for clients that read the run later.
	for i, w := range l.Requirements {
		for _, call := range l.Calls {
			_, answered := l.Answers[call.ToolCallID]
			if answered && call.ToolCallID == w.ToolExecution.ToolCallID {
				l.Requirements[i].ToolExecution, l.Requirements[i].UserInputSchema = call, call.UserInputSchema
			}
		}
	}
	return results, l.save(ctx, nil)
}

// checkAsked returns fault.Invalid if an answer is about a call that the requirements of a paused run don't wait for.
func checkAsked(requirements json.RawMessage, answers Answers) error {
	var all []wire.Requirement
	if err := json.Unmarshal(requirements, &all); err != nil {
		return fmt.Errorf("stored requirements: %w", err)
	}
	waits := func(required *bool) bool { return required != nil && *required }
	for id := range answers {
		asked := slices.ContainsFunc(all, func(w wire.Requirement) bool {
			t := w.ToolExecution
			return t.ToolCallID == id && (waits(t.RequiresConfirmation) || waits(t.RequiresUserInput) ||
				waits(t.ExternalExecutionRequired))
		})
		if !asked {
			return fault.Public(fault.Invalid, "The run does not wait for an answer about "+fault.Short(id), nil)
		}
	}
	return nil
}

// hasResult reports whether the messages hold the result of a call. A call without a result is the one that the run
// was paused for.
func hasResult(call wire.ToolExecution, messages []message) bool {
	return slices.ContainsFunc(messages, func(m message) bool {
		return m.Role == wire.RoleTool && m.ToolCallID == call.ToolCallID
	})
}

// applyAnswer records a person's decision in the call. Unless the tool is to be called, refusal is what the model
// receives instead of its result. The caller can decide, fill in the open arguments and give a result, each only
// where it was required. The tool's name and the model's own arguments always come from the row, never from the
// request: otherwise a caller could have another tool executed than the one that was shown.
func applyAnswer(call *wire.ToolExecution, one tool.Tool, answer wire.ToolExecution) (refusal string, confirmed bool) {
	const rejected = "Function call was rejected by the user"
	switch {
	// The tool was removed from the agent while the run was paused.
	case one.Call == nil && call.ExternalExecutionRequired == nil:
		return "Error: The requested tool does not exist or is not available.", false
	case call.RequiresConfirmation != nil:
		if call.Confirmed = new(answer.Confirmed != nil && *answer.Confirmed); *call.Confirmed {
			return "", true
		}
		if answer.ConfirmationNote != nil && *answer.ConfirmationNote != "" {
			call.ConfirmationNote = new(pgvalue.CleanText(*answer.ConfirmationNote))
			call.ToolCallError = new(true)
			return *call.ConfirmationNote, false
		}
		call.ConfirmationNote, call.ToolCallError = new("Tool call was rejected"), new(true)
		return rejected, false
	case call.RequiresUserInput != nil:
		if !fillInput(call, answer.UserInputSchema) {
			call.Answered, call.ToolCallError = new(false), new(true)
			return rejected, false
		}
		call.Answered = new(true)
		return "", true
	case answer.Result != nil: // External execution.
		call.Result = new(tool.Truncate(pgvalue.CleanText(*answer.Result)))
		return *call.Result, false
	}
	call.ToolCallError = new(true)
	return rejected, false
}

// fillInput keeps what the model chose. It copies a person's values into the
// arguments that the form left open, and into no others. It returns false if a value is missing.
func fillInput(call *wire.ToolExecution, answers []wire.UserInput) bool {
	args := map[string]json.RawMessage{}
	_ = json.Unmarshal(call.ToolArgs, &args) // parseArguments made sure that it is an object.
	for i, field := range call.UserInputSchema {
		if field.Value != nil && string(field.Value) != "null" {
			continue
		}
		at := slices.IndexFunc(answers, func(a wire.UserInput) bool { return a.Name == field.Name })
		if at < 0 || answers[at].Value == nil || string(answers[at].Value) == "null" {
			return false
		}
		call.UserInputSchema[i].Value = strictjson.MakeStorable(answers[at].Value)
		args[field.Name] = call.UserInputSchema[i].Value
	}
	filled, err := wire.Marshal(args)
	call.ToolArgs = filled
	return err == nil
}
