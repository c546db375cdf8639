package run

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/trace"
	"github.com/keyway-agents/keyway/shared/wire"
)

// loadTools lists the tools that the model is offered. If they cannot be listed, the run ends: the model would
// otherwise answer without tools that the operator expects it to have.
func (l *leg) loadTools(ctx context.Context) (toolbox, error) {
	box := toolbox{byName: map[string]tool.Tool{}}
	for _, set := range l.agent.Tools {
		list, err := set.Tools(ctx)
		if err != nil {
			return box, fmt.Errorf("%w: %w", errTools, err)
		}
		for _, one := range list {
			box.byName[one.Name] = one
			box.specs = append(box.specs, model.ToolSpec{
				Name: one.Name, Description: one.Description, Parameters: one.Parameters,
			})
		}
	}
	return box, nil
}

// plannedCall is one tool call that the model requested. The tool is called unless refusal, settled or needsPerson
// is set.
type plannedCall struct {
	requested model.ToolCall
	tool      tool.Tool
	// call is nil if there is no such tool.
	call *wire.ToolExecution
	// refusal is what the model receives instead of a result.
	refusal string
	// settled means that refusal takes the place of the tool's result, even if it is empty.
	settled bool
	// needsPerson means that a person must act first.
	needsPerson bool
}

// callTools executes the calls of one answer, all at the same time, and returns their results in the order of the
// answer. Calls that need a person are added to the requirements instead, and pause the run. The other calls are
// executed before that, so that a person decides only about what needs a decision. An error ends the run.
func (l *leg) callTools(
	ctx context.Context, box toolbox, requested []model.ToolCall,
) (results []model.Message, paused bool, err error) {
	all := make([]plannedCall, len(requested))
	for i, c := range requested {
		all[i] = l.planCall(box, c)
	}
	if err := l.executeCalls(ctx, all); err != nil {
		return nil, false, err
	}
	// A refused call has a message but is not listed among the run's tool calls, as it was not one.
	for _, w := range all {
		if w.call != nil && w.refusal == "" {
			l.Calls = append(l.Calls, *w.call)
		}
		if w.needsPerson {
			paused = true
			l.Requirements = append(l.Requirements, wire.Requirement{
				ID: l.newID().String(), CreatedAt: wire.ISOTime{Time: l.now()},
				ToolExecution: *w.call, UserInputSchema: w.call.UserInputSchema,
			})
		}
	}
	return l.recordResults(all), paused, nil
}

// planCall finds the tool of a call and parses the arguments. A call that cannot be executed is refused with a text
// for the model, which can then correct itself; it does not end the run. Every call of a known tool counts for the
// agent's limit, executed or not: otherwise a model that repeats an invalid call would never reach the limit. Two of
// its refusals have AgentOS's text: the one for an unknown tool and the one for the limit.
func (l *leg) planCall(box toolbox, c model.ToolCall) plannedCall {
	w := plannedCall{requested: c}
	var known bool
	if w.tool, known = box.byName[c.Name]; !known {
		w.refusal = "Error: The requested tool does not exist or is not available."
		return w
	}
	args, err := parseArguments(c.Arguments)
	w.call = &wire.ToolExecution{
		ToolCallID: c.ID, ToolName: c.Name, ToolArgs: args,
		CreatedAt: l.now().Unix(),
	}
	switch l.CallCount++; {
	case l.agent.ToolCallLimit > 0 && l.CallCount > l.agent.ToolCallLimit:
		w.refusal = "Tool call limit reached. Tool call " + c.Name + " not executed. Don't try to execute it again."
	case err != nil:
		w.refusal = "Error: the arguments of " + c.Name + " are not a JSON object: " + err.Error()
	default:
		w.needsPerson = needsPerson(w.call, w.tool)
		return w
	}
	w.call.ToolCallError = new(true)
	return w
}

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
		call.RequiresUserInput, call.UserInputSchema = new(true), wire.InputForm(call.ToolArgs, one.Parameters, one.UserInput)
	case one.External:
		call.ExternalExecutionRequired = new(true)
	default:
		return false
	}
	return true
}

// recordResults adds the results of calls to the run's messages and returns them, in the order of the calls and not in
// the order in which the tools returned: providers expect the results in the order of the request. A call that needs a
// person has no result yet.
func (l *leg) recordResults(all []plannedCall) (results []model.Message) {
	for _, w := range all {
		text := w.refusal
		if w.call != nil && w.call.Result != nil {
			text = *w.call.Result
		}
		if w.needsPerson {
			continue
		}
		m := model.Message{Role: model.ToolRole, ToolCallID: w.requested.ID, Content: text}
		stored := l.storedMessage(m)
		stored.ToolName = w.requested.Name
		if w.call != nil {
			stored.ToolArgs, stored.ToolCallError = w.call.ToolArgs, w.call.ToolCallError
		}
		l.Messages = append(l.Messages, message{Message: stored})
		results = append(results, m)
	}
	return results
}

// parseArguments parses the arguments of a tool call, which must be a JSON object. Empty text counts as {}, because
// models send it for a tool without parameters. The result of an error is {}.
func parseArguments(arguments string) (json.RawMessage, error) {
	arguments = pgvalue.CleanText(strings.TrimSpace(arguments))
	var members map[string]json.RawMessage
	err := json.Unmarshal([]byte(cmp.Or(arguments, "{}")), &members)
	if err != nil || members == nil {
		return json.RawMessage("{}"), cmp.Or(err, errors.New("it is null"))
	}
	return strictjson.MakeStorable(json.RawMessage(cmp.Or(arguments, "{}"))), nil
}

// executeCalls calls the tools at the same time, because models request calls together that do not depend on each
// other, and emits an event as each one ends. If ctx ends first, executeCalls returns its cause and does not wait for
// tools that ignore their context.
func (l *leg) executeCalls(ctx context.Context, all []plannedCall) error {
	type ended struct {
		call *wire.ToolExecution
		tool.Outcome
	}
	done := make(chan ended, len(all)) // Buffered, so that a tool that returns late does not block for ever.
	running := 0
	for _, w := range all {
		if w.refusal != "" || w.settled || w.needsPerson {
			continue
		}
		if err := context.Cause(ctx); err != nil { // No further tool is called for a run that was stopped.
			return err
		}
		if l.registry.expired(l.lease) { // This process was suspended since the last checkpoint, for example.
			return errLost
		}
		running++
		l.emit(wire.ToolStarted{Head: l.headFor(wire.EventToolCallStarted), Tool: *w.call, EventIndex: l.index})
		// The caller comes from the row, never from the arguments: a model can be persuaded to name another user.
		ctx := tool.WithCaller(ctx, tool.Caller{
			UserID: l.row.Owner, AgentID: l.agent.ID, SessionID: l.row.SessionID, RunID: l.head.RunID,
			CallID: w.call.ToolCallID,
		})
		arguments := bytes.Clone(w.call.ToolArgs) // A tool that returns late must not share memory with the run.
		ctx, span := trace.Tool(ctx, l.tracer, w.tool.Name, w.call.ToolCallID)
		go func() {
			o := tool.Call(ctx, w.tool, arguments, l.now)
			trace.EndTool(span, o.Failed)
			if o.Panicked != nil {
				l.log.Error("a tool panicked", "tool", w.tool.Name, "run_id", l.head.RunID, "panic",
					logging.Panicked(o.Panicked))
			}
			done <- ended{w.call, o}
		}()
	}
	for range running {
		select {
		case e := <-done:
			l.recordOutcome(e.call, e.Outcome)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// recordOutcome stores the outcome in the call and emits it. The text of the event is AgentOS's.
func (l *leg) recordOutcome(call *wire.ToolExecution, o tool.Outcome) {
	unixSeconds := func(at time.Time) float64 { return float64(at.UnixMicro()) / 1e6 }
	call.ToolCallError, call.Result = &o.Failed, &o.Text
	call.Metrics = &wire.ToolMetrics{
		StartTime: unixSeconds(o.Start), EndTime: unixSeconds(o.End), Duration: o.End.Sub(o.Start).Seconds(),
	}
	text := fmt.Sprintf("%s(%s) completed in %.4fs. ",
		call.ToolName, tool.Truncate(wire.FormatArguments(call.ToolArgs)), call.Metrics.Duration)
	l.emit(wire.ToolCompleted{
		Head: l.headFor(wire.EventToolCallCompleted), Tool: *call, EventIndex: l.index, Content: text,
	})
	if o.Failed {
		l.emit(wire.ToolFailed{
			Head: l.headFor(wire.EventToolCallError), Error: o.Text, Tool: *call, EventIndex: l.index,
		})
	}
}
