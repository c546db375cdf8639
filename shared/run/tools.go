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

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// toolbox is what the model may call in one run.
type toolbox struct {
	byName map[string]tool.Tool
	specs  []model.ToolSpec
}

// tools asks the agent's sets what there is; of two tools with one name the first
// counts.
func (t *turn) tools(ctx context.Context) (toolbox, error) {
	box := toolbox{byName: map[string]tool.Tool{}}
	for _, set := range t.agent.Tools {
		list, err := set.Tools(ctx)
		if err != nil {
			return box, fmt.Errorf("%w: %w", errTools, err)
		}
		for _, one := range list {
			if _, taken := box.byName[one.Name]; !taken {
				box.byName[one.Name] = one
				box.specs = append(box.specs, model.ToolSpec{Name: one.Name, Description: one.Description, Parameters: one.Parameters})
			}
		}
	}
	return box, nil
}

// work is one call that the model asked for: either to be done, or with what the
// model is told instead.
type work struct {
	asked   model.ToolCall
	tool    tool.Tool
	call    *wire.ToolExecution // nil: there is no such tool
	refusal string              // why nothing is done
	waits   bool                // for a person
}

// call does what the model asked for, all calls at the same time, and gives back
// what it is told, in its order. What waits for a person is put into t.waiting and
// not done. An error is the run's end.
func (t *turn) call(ctx context.Context, box toolbox, asked []model.ToolCall) ([]model.Message, error) {
	all := make([]work, len(asked))
	for i, c := range asked {
		all[i] = t.plan(box, c)
	}
	if err := t.do(ctx, all); err != nil {
		return nil, err
	}
	for _, w := range all {
		if w.call != nil && w.refusal == "" {
			t.calls = append(t.calls, *w.call)
		}
		if w.waits {
			t.waiting = append(t.waiting, t.requirement(*w.call))
		}
	}
	return t.told(all), nil
}

// plan finds the tool and reads the arguments. The words of refusals are
// AgentOS's.
func (t *turn) plan(box toolbox, c model.ToolCall) work {
	w := work{asked: c}
	var known bool
	if w.tool, known = box.byName[c.Name]; !known {
		w.refusal = "Error: The requested tool does not exist or is not available."
		return w
	}
	args, err := object(c.Arguments)
	w.call = &wire.ToolExecution{ToolCallID: storable(c.ID), ToolName: storable(c.Name), ToolArgs: args, CreatedAt: t.r.now().Unix()}
	switch t.called++; {
	case t.agent.ToolCallLimit > 0 && t.called > t.agent.ToolCallLimit:
		w.refusal = "Tool call limit reached. Tool call " + c.Name + " not executed. Don't try to execute it again."
	case err != nil:
		w.refusal = "Error: the arguments of " + c.Name + " are not a JSON object: " + err.Error()
	default:
		w.waits = waits(w.call, w.tool)
		return w
	}
	w.call.ToolCallError = new(true)
	return w
}

// told records what the model is told of its calls, in its order, and gives it
// back. What waits has no result yet.
func (t *turn) told(all []work) (results []model.Message) {
	for _, w := range all {
		text := w.refusal
		if w.call != nil && w.call.Result != nil {
			text = *w.call.Result
		}
		if w.waits {
			continue
		}
		m := model.Message{Role: model.ToolRole, ToolCallID: w.asked.ID, Content: text}
		said := t.message(m)
		said.ToolName = storable(w.asked.Name)
		if w.call != nil {
			said.ToolArgs, said.ToolCallError = w.call.ToolArgs, w.call.ToolCallError
		}
		t.messages = append(t.messages, said)
		results = append(results, m)
	}
	return results
}

// object reads a tool call's arguments; a model that has none to give may write
// nothing at all.
func object(arguments string) (json.RawMessage, error) {
	arguments = storable(strings.TrimSpace(arguments))
	var members map[string]json.RawMessage
	err := json.Unmarshal([]byte(cmp.Or(arguments, "{}")), &members)
	if err != nil || members == nil {
		return json.RawMessage("{}"), cmp.Or(err, errors.New("it is null"))
	}
	return storableJSON(json.RawMessage(cmp.Or(arguments, "{}"))), nil
}

// do calls the tools side by side and tells of each as it is done. Its error is
// the cause of ctx: tools that don't heed it are not waited for.
func (t *turn) do(ctx context.Context, all []work) error {
	type ended struct {
		call *wire.ToolExecution
		outcome
	}
	done := make(chan ended, len(all)) // buffered: who comes late hangs nobody
	running := 0
	for _, w := range all {
		if w.refusal != "" || w.waits {
			continue
		}
		if err := context.Cause(ctx); err != nil { // nothing is begun for a run that has ended
			return err
		}
		running++
		t.tell(wire.ToolStarted{Head: t.at(wire.EventToolCallStarted), Tool: *w.call, EventIndex: t.index})
		ctx := tool.WithCaller(ctx, tool.Caller{
			UserID: t.row.Owner, AgentID: t.agent.ID, SessionID: t.row.SessionID, RunID: t.head.RunID, CallID: w.call.ToolCallID,
		})
		arguments := bytes.Clone(w.call.ToolArgs)
		go func() {
			o := outcomeOf(ctx, w.tool, arguments, t.r.now)
			if o.panicked != nil {
				t.r.log.Error("a tool panicked", "tool", w.tool.Name, "run_id", t.head.RunID, "panic", o.panicked)
			}
			done <- ended{w.call, o}
		}()
	}
	for range running {
		select {
		case e := <-done:
			t.ended(e.call, e.outcome)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// outcome is what came of a call.
type outcome struct {
	text       string
	failed     bool
	panicked   any
	start, end time.Time
}

// outcomeOf calls the tool. Its failure and its panic are for the model to hear.
func outcomeOf(ctx context.Context, one tool.Tool, arguments json.RawMessage, now func() time.Time) (o outcome) {
	o.start = now()
	defer func() {
		o.end = now()
		if o.panicked = recover(); o.panicked != nil {
			o.failed, o.text = true, "Error: "+one.Name+" failed with an internal error."
		}
		o.text = bounded(storable(o.text))
	}()
	var err error
	o.text, err = one.Call(ctx, arguments)
	if err != nil {
		o.failed, o.text = true, err.Error()
		if e, ok := errors.AsType[*fault.Error](err); ok {
			o.text = fault.Detail(e)
		}
	}
	return o
}

// maxResult bounds what of a tool's answer the model hears and the run keeps.
const maxResult = 100 << 10

func bounded(text string) string {
	if len(text) <= maxResult {
		return text
	}
	return fmt.Sprintf("%s\n[The answer had %d bytes; only the first %d are shown.]", strings.ToValidUTF8(text[:maxResult], ""), len(text), maxResult)
}

// ended tells what came of a call, in AgentOS's words.
func (t *turn) ended(call *wire.ToolExecution, o outcome) {
	seconds := func(at time.Time) float64 { return float64(at.UnixMicro()) / 1e6 }
	call.ToolCallError, call.Result = &o.failed, &o.text
	call.Metrics = &wire.ToolMetrics{StartTime: seconds(o.start), EndTime: seconds(o.end), Duration: o.end.Sub(o.start).Seconds()}
	t.tell(wire.ToolCompleted{
		Head: t.at(wire.EventToolCallCompleted), Tool: *call, EventIndex: t.index,
		Content: fmt.Sprintf("%s(%s) completed in %.4fs. ", call.ToolName, spoken(call.ToolArgs), call.Metrics.Duration),
	})
	if o.failed {
		t.tell(wire.ToolFailed{Head: t.at(wire.EventToolCallError), Error: o.text, Tool: *call, EventIndex: t.index})
	}
}

// spoken are arguments as AgentOS shows them: name=value, in the model's order.
func spoken(arguments json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(arguments))
	_, _ = d.Token() // it is an object
	var parts []string
	for d.More() {
		name, _ := d.Token()
		var value json.RawMessage
		if d.Decode(&value) != nil {
			break
		}
		var text string
		if value[0] != '"' || json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		parts = append(parts, fmt.Sprintf("%v=%s", name, text))
	}
	return bounded(strings.Join(parts, ", "))
}
