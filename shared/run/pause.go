package run

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// waits reports whether a person comes before the tool, and says so in the call.
func waits(call *wire.ToolExecution, one tool.Tool) bool {
	switch {
	case one.Confirm:
		call.RequiresConfirmation = new(true)
	case len(one.UserInput) > 0:
		call.RequiresUserInput, call.UserInputSchema = new(true), inputs(call.ToolArgs, one)
	case one.External:
		call.ExternalExecutionRequired = new(true)
	default:
		return false
	}
	return true
}

// pythonTypes are JSON Schema's types as AgentOS names them.
var pythonTypes = map[string]string{"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}

// inputs are the arguments as a form: the model's are filled in, except those that
// are a person's to give.
func inputs(args json.RawMessage, one tool.Tool) []wire.UserInput {
	var given map[string]json.RawMessage
	var schema struct {
		Properties map[string]struct{ Type any }
	}
	_ = json.Unmarshal(args, &given)            // it is an object
	_ = json.Unmarshal(one.Parameters, &schema) // without properties the names are all there is
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

func (t *turn) requirement(call wire.ToolExecution) wire.Requirement {
	t.paused = true
	return wire.Requirement{
		ID: t.r.newID().String(), CreatedAt: wire.ISOTime{Time: t.r.now()}, ToolExecution: call, UserInputSchema: call.UserInputSchema,
	}
}

// pausedText is what AgentOS says of a paused run.
func pausedText(waiting []wire.Requirement) string {
	var confirm, input, external bool
	for _, w := range waiting {
		confirm = confirm || w.ToolExecution.RequiresConfirmation != nil
		input = input || w.ToolExecution.RequiresUserInput != nil
		external = external || w.ToolExecution.ExternalExecutionRequired != nil
	}
	if external && !confirm && !input {
		return "I have tools to execute, but it needs external execution."
	}
	var needs []string
	for _, n := range []struct {
		is   bool
		text string
	}{{confirm, "confirmation"}, {input, "user input"}, {external, "external execution"}} {
		if n.is {
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

// Answers are what people decided about the calls of a paused run, by call id.
type Answers map[string]wire.ToolExecution

// Continuation is what a paused run goes on with.
type Continuation struct {
	Answers  Answers
	Streamed bool   // as in Input; a run that was streamed before stays so
	Caller   Caller // who was admitted to continue it
}

// Continue goes on with a paused run. What nobody answered counts as rejected. It
// is Run otherwise; errors without an event are fault.NotFound for a run that the
// viewer doesn't have, and fault.Conflict for one that isn't paused (any more):
// what was rejected stays rejected.
func (r *Runner) Continue(ctx context.Context, v store.Viewer, q store.RunQuery, c Continuation) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		t, err := r.goOn(ctx, v, q, c)
		if err != nil {
			yield(Event{}, err)
			return
		}
		t.listen(yield)
		ctx, leave := r.live.enter(ctx, t)
		defer leave()
		ctx, stop := t.limited(ctx)
		defer stop()
		defer t.panicked(ctx)
		t.continuing()
		t.end(ctx, r.carryOn(ctx, t, c.Answers))
	}
}

func (t *turn) continuing() {
	t.tell(wire.ContentCompleted{Head: t.at(wire.EventRunContinued), EventIndex: t.index})
}

// goOn takes a paused run over: of two who try, one succeeds.
func (r *Runner) goOn(ctx context.Context, v store.Viewer, q store.RunQuery, c Continuation) (*turn, error) {
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
		answers = Answers{} // nobody's decision is one too
	}
	if row.Checkpoint, err = wire.Marshal(checkpoint{Answers: answers}); err != nil {
		return nil, fmt.Errorf("answers: %w", err)
	}
	row.Checkpoint = storableJSON(row.Checkpoint)
	if row.Caller, err = wire.Marshal(c.Caller); err != nil {
		return nil, fmt.Errorf("caller: %w", err)
	}
	index, taken, err := r.db.ContinueRun(ctx, row, r.clock())
	if err != nil {
		return nil, err
	}
	if !taken {
		return nil, fault.Public(fault.Conflict, fmt.Sprintf("Cannot continue run %s: run is %s", row.RunID, strings.ToLower(row.Status)), nil)
	}
	t := r.newTurn(agent, agent.Model.Describe(), row)
	t.index, t.row.Status = max(index, store.FirstIndex(row.Attempt)), wire.StatusRunning
	_, _, err = t.restore()
	return t, err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// carryOn does what was decided and goes on talking to the model.
func (r *Runner) carryOn(ctx context.Context, t *turn, answers Answers) error {
	box, err := t.tools(ctx)
	if err != nil {
		return err
	}
	messages, err := r.recalled(ctx, t)
	if err != nil {
		return err
	}
	var all []work
	for i := range t.calls {
		call := &t.calls[i]
		if !open(*call, t.messages) {
			continue
		}
		one := box.byName[call.ToolName]
		w := work{asked: model.ToolCall{ID: call.ToolCallID, Name: call.ToolName}, tool: one, call: call}
		w.refusal = decide(call, one, answers[call.ToolCallID])
		all = append(all, w)
	}
	if err := t.do(ctx, all); err != nil {
		return err
	}
	results := t.told(all)
	for _, w := range all { // nothing is required any more
		for _, required := range []*bool{w.call.RequiresConfirmation, w.call.RequiresUserInput, w.call.ExternalExecutionRequired} {
			if required != nil {
				*required = false
			}
		}
	}
	for i, w := range t.waiting {
		for _, call := range t.calls {
			if _, answered := answers[call.ToolCallID]; answered && call.ToolCallID == w.ToolExecution.ToolCallID {
				t.waiting[i].ToolExecution, t.waiting[i].UserInputSchema = call, call.UserInputSchema
			}
		}
	}
	if err := t.save(ctx, nil); err != nil {
		return err
	}
	return r.converse(ctx, t, append(messages, results...), nil)
}

// recalled is what the model heard so far in this run, with what it hears before.
func (r *Runner) recalled(ctx context.Context, t *turn) ([]model.Message, error) {
	messages, err := r.history(ctx, t)
	if err != nil {
		return nil, err
	}
	said := heard(t.messages)
	if len(said) > 0 && said[0].Role == model.System { // it stands before the history
		messages, said = append([]model.Message{said[0]}, messages...), said[1:]
	}
	return append(messages, said...), nil
}

// open reports whether a call was not answered yet.
func open(call wire.ToolExecution, said []wire.Message) bool {
	return !slices.ContainsFunc(said, func(m wire.Message) bool { return m.Role == wire.RoleTool && m.ToolCallID == call.ToolCallID })
}

// decide takes a person's answer into the call. It gives back what the model is
// told when the tool isn't called; the name and the model's own arguments are
// never the caller's to change.
func decide(call *wire.ToolExecution, one tool.Tool, answer wire.ToolExecution) (refusal string) {
	const rejected = "Function call was rejected by the user"
	switch {
	case one.Call == nil && call.ExternalExecutionRequired == nil:
		return "Error: The requested tool does not exist or is not available."
	case call.RequiresConfirmation != nil:
		if call.Confirmed = new(answer.Confirmed != nil && *answer.Confirmed); *call.Confirmed {
			return ""
		}
		if answer.ConfirmationNote != nil && *answer.ConfirmationNote != "" {
			call.ConfirmationNote = new(storable(*answer.ConfirmationNote))
			call.ToolCallError = new(true)
			return *call.ConfirmationNote
		}
		call.ConfirmationNote, call.ToolCallError = new("Tool call was rejected"), new(true)
		return rejected
	case call.RequiresUserInput != nil:
		if !fill(call, answer.UserInputSchema) {
			call.Answered, call.ToolCallError = new(false), new(true)
			return rejected
		}
		call.Answered = new(true)
		return ""
	case answer.Result != nil: // external
		call.Result = new(bounded(storable(*answer.Result)))
		return *call.Result
	}
	call.ToolCallError = new(true)
	return rejected
}

// fill puts a person's values into the arguments: those that the form left open,
// and no other. It is false when one is missing.
func fill(call *wire.ToolExecution, answers []wire.UserInput) bool {
	args := map[string]json.RawMessage{}
	_ = json.Unmarshal(call.ToolArgs, &args) // it is an object
	for i, field := range call.UserInputSchema {
		if field.Value != nil && string(field.Value) != "null" {
			continue
		}
		at := slices.IndexFunc(answers, func(a wire.UserInput) bool { return a.Name == field.Name })
		if at < 0 || answers[at].Value == nil || string(answers[at].Value) == "null" {
			return false
		}
		call.UserInputSchema[i].Value = storableJSON(answers[at].Value)
		args[field.Name] = call.UserInputSchema[i].Value
	}
	filled, err := wire.Marshal(args)
	call.ToolArgs = filled
	return err == nil
}
