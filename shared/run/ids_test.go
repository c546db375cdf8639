package run_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// recordedCalls makes tools that record the arguments and the ids of their calls.
type recordedCalls struct {
	mu        sync.Mutex
	arguments []string
	ids       []string
}

func (d *recordedCalls) tool(name string, change func(*tool.Tool)) tool.Tool {
	t := named(name, func(ctx context.Context, arguments json.RawMessage) (string, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.arguments = append(d.arguments, name+" "+string(arguments))
		d.ids = append(d.ids, tool.CallerFrom(ctx).CallID)
		return "done " + string(arguments), nil
	})
	change(&t)
	return t
}

func free(*tool.Tool) {}

// waitingFor returns the id of the call with these arguments that a paused run waits for.
func waitingFor(t *testing.T, r *wire.Run, arguments string) string {
	t.Helper()
	var waiting []wire.Requirement
	decode(t, r.Requirements, &waiting)
	for _, w := range waiting {
		if string(w.ToolExecution.ToolArgs) == arguments {
			return w.ToolExecution.ToolCallID
		}
	}
	t.Fatalf("the run does not wait for %s: %s", arguments, r.Requirements)
	return ""
}

func TestADecisionCountsForOneCallWhateverIDsTheModelSends(t *testing.T) {
	t.Parallel()
	const good, bad = `{"account":"GOOD"}`, `{"account":"BAD"}`
	for _, id := range []string{"", "x", "call_0"} {
		t.Run("id "+id, func(t *testing.T) {
			t.Parallel()
			d := &recordedCalls{}
			b := newBenchWith(t, agentOnly, tools(d.tool("transfer", confirm)),
				calls("", model.ToolCall{ID: id, Name: "transfer", Arguments: good},
					model.ToolCall{ID: id, Name: "transfer", Arguments: bad}), replies("done"))
			r := last(b.run("hi")).Result
			yes, no := waitingFor(t, r, good), waitingFor(t, r, bad)
			end := last(b.collect(b.runner.Continue(t.Context(), ann, storeQuery{RunID: r.RunID},
				run.Continuation{Answers: run.Answers{no: {Confirmed: new(false)}, yes: {Confirmed: new(true)}}}))).Result
			if diff := cmp.Diff([]string{"transfer " + good}, d.arguments); diff != "" || end.Status != "COMPLETED" {
				t.Errorf("%s, the tool: %s", end.Status, diff)
			}
			if diff := cmp.Diff([]string{yes}, d.ids); diff != "" {
				t.Errorf("the tool's caller: %s", diff)
			}
			request := b.model.requests()[1].Messages
			if ids := callIDs(t, request[1]); ids[0] != yes || ids[1] != no || len(request) != 4 {
				t.Fatalf("the model receives %+v, want the ids %s and %s", request, yes, no)
			}
			results := map[string]string{}
			for _, m := range request[2:] {
				results[m.ToolCallID] = m.Content
			}
			if diff := cmp.Diff(map[string]string{yes: "done " + good, no: "Function call was rejected by the user"},
				results); diff != "" {
				t.Errorf("the results: %s", diff)
			}
		})
	}
}

// Some models number their calls anew in each answer.
func TestACallWithAnIDOfAnEarlierStepIsExecuted(t *testing.T) {
	t.Parallel()
	d := &recordedCalls{}
	b := newBenchWith(t, agentOnly, tools(d.tool("look", free), d.tool("transfer", confirm)),
		calls("", model.ToolCall{ID: "call_0", Name: "look", Arguments: "{}"}),
		calls("", model.ToolCall{ID: "call_0", Name: "transfer", Arguments: `{"n":1}`}), replies("done"))
	r := last(b.run("hi")).Result
	if r.Status != "PAUSED" {
		t.Fatal(r.Status)
	}
	end := last(b.collect(b.runner.Continue(t.Context(), ann, storeQuery{RunID: r.RunID}, approve(t, r)))).Result
	if diff := cmp.Diff([]string{"look {}", `transfer {"n":1}`}, d.arguments); diff != "" || end.Status != "COMPLETED" {
		t.Errorf("%s, the tools: %s", end.Status, diff)
	}
	request := b.model.requests()[2].Messages
	if m := request[len(request)-1]; m.Content != `done {"n":1}` || m.ToolCallID != d.ids[1] {
		t.Errorf("the last message is %+v", m)
	}
}

// The model yields the same list of calls in each answer, which must not change the ids of the earlier messages.
func TestEachCallHasAnIDOfItsOwn(t *testing.T) {
	t.Parallel()
	d := &recordedCalls{}
	same := calls("", model.ToolCall{ID: "a", Name: "look"}, model.ToolCall{ID: "a", Name: "look"})
	b := newBenchWith(t, agentOnly, tools(d.tool("look", free)), same, same, replies("done"))
	list := b.collect(b.runner.Run(t.Context(), streamed))
	slices.Sort(d.ids)
	if len(slices.Compact(slices.Clone(d.ids))) != 4 {
		t.Errorf("the ids of the tool's callers are %q", d.ids)
	}
	var asked, answered, shown []string
	for _, m := range b.model.requests()[2].Messages {
		if m.Role == model.Assistant {
			asked = append(asked, callIDs(t, m)...)
		} else if m.Role == model.ToolRole {
			answered = append(answered, m.ToolCallID)
		}
	}
	for _, e := range list {
		if started, ok := e.Event.(wire.ToolStarted); ok {
			shown = append(shown, started.Tool.ToolCallID)
		}
	}
	for _, ids := range [][]string{asked, answered, shown} {
		slices.Sort(ids)
		if diff := cmp.Diff(d.ids, ids); diff != "" {
			t.Error(diff)
		}
	}
	if strings.Contains(string(b.row(last(list).Result.RunID).Messages), `"a"`) {
		t.Error("the stored run has the model's ids")
	}
}
