package run_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
)

var (
	ann = store.Viewer{Owner: "ann"}
	bob = store.Viewer{Owner: "bob"}
)

// runAndCancel runs agent "a" and calls cancel when the first part of the answer has arrived.
func runAndCancel(t *testing.T, b *bench, cancel func(runID string)) []run.Event {
	t.Helper()
	var list []run.Event
	for e, err := range b.runner.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) {
		if err != nil {
			t.Fatal(err)
		}
		if list = append(list, e); e.Name() == "RunContent" {
			cancel(members(t, e)["run_id"].(string))
		}
	}
	return list
}

func (b *bench) wantCancel(r *run.Runner, v store.Viewer, runID string, want bool) {
	b.t.Helper()
	if found, err := r.Cancel(b.t.Context(), v, uuid.MustParse(runID)); err != nil || found != want {
		b.t.Errorf("cancel of %s: %t %v, want %t", runID, found, err, want)
	}
}

func (b *bench) wantCancelled(list []run.Event) {
	b.t.Helper()
	end, r := members(b.t, last(list)), last(list).Result
	if want := "RunStarted ModelRequestStarted RunContent RunCancelled"; names(list) != want {
		b.t.Fatalf("%s, want %s", names(list), want)
	}
	if end["content"] != "so far" || end["reason"] != "Run "+r.RunID+" was cancelled" || r.Status != "CANCELLED" ||
		r.CancellationStage != "EXECUTING" {
		b.t.Errorf("%v %+v", end, r)
	}
	if row := b.row(r.RunID); row.Status != "CANCELLED" || *row.Content != "so far" || row.CancellationStage == nil ||
		*row.CancellationStage != "EXECUTING" {
		b.t.Errorf("%+v", row)
	}
}

func TestCancelStopsARunOfThisProcess(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	b.wantCancelled(runAndCancel(t, b, func(id string) {
		b.wantCancel(b.runner, bob, id, false) // The run belongs to ann.
		b.wantCancel(b.runner, store.Viewer{}, id, false)
		b.wantCancel(b.runner, ann, id, true)
	}))
}

// The second runner shares only the database with the first, like a process on another machine. The test ends when the
// cancellation arrives.
func TestCancelStopsARunOfAnotherProcess(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	elsewhere := newRunner(open(t, b.url), config.Agent{}, &scripted{})
	b.wantCancelled(runAndCancel(t, b, func(id string) {
		b.wantCancel(elsewhere, bob, id, false)
		b.wantCancel(elsewhere, ann, id, true)
	}))
}

func TestCancelStopsOneOfSeveralRuns(t *testing.T) {
	t.Parallel()
	finish := make(chan struct{})
	b := newBench(t, hangs(finish, "so far"))
	started, other := make(chan struct{}), make(chan []run.Event)
	go func() {
		var list []run.Event
		for e := range b.runner.Run(context.Background(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s",
			Message: "the other"}) {
			if list = append(list, e); e.Name() == "RunContent" && len(list) == 3 {
				close(started)
			}
		}
		other <- list
	}()
	<-started
	b.wantCancelled(runAndCancel(t, b, func(id string) { b.wantCancel(b.runner, ann, id, true) }))
	close(finish)
	if list := <-other; last(list).Name() != "RunCompleted" {
		t.Errorf("the other run: %s", names(list))
	}
}

func TestCancelDoesNotChangeARunThatHasEnded(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("x"))
	r := last(b.run("hi")).Result
	b.wantCancel(b.runner, ann, r.RunID, true)
	b.wantCancel(b.runner, bob, r.RunID, false)
	b.wantCancel(b.runner, store.Viewer{All: true}, "00000000-0000-4000-8000-000000000000", false)
	if row := b.row(r.RunID); row.Status != "COMPLETED" {
		t.Errorf("%+v", row)
	}
}

// The model requests a tool after the cancellation. Neither the tool nor the model is called any more.
func TestCancelStopsARunBetweenTwoAnswers(t *testing.T) {
	t.Parallel()
	var called atomic.Int32
	b := newBenchWith(t, agentOnly, tools(countingTool(&called)),
		calls("so far", model.ToolCall{Name: "count"}), hangs(nil, ""))
	list := runAndCancel(t, b, func(id string) { b.wantCancel(b.runner, ann, id, true) })
	if last(list).Name() != "RunCancelled" {
		t.Errorf("%s", names(list))
	}
	if diff := cmp.Diff([]string{"user: hi", "assistant: so far"},
		storedMessages(t, b.row(last(list).Result.RunID))); diff != "" {
		t.Errorf("the stored messages: %s", diff)
	}
	if called.Load() != 0 || len(b.model.requests()) != 1 {
		t.Errorf("%d tool calls, %d model calls", called.Load(), len(b.model.requests()))
	}
}

func TestWaitReturnsWhenNoRunIsInProgress(t *testing.T) {
	t.Parallel()
	finish, started := make(chan struct{}), make(chan struct{})
	b := newBench(t, hangs(finish, "so far"))
	if err := b.runner.Wait(t.Context()); err != nil {
		t.Errorf("idle: %v", err)
	}
	go func() {
		for e := range b.runner.Run(context.Background(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s",
			Message: "hi"}) {
			if e.Name() == "RunStarted" {
				close(started)
			}
		}
	}()
	<-started
	impatient, cancel := context.WithCancelCause(t.Context())
	why := errors.New("impatient")
	cancel(why)
	if err := b.runner.Wait(impatient); !errors.Is(err, why) {
		t.Errorf("with a run in progress: %v", err)
	}
	close(finish)
	if err := b.runner.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	runs, err := b.db.Runs(t.Context(), ann, store.RunQuery{SessionID: "s"})
	if err != nil || len(runs) != 1 || runs[0].Status != "COMPLETED" {
		t.Errorf("Wait returned before the end was stored: %+v %v", runs, err)
	}
}

// A Lambda function ends at its deadline. A step that needs more than the whole time of a process would not fit into
// the time of the next process either.
func TestAStepLongerThanAProcessEndsTheRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	var list []run.Event
	for e, err := range b.runner.Run(b.nearDeadline(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s",
		Message: "hi"}) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	const reason = "One step of the run (a model call or a round of tool calls) exceeded " +
		"this server's time limit for a request"
	end, r := members(t, last(list)), last(list).Result
	if end["event"] != "RunError" || end["content"] != reason || end["error_type"] != "run_timeout_error" ||
		r.Status != "ERROR" || len(b.model.requests()) != 1 {
		t.Errorf("%v %+v", end, r)
	}
	if row := b.row(r.RunID); row.Status != "ERROR" || *row.Content != reason {
		t.Errorf("%+v", row)
	}
}
