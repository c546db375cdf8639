package run_test

import (
	"context"
	"errors"
	"strings"
	"testing"

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

// cancelled runs agent "a" and has cancel called once its first words are out.
func cancelled(t *testing.T, b *bench, cancel func(runID string)) []run.Event {
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
	if end["content"] != "so far" || end["reason"] != "Run "+r.RunID+" was cancelled" || r.Status != "CANCELLED" || r.CancellationStage != "EXECUTING" {
		b.t.Errorf("%v %+v", end, r)
	}
	if row := b.row(r.RunID); row.Status != "CANCELLED" || *row.Content != "so far" || row.CancellationStage == nil || *row.CancellationStage != "EXECUTING" {
		b.t.Errorf("%+v", row)
	}
}

func TestCancelStopsARunOfThisProcess(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	b.wantCancelled(cancelled(t, b, func(id string) {
		b.wantCancel(b.runner, bob, id, false) // somebody else's
		b.wantCancel(b.runner, store.Viewer{}, id, false)
		b.wantCancel(b.runner, ann, id, true)
	}))
}

// The other runner shares nothing with the first but the database, as on another
// machine. The test ends when its cancel arrives.
func TestCancelStopsARunOfAnotherMachine(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	elsewhere := newRunner(open(t, b.url), config.Agent{}, &scripted{})
	b.wantCancelled(cancelled(t, b, func(id string) {
		b.wantCancel(elsewhere, bob, id, false)
		b.wantCancel(elsewhere, ann, id, true)
	}))
}

func TestCancelStopsOneRunOfSeveral(t *testing.T) {
	t.Parallel()
	finish := make(chan struct{})
	b := newBench(t, hangs(finish, "so far"))
	started, other := make(chan struct{}), make(chan []run.Event)
	go func() {
		var list []run.Event
		for e := range b.runner.Run(context.Background(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "the other"}) {
			if list = append(list, e); e.Name() == "RunContent" && len(list) == 3 {
				close(started)
			}
		}
		other <- list
	}()
	<-started
	b.wantCancelled(cancelled(t, b, func(id string) { b.wantCancel(b.runner, ann, id, true) }))
	close(finish)
	if list := <-other; last(list).Name() != "RunCompleted" {
		t.Errorf("the other run: %s", names(list))
	}
}

func TestARunThatHasEndedStaysAsItIs(t *testing.T) {
	t.Parallel()
	b := newBench(t, says("x"))
	r := last(b.run("hi")).Result
	b.wantCancel(b.runner, ann, r.RunID, true)
	b.wantCancel(b.runner, bob, r.RunID, false)
	b.wantCancel(b.runner, store.Viewer{All: true}, "00000000-0000-4000-8000-000000000000", false)
	if row := b.row(r.RunID); row.Status != "COMPLETED" {
		t.Errorf("%+v", row)
	}
}

// A model that asks for tools is stopped between its answers too.
func TestCancelStopsARunBetweenTwoAnswers(t *testing.T) {
	t.Parallel()
	tool := model.ToolCall{ID: "c", Name: "search"}
	b := newBench(t, calls("so far", tool), hangs(nil, ""))
	list := cancelled(t, b, func(id string) { b.wantCancel(b.runner, ann, id, true) })
	if last(list).Name() != "RunCancelled" {
		t.Errorf("%s", names(list))
	}
	if got := said(t, b.row(last(list).Result.RunID)); len(got) < 3 || !strings.HasPrefix(got[2], "tool: ") {
		t.Errorf("what was said until then: %q", got)
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
		for e := range b.runner.Run(context.Background(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) {
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
		t.Errorf("Wait came back before the run was recorded: %+v %v", runs, err)
	}
}

// A function of Lambda's ends at its deadline, whatever it does. A step for which all of
// that was not enough would not fit into the next process's time either.
func TestAStepThatTakesAllTheTimeOfAProcessEndsTheRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	var list []run.Event
	for e, err := range b.runner.Run(b.soon(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	const reason = "One step of the run (a model call or a round of tool calls) exceeded this server's time limit for a request"
	end, r := members(t, last(list)), last(list).Result
	if end["event"] != "RunError" || end["content"] != reason || end["error_type"] != "run_timeout_error" || r.Status != "ERROR" || len(b.model.requests()) != 1 {
		t.Errorf("%v %+v", end, r)
	}
	if row := b.row(r.RunID); row.Status != "ERROR" || *row.Content != reason {
		t.Errorf("%+v", row)
	}
}
