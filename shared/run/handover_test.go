package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// shortDeadline is the context of a process with half a minute left, which is not enough for a second step.
func shortDeadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// deadlineContext reports a deadline but never ends. Only the run loop applies the deadline, so that a slow machine
// cannot exceed it before the model is called.
type deadlineContext struct {
	context.Context
	at time.Time
}

func (d deadlineContext) Deadline() (time.Time, bool) { return d.at, true }

// nearDeadline returns a context with a deadline in three seconds. The store is already connected.
func (b *bench) nearDeadline() context.Context {
	b.t.Helper()
	if _, err := b.db.Runs(b.t.Context(), ann, store.RunQuery{SessionID: "none"}); err != nil {
		b.t.Fatal(err)
	}
	return deadlineContext{b.t.Context(), time.Now().Add(3 * time.Second)}
}

// collectAll returns the events of an attempt, and the hand-over if it ended with one.
func collectAll(t testing.TB, seq iter.Seq2[run.Event, error]) (list []run.Event, over *wire.Accepted) {
	t.Helper()
	for e, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		if over != nil {
			t.Fatal("an event follows the hand-over")
		}
		if over = e.HandedOver; over == nil {
			list = append(list, e)
		}
	}
	return list, over
}

// countingTool counts its calls and returns the count.
func countingTool(called *atomic.Int32) tool.Tool {
	return tool.Tool{Name: "count", Call: func(context.Context, json.RawMessage) (string, error) {
		return fmt.Sprint(called.Add(1)), nil
	}}
}

func requestsCount(id string) answer { return calls("", model.ToolCall{ID: id, Name: "count"}) }

func TestARunIsHandedOverUntilItEnds(t *testing.T) {
	t.Parallel()
	var called atomic.Int32
	b := newBenchWith(t, agentOnly, tools(countingTool(&called)), requestsCount("1"), requestsCount("2"),
		requestsCount("3"), replies("Three."))
	in := run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "count", Streamed: true}
	list, over := collectAll(t, b.runner.Run(shortDeadline(t), in))
	if over == nil || over.Status != "PENDING" || over.SessionID != "s" {
		t.Fatalf("%s, hand-over %+v", names(list), over)
	}
	if got := names(list); got != "RunStarted ModelRequestStarted ModelRequestCompleted" || called.Load() != 0 {
		t.Errorf("%s, with %d calls", got, called.Load())
	}
	id, attempts := uuid.MustParse(over.RunID), 1
	for b.row(over.RunID).Status == "PENDING" && attempts < 20 {
		// The message is delivered at once, because a released run is visible at once.
		list, _, err := b.db.ReceiveRuns(t.Context(), 1, time.Minute, "")
		if err != nil || len(list) != 1 || list[0].RunID != id {
			t.Fatal(list, err)
		}
		execute, claimed, err := b.runner.Claim(shortDeadline(t), id)
		if err != nil || !claimed {
			t.Fatal("the run could not be claimed:", err)
		}
		execute()
		attempts++
	}
	r := b.row(over.RunID)
	if r.Status != "COMPLETED" || *r.Content != "Three." || r.Losses != 0 || r.Attempt != attempts || attempts < 5 {
		t.Errorf("%s after %d processes: %+v", r.Status, attempts, r)
	}
	if n := len(b.model.requests()); n != 4 || called.Load() != 3 {
		t.Errorf("the model was called %d times, the tool %d times", n, called.Load())
	}
	const said = "user: count | assistant:  | tool: 1 | assistant:  | tool: 2 | assistant:  | tool: 3 | assistant: Three."
	if got := strings.Join(storedMessages(t, r), " | "); got != said {
		t.Error(got)
	}
	var m wire.Metrics
	decode(t, r.Metrics, &m)
	if s, err := b.db.Session(t.Context(), ann, "s", ""); err != nil || m.TotalTokens != 4*usage.Total ||
		s.Usage[0].Total != m.TotalTokens {
		t.Errorf("%d tokens, the session %+v, %v", m.TotalTokens, s.Usage, err)
	}
	if all := b.frames(over.RunID); strings.Count(all, "event: ToolCallCompleted") != 3 ||
		strings.Count(all, "event: RunStarted") != 1 || strings.Count(all, "event: RunCompleted") != 1 {
		t.Errorf("the stored events are %s", all)
	}
}

// The runner's clock is slow, so it starts a step that the deadline interrupts.
func TestAnInterruptedStepIsRepeatedInAnotherProcess(t *testing.T) {
	t.Parallel()
	var called atomic.Int32
	b := newBenchWith(t, agentOnly, tools(countingTool(&called)), requestsCount("1"), hangs(nil, "so "))
	o := options(b.db, agentOnly, b.model, io.Discard, countingTool(&called))
	o.Now = func() time.Time { return time.Now().Add(-10 * time.Minute) }
	list, over := collectAll(t, run.New(o).Run(b.nearDeadline(),
		run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi", Streamed: true}))
	if over == nil || last(list).Name() != "RunContent" {
		t.Fatal(names(list), over)
	}
	second := &bench{t: t, url: b.url, db: b.db, model: &scripted{answers: []answer{replies("done")}}}
	second.runner = newRunner(b.db, agentOnly, second.model, countingTool(&called))
	r := b.claimAndExecute(second.runner, over.RunID)
	if r.Status != "COMPLETED" || *r.Content != "done" || called.Load() != 1 {
		t.Errorf("%+v, with %d calls", r, called.Load())
	}
	if all := b.frames(over.RunID); strings.Contains(all, `"so "`) || !strings.Contains(all, "RunCompleted") {
		t.Errorf("the stored events are %s", all)
	}
}

func TestWithoutAQueueNothingIsHandedOver(t *testing.T) {
	t.Parallel()
	var called atomic.Int32
	b := newBenchWith(t, agentOnly, tools(countingTool(&called)), requestsCount("1"), replies("One."))
	o := options(b.db, agentOnly, b.model, io.Discard, countingTool(&called))
	o.Queue = nil
	list, over := collectAll(t, run.New(o).Run(shortDeadline(t),
		run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}))
	if over != nil || last(list).Result == nil || last(list).Result.Status != "COMPLETED" {
		t.Error(names(list), over)
	}
}

func TestWithoutAQueueADeadlineEndsARun(t *testing.T) {
	t.Parallel()
	var called atomic.Int32
	b := newBenchWith(t, agentOnly, nil, requestsCount("1"), hangs(nil, "so far"))
	o := options(b.db, agentOnly, b.model, io.Discard, countingTool(&called))
	o.Queue = nil
	list, over := collectAll(t, run.New(o).Run(b.nearDeadline(),
		run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}))
	const reason = "The run exceeded this server's time limit for a request, and no queue is configured to continue it"
	if over != nil || last(list).Result == nil || *last(list).Result.Content != reason {
		t.Errorf("%s %+v", names(list), last(list).Result)
	}
}

// The agent's time limit would end the run in any process.
func TestARunWhoseTimeLimitComesFirstIsNotHandedOver(t *testing.T) {
	t.Parallel()
	var called atomic.Int32
	b := newBenchWith(t, config.Agent{Timeout: 20 * time.Second}, tools(countingTool(&called)), requestsCount("1"),
		replies("One."))
	list, over := collectAll(t, b.runner.Run(shortDeadline(t),
		run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}))
	if over != nil || last(list).Name() != "RunCompleted" {
		t.Error(names(list), over)
	}
}

func TestAContinuedRunIsHandedOverWithItsDecisions(t *testing.T) {
	t.Parallel()
	removed := 0
	remove := tool.Tool{Name: "remove", Confirm: true, Call: func(context.Context, json.RawMessage) (string, error) {
		removed++
		return "removed", nil
	}}
	b := newBenchWith(t, config.Agent{}, tools(remove), calls("", model.ToolCall{ID: "c", Name: "remove"}),
		replies("Done."))
	paused := last(b.run("hi")).Result
	c := approve(t, paused)
	_, over := collectAll(t, b.runner.Continue(shortDeadline(t), ann, storeQuery{RunID: paused.RunID}, c))
	if over == nil || over.RunID != paused.RunID || removed != 1 {
		t.Fatal(over, removed)
	}
	if r := b.claimAndExecute(b.runner, over.RunID); r.Status != "COMPLETED" || *r.Content != "Done." || removed != 1 ||
		!strings.Contains(string(r.Tools), `"confirmed":true`) {
		t.Errorf("%+v, removed %d times", r, removed)
	}
}

// A server that is stopped hands its runs over, which is not counted as a crash.
func TestAServerThatIsStoppedHandsItsRunsOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	var list []run.Event
	var over *wire.Accepted
	for e, err := range b.runner.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi",
		Streamed: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if over = e.HandedOver; over != nil {
			continue
		}
		if list = append(list, e); e.Name() == "RunContent" {
			if n := b.runner.HandOver(); n != 1 {
				t.Errorf("%d runs", n)
			}
		}
	}
	if err := b.runner.Wait(t.Context()); err != nil || over == nil {
		t.Fatal(err, names(list))
	}
	if r := b.row(over.RunID); r.Status != "PENDING" || r.Attempt != 1 {
		t.Errorf("%+v", r)
	}
	second := b.withModel(t, agentOnly, replies("done"))
	if r := b.claimAndExecute(second.runner, over.RunID); r.Status != "COMPLETED" || *r.Content != "done" ||
		r.Losses != 0 || r.Attempt != 2 {
		t.Errorf("%+v", r)
	}
}

func TestTheTimeLimitCountsTheTimeInEveryProcess(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	slow := tool.Tool{Name: "count", Call: func(context.Context, json.RawMessage) (string, error) {
		ahead.Store(int64(35 * time.Second))
		return "1", nil
	}}
	b := newBenchWith(t, config.Agent{Timeout: 30 * time.Second}, nil, requestsCount("1"), hangs(nil, "so far"))
	o := options(b.db, config.Agent{Timeout: 30 * time.Second}, b.model, io.Discard, slow)
	o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	r := run.New(o)
	var over *wire.Accepted
	for e, err := range r.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) {
		if err != nil {
			t.Fatal(err)
		}
		if over = e.HandedOver; over == nil && e.Name() == "RunContent" {
			r.HandOver()
		}
	}
	if got := b.claimAndExecute(r, over.RunID); got.Status != "ERROR" ||
		*got.Content != "The run took longer than its limit of 30s" {
		t.Errorf("%+v", got)
	}
}

// brokenQueue accepts no message.
type brokenQueue struct{ queue.Queue }

func (brokenQueue) Enqueue(context.Context, uuid.UUID, string, time.Duration) error {
	return errors.New("no route to host")
}

func TestAHandedOverRunWithoutAMessageIsFoundLater(t *testing.T) {
	t.Parallel()
	var called atomic.Int32
	b := newBenchWith(t, agentOnly, tools(countingTool(&called)), requestsCount("1"), replies("One."))
	log := &syncLog{}
	o := options(b.db, agentOnly, b.model, log, countingTool(&called))
	o.Queue = brokenQueue{}
	_, over := collectAll(t, run.New(o).Run(shortDeadline(t), run.Input{AgentID: "a", Owner: "ann", SessionID: "s",
		Message: "hi"}))
	if over == nil || !strings.Contains(log.String(), "no route to host") {
		t.Fatal(over, log)
	}
	b.sql("UPDATE keyway.runs SET lease_until = now() - interval '11 minutes'")
	if n, err := b.runner.Requeue(t.Context()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if r := b.claimAndExecute(b.runner, over.RunID); r.Status != "COMPLETED" || r.Losses != 0 || called.Load() != 1 {
		t.Errorf("%+v, %d calls", r, called.Load())
	}
}

// Another process has claimed the run meanwhile.
func TestAProcessThatLostARunDoesNotHandItOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"), replies("x"))
	id := startAndAwaitModel(t, b, run.Input{Message: "hi"}, 1)
	b.sql("UPDATE keyway.runs SET attempt = attempt + 1")
	b.runner.HandOver()
	if err := b.runner.Wait(shortDeadline(t)); err != nil {
		t.Fatal(err)
	}
	if r := b.row(id); r.Status != "RUNNING" {
		t.Errorf("%+v", r)
	}
	if err := b.db.ReleaseRun(t.Context(), store.Leg{RunID: uuid.MustParse(id), Attempt: 9}); err == nil {
		t.Error("an attempt that does not exist released the run")
	}
}
