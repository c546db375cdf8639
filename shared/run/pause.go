package run

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// A tool may need a person: to confirm the call, to fill in arguments, or to execute it outside of Keyway. Then the
// run is stored as PAUSED, and no process or lease is bound while the person decides. The stored calls carry marks of
// what is required, in AgentOS's form, so that its user interface can show them. Runner.Continue brings the decisions.

// needsPerson reports whether a person must act before the tool is called, and marks the call accordingly. A tool with
// several of the settings has only the first one of this order.
func needsPerson(call *wire.ToolExecution, one tool.Tool) bool {
	switch {
	case one.Confirm:
		call.RequiresConfirmation = new(true)
	case len(one.UserInput) > 0:
		call.RequiresUserInput, call.UserInputSchema = new(true), inputForm(call.ToolArgs, one)
	case one.External:
		call.ExternalExecutionRequired = new(true)
	default:
		return false
	}
	return true
}

// pythonTypes maps JSON Schema's types to the names that AgentOS sends, which are Python's.
var pythonTypes = map[string]string{
	"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict",
}

// inputForm returns the arguments of a call as a form, for a client that shows it to a person. Its fields are the
// arguments that a person must supply and the other parameters of the tool, sorted by name. The model's values are
// filled in, except those of the arguments that a person must supply.
func inputForm(args json.RawMessage, one tool.Tool) []wire.UserInput {
	var given map[string]json.RawMessage
	var schema struct {
		Properties map[string]struct{ Type any }
	}
	_ = json.Unmarshal(args, &given)            // parseArguments made sure that it is an object.
	_ = json.Unmarshal(one.Parameters, &schema) // Without a readable schema the form has only one.UserInput.
	// Names in UserInput that the schema does not have are shown too, so that a mistake in the tool is visible.
	names := slices.Clone(one.UserInput)
	for name := range schema.Properties {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	form := make([]wire.UserInput, len(names))
	for i, name := range names {
		kind, _ := schema.Properties[name].Type.(string)
		form[i] = wire.UserInput{Name: name, FieldType: pythonTypes[kind]}
		if form[i].FieldType == "" {
			form[i].FieldType = "str"
		}
		if !slices.Contains(one.UserInput, name) {
			form[i].Value = given[name]
		}
	}
	return form
}

// requirement pauses the run and describes what a person must do about a call. The other calls of the same answer are
// executed before the run stops, so that a person decides only about what needs a decision.
func (x *execution) requirement(call wire.ToolExecution) wire.Requirement {
	x.paused = true
	return wire.Requirement{
		ID: x.r.newID().String(), CreatedAt: wire.ISOTime{Time: x.r.now()},
		ToolExecution: call, UserInputSchema: call.UserInputSchema,
	}
}

// pausedText returns AgentOS's text for a paused run. Clients written for AgentOS may compare it, so even its grammar
// is kept.
func pausedText(requirements []wire.Requirement) string {
	var confirm, input, external bool
	for _, w := range requirements {
		confirm = confirm || w.ToolExecution.RequiresConfirmation != nil
		input = input || w.ToolExecution.RequiresUserInput != nil
		external = external || w.ToolExecution.ExternalExecutionRequired != nil
	}
	if external && !confirm && !input {
		return "I have tools to execute, but it needs external execution."
	}
	var needs []string
	for _, n := range []struct {
		needed bool
		text   string
	}{{confirm, "confirmation"}, {input, "user input"}, {external, "external execution"}} {
		if n.needed {
			needs = append(needs, n.text)
		}
	}
	last := len(needs) - 1
	text := needs[last]
	if last > 0 {
		text = strings.Join(needs[:last], ", ") + map[bool]string{true: ", or ", false: " or "}[last > 1] + text
	}
	return "I have tools to execute, but I need " + text + "."
}

// Answers are the decisions of people about the tool calls of a paused run, by tool call id.
type Answers map[string]wire.ToolExecution

// Continuation is a request to continue a paused run.
type Continuation struct {
	// Answers are the decisions. A call without one counts as rejected.
	Answers Answers
	// Streamed has the same meaning as in Input. A run that was streamed before the pause stays so.
	Streamed bool
	// Caller is the identity that was allowed to continue the run. It replaces that of the start.
	Caller Caller
}

// Continue continues a paused run. It behaves like Run, with other errors before the first event: fault.NotFound if
// the viewer has no such run, and fault.Conflict if the run is not paused, or no longer. At most one caller continues
// a pause, so a decision cannot be changed: what was rejected stays rejected.
func (r *Runner) Continue(
	ctx context.Context, v store.Viewer, q store.RunQuery, c Continuation,
) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		x, err := r.claimPaused(ctx, v, q, c)
		if err != nil {
			yield(Event{}, err)
			return
		}
		x.yield = yield
		ctx, unregister := r.registry.register(ctx, x)
		defer unregister()
		ctx, stop := x.withTimeLimit(ctx)
		defer stop()
		defer x.recordPanic(ctx)
		x.emitContinued()
		x.finish(ctx, r.applyAnswers(ctx, x, c.Answers))
	}
}

// emitContinued sends AgentOS's RunContinued event, which has the members of a ContentCompleted.
func (x *execution) emitContinued() {
	x.emit(wire.ContentCompleted{Head: x.headFor(wire.EventRunContinued), EventIndex: x.index})
}

// claimPaused makes a paused run RUNNING in this process. At most one caller succeeds. The decisions are stored as
// the run's checkpoint in the same statement, so that they survive a crash.
func (r *Runner) claimPaused(
	ctx context.Context, v store.Viewer, q store.RunQuery, c Continuation,
) (*execution, error) {
	row, err := r.db.Run(ctx, v, q)
	if err != nil {
		return nil, err
	}
	agent, ok := r.agents[row.AgentID]
	if !ok {
		return nil, fault.Public(fault.NotFound, "Agent not found", nil)
	}
	row.Streamed = row.Streamed || c.Streamed
	answers := c.Answers
	if answers == nil {
		answers = Answers{} // In a checkpoint, nil means that the run was not continued.
	}
	if row.Checkpoint, err = wire.Marshal(checkpoint{Answers: answers}); err != nil {
		return nil, fmt.Errorf("answers: %w", err)
	}
	row.Checkpoint = strictjson.MakeStorable(row.Checkpoint)
	if row.Caller, err = wire.Marshal(c.Caller); err != nil {
		return nil, fmt.Errorf("caller: %w", err)
	}
	index, claimed, err := r.db.ContinueRun(ctx, row, r.dbNow())
	if err != nil {
		return nil, err
	}
	if !claimed {
		text := fmt.Sprintf("Cannot continue run %s: run is %s", row.RunID, strings.ToLower(row.Status))
		return nil, fault.Public(fault.Conflict, text, nil)
	}
	x := r.newExecution(agent, agent.Model.Describe(), row)
	// A run without stored events may belong to a later attempt, whose indices begin higher.
	x.index, x.row.Status = max(index, store.FirstIndex(row.Attempt)), wire.StatusRunning
	_, _, err = x.restore()
	return x, err
}

// applyAnswers executes the tool calls as people decided, records their results and continues with the model. Calls
// that had a result before the pause are not repeated. A checkpoint is stored before the model is called, so that a
// crash after that does not execute the confirmed calls again.
func (r *Runner) applyAnswers(ctx context.Context, x *execution, answers Answers) error {
	box, err := x.loadTools(ctx)
	if err != nil {
		return err
	}
	messages, err := r.conversationSoFar(ctx, x)
	if err != nil {
		return err
	}
	// The calls of the pause are planned anew from the row, with the decisions in place of planCall's checks: those were
	// made before the pause.
	var all []plannedCall
	for i := range x.calls {
		call := &x.calls[i]
		if hasResult(*call, x.messages) {
			continue
		}
		one := box.byName[call.ToolName]
		w := plannedCall{requested: model.ToolCall{ID: call.ToolCallID, Name: call.ToolName}, tool: one, call: call}
		w.refusal = applyAnswer(call, one, answers[call.ToolCallID])
		all = append(all, w)
	}
	if err := x.executeCalls(ctx, all); err != nil {
		return err
	}
	results := x.recordResults(all)
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
	for i, w := range x.requirements {
		for _, call := range x.calls {
			_, answered := answers[call.ToolCallID]
			if answered && call.ToolCallID == w.ToolExecution.ToolCallID {
				x.requirements[i].ToolExecution, x.requirements[i].UserInputSchema = call, call.UserInputSchema
			}
		}
	}
	if err := x.save(ctx, nil); err != nil {
		return err
	}
	return r.converse(ctx, x, append(messages, results...), nil)
}

// hasResult reports whether the messages hold the result of a call. A call without a result is the one that the run was
// paused for.
func hasResult(call wire.ToolExecution, messages []wire.Message) bool {
	return slices.ContainsFunc(messages, func(m wire.Message) bool {
		return m.Role == wire.RoleTool && m.ToolCallID == call.ToolCallID
	})
}

// applyAnswer records a person's decision in the call. refusal is what the model receives instead of a result; it is
// "" if the tool is to be called. The caller can decide, fill in the open arguments and give a result, each only
// where it was required. The tool's name and the model's own arguments always come from the row, never from the
// request: otherwise a caller could have another tool executed than the one that was shown.
func applyAnswer(call *wire.ToolExecution, one tool.Tool, answer wire.ToolExecution) (refusal string) {
	const rejected = "Function call was rejected by the user"
	switch {
	// The tool was removed from the agent while the run was paused.
	case one.Call == nil && call.ExternalExecutionRequired == nil:
		return "Error: The requested tool does not exist or is not available."
	case call.RequiresConfirmation != nil:
		if call.Confirmed = new(answer.Confirmed != nil && *answer.Confirmed); *call.Confirmed {
			return ""
		}
		if answer.ConfirmationNote != nil && *answer.ConfirmationNote != "" {
			call.ConfirmationNote = new(pgvalue.CleanText(*answer.ConfirmationNote))
			call.ToolCallError = new(true)
			return *call.ConfirmationNote
		}
		call.ConfirmationNote, call.ToolCallError = new("Tool call was rejected"), new(true)
		return rejected
	case call.RequiresUserInput != nil:
		if !fillInput(call, answer.UserInputSchema) {
			call.Answered, call.ToolCallError = new(false), new(true)
			return rejected
		}
		call.Answered = new(true)
		return ""
	case answer.Result != nil: // External execution.
		call.Result = new(truncate(pgvalue.CleanText(*answer.Result)))
		return *call.Result
	}
	call.ToolCallError = new(true)
	return rejected
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
