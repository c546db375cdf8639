package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

type storeQuery = store.RunQuery

var (
	everyone = store.Viewer{All: true}
)

// guardedTool makes a tool that needs a person, and records the arguments of its calls.
type guardedTool struct {
	mu    sync.Mutex
	calls []string
}

func (d *guardedTool) tool(change func(*tool.Tool)) tool.Tool {
	t := named("door", func(_ context.Context, arguments json.RawMessage) (string, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.calls = append(d.calls, string(arguments))
		return "opened " + string(arguments), nil
	})
	t.Parameters = json.RawMessage(`{"type":"object","properties":{"subject":{"type":"string"},"to":{"type":"string"}}}`)
	change(&t)
	return t
}

func confirm(t *tool.Tool)  { t.Confirm = true }
func askTo(t *tool.Tool)    { t.UserInput = []string{"to"} }
func external(t *tool.Tool) { t.External = true }

var knock = model.ToolCall{ID: "c", Name: "door", Arguments: `{"subject":"hi"}`}

func TestAToolThatNeedsConfirmationPausesTheRun(t *testing.T) {
	t.Parallel()
	d := &guardedTool{}
	b := newBenchWith(t, config.Agent{}, []tool.Set{d.tool(confirm), named("free", echo)},
		calls("wait. ", knock, model.ToolCall{ID: "f", Name: "free"}), replies("done"))
	list := b.run("hi")
	if got := names(list); got != "RunStarted ModelRequestStarted RunContent ModelRequestCompleted "+
		"ToolCallStarted ToolCallCompleted RunContentCompleted RunPaused" {
		t.Error(got)
	}
	r := last(list).Result
	if r.Status != "PAUSED" || *r.Content != "I have tools to execute, but I need confirmation." || len(d.calls) > 0 {
		t.Fatalf("%s %q, the tool was called with %q", r.Status, *r.Content, d.calls)
	}
	var waiting []wire.Requirement
	decode(t, r.Requirements, &waiting)
	ids := callIDs(t, modelMessage(t, r, 1))
	if len(waiting) != 1 || waiting[0].ToolExecution.ToolCallID != ids[0] ||
		!*waiting[0].ToolExecution.RequiresConfirmation {
		t.Errorf("%v %s", ids, r.Requirements)
	}
	list = b.collect(b.runner.Continue(t.Context(), ann, storeQuery{RunID: r.RunID}, approve(t, r)))
	if got := names(list); got != "RunContinued ToolCallStarted ToolCallCompleted "+
		"ModelRequestStarted RunContent ModelRequestCompleted RunContentCompleted RunCompleted" {
		t.Error(got)
	}
	after := last(list).Result
	if after.RunID != r.RunID || after.Status != "COMPLETED" || *after.Content != "done" || tokens(t, after) != 30 {
		t.Errorf("%+v", after)
	}
	if diff := cmp.Diff([]string{`{"subject":"hi"}`}, d.calls); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"user: hi", "assistant: wait. ", "tool: {}", `tool: opened {"subject":"hi"}`,
		"assistant: done"}, storedMessages(t, b.row(r.RunID))); diff != "" {
		t.Error(diff)
	}
	s, err := b.db.Session(t.Context(), ann, "s", "")
	if err != nil || len(s.Usage) != 1 || s.Usage[0].Total != 30 {
		t.Errorf("%v: the session counts %+v", err, s.Usage)
	}
}

func TestToolsAreExecutedAsPeopleDecide(t *testing.T) {
	t.Parallel()
	value := func(name, json string) []wire.UserInput { return []wire.UserInput{{Name: name, Value: []byte(json)}} }
	for name, row := range map[string]struct {
		kind    func(*tool.Tool)
		pause   string
		answers run.Answers
		result  string   // that the model receives
		ran     []string // the arguments of the tool calls
	}{
		"yes": {confirm, "confirmation", run.Answers{"c": {Confirmed: new(true)}},
			`opened {"subject":"hi"}`, []string{`{"subject":"hi"}`}},
		"no": {confirm, "confirmation", run.Answers{"c": {Confirmed: new(false)}},
			"Function call was rejected by the user", nil},
		"no, and why": {confirm, "confirmation",
			run.Answers{"c": {Confirmed: new(false), ConfirmationNote: new("no way\x00")}}, "no way\ufffd", nil},
		"nothing": {confirm, "confirmation", nil, "Function call was rejected by the user", nil},
		"yes to another call": {confirm, "confirmation", run.Answers{"x": {Confirmed: new(true)}},
			"Function call was rejected by the user", nil},
		"yes, with other arguments": {confirm, "confirmation",
			run.Answers{"c": {Confirmed: new(true), ToolName: "other",
				ToolArgs: []byte(`{"subject":"evil"}`)}}, `opened {"subject":"hi"}`, []string{`{"subject":"hi"}`}},
		"a result instead of a yes": {confirm, "confirmation", run.Answers{"c": {Result: new("forged")}},
			"Function call was rejected by the user", nil},
		"the input": {askTo, "user input", run.Answers{"c": {UserInputSchema: value("to", `"a@b.c"`)}},
			`opened {"subject":"hi","to":"a@b.c"}`, []string{`{"subject":"hi","to":"a@b.c"}`}},
		"no input": {askTo, "user input", nil, "Function call was rejected by the user", nil},
		"input that is null": {askTo, "user input", run.Answers{"c": {UserInputSchema: value("to", `null`)}},
			"Function call was rejected by the user", nil},
		"input for another argument": {askTo, "user input",
			run.Answers{"c": {UserInputSchema: append(value("to", `1`),
				value("subject", `"evil"`)...)}}, `opened {"subject":"hi","to":1}`, []string{`{"subject":"hi","to":1}`}},
		"the result": {external, "", run.Answers{"c": {Result: new("file1")}}, "file1", nil},
		"an empty result, which is no order to call the tool": {external, "", run.Answers{"c": {Result: new("")}}, "", nil},
		"no result": {external, "", nil, "Function call was rejected by the user", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &guardedTool{}
			b := newBenchWith(t, config.Agent{}, []tool.Set{d.tool(row.kind)}, calls("", knock), replies("done"))
			r := last(b.run("hi")).Result
			want := "I have tools to execute, but it needs external execution."
			if row.pause != "" {
				want = "I have tools to execute, but I need " + row.pause + "."
			}
			if r.Status != "PAUSED" || *r.Content != want {
				t.Fatalf("%s %q", r.Status, *r.Content)
			}
			after := last(b.collect(b.runner.Continue(t.Context(), ann, storeQuery{RunID: r.RunID},
				decide(t, r, row.answers)))).Result
			requests := b.model.requests()[1].Messages
			if got := requests[len(requests)-1]; got.Content != row.result || got.ToolCallID != waitingIDs(t, r)[0] {
				t.Errorf("the model received %+v", got)
			}
			if diff := cmp.Diff(row.ran, d.calls); diff != "" {
				t.Errorf("the tool: %s", diff)
			}
			if after.Status != "COMPLETED" {
				t.Error(after.Status)
			}
			// The decision cannot be changed.
			for _, err := range b.runner.Continue(t.Context(), ann, storeQuery{RunID: r.RunID},
				decide(t, r, run.Answers{"c": {Confirmed: new(true), Result: new("x")}})) {
				if !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "run is completed") {
					t.Errorf("again: %v", err)
				}
			}
			if len(d.calls) != len(row.ran) {
				t.Error("the tool was called after the rejection")
			}
		})
	}
}

func TestOneOfSeveralCallersContinuesARun(t *testing.T) {
	t.Parallel()
	d := &guardedTool{}
	b := newBenchWith(t, config.Agent{}, []tool.Set{d.tool(confirm)}, calls("", knock), replies("done"))
	r := last(b.run("hi")).Result
	var wg sync.WaitGroup
	won := make(chan int, 8)
	for range 8 {
		wg.Go(func() {
			events := 0
			for _, err := range b.runner.Continue(context.Background(), ann, storeQuery{RunID: r.RunID}, approve(t, r)) {
				if err == nil {
					events++
				} else if !errors.Is(err, fault.Conflict) {
					t.Error(err)
				}
			}
			won <- events
		})
	}
	wg.Wait()
	close(won)
	winners := 0
	for n := range won {
		if n > 0 {
			winners++
		}
	}
	if winners != 1 || len(d.calls) != 1 {
		t.Errorf("%d callers continued the run, the tool was called %d times", winners, len(d.calls))
	}
}

func TestOnlyTheOwnerCanContinueARun(t *testing.T) {
	t.Parallel()
	d := &guardedTool{}
	b := newBenchWith(t, config.Agent{}, []tool.Set{d.tool(confirm)}, calls("", knock), replies("done"))
	r := last(b.run("hi")).Result
	for _, err := range b.runner.Continue(t.Context(), bob, storeQuery{RunID: r.RunID}, approve(t, r)) {
		if !errors.Is(err, fault.NotFound) {
			t.Errorf("%v", err)
		}
	}
	if row := b.row(r.RunID); row.Status != "PAUSED" || len(d.calls) > 0 {
		t.Errorf("%s, the tool was called with %q", row.Status, d.calls)
	}
}

func TestAPausedRunCanBeCancelled(t *testing.T) {
	t.Parallel()
	d := &guardedTool{}
	b := newBenchWith(t, config.Agent{}, []tool.Set{d.tool(confirm)}, calls("", knock), replies("done"))
	r := last(b.run("hi")).Result
	if found, err := b.runner.Cancel(t.Context(), ann, uuid.MustParse(r.RunID)); err != nil || !found {
		t.Fatal(found, err)
	}
	if row := b.row(r.RunID); row.Status != "CANCELLED" {
		t.Error(row.Status)
	}
	for _, err := range b.runner.Continue(t.Context(), ann, storeQuery{RunID: r.RunID}, approve(t, r)) {
		if !errors.Is(err, fault.Conflict) {
			t.Errorf("%v", err)
		}
	}
	if len(d.calls) > 0 {
		t.Error("the tool was called")
	}
}

func TestAContinuedRunHasItsHistoryAndItsFiles(t *testing.T) {
	t.Parallel()
	d := &guardedTool{}
	b := newBenchWith(t, config.Agent{AddHistoryToContext: true, NumHistoryRuns: 3, Instructions: "be kind"},
		[]tool.Set{d.tool(confirm)},
		replies("first"), calls("", knock), replies("done"))
	b.run("earlier")
	r := last(b.collect(b.runner.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "now",
		Files: []wire.File{{ID: "1", Filename: "a.txt", Content: "hello"}}}))).Result
	last(b.collect(b.runner.Continue(t.Context(), ann, storeQuery{RunID: r.RunID}, approve(t, r))))
	requests := b.model.requests()
	before, after := requests[1].Messages, requests[2].Messages
	if diff := cmp.Diff(before, after[:len(before)]); diff != "" {
		t.Errorf("the model receives other messages: %s", diff)
	}
	if !strings.Contains(before[3].Content, "<file name=\"a.txt\">\nhello\n</file>") {
		t.Errorf("%q", before[3].Content)
	}
}

// The request that continues the run decides, not the request that started it.
func TestAContinuedRunRequestsAStreamIfItIsStreamed(t *testing.T) {
	t.Parallel()
	for _, streamed := range []bool{true, false} {
		d := &guardedTool{}
		b := newBenchWith(t, config.Agent{}, []tool.Set{d.tool(confirm)}, calls("", knock), replies("d", "one"))
		r := last(b.run("hi")).Result
		c := approve(t, r)
		c.Streamed = streamed
		last(b.collect(b.runner.Continue(t.Context(), ann, storeQuery{RunID: r.RunID}, c)))
		if asked := b.model.requests(); len(asked) != 2 || !asked[0].Whole || asked[1].Whole == streamed {
			t.Errorf("streamed %t: %+v", streamed, asked)
		}
	}
}
