package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// died makes every run that is carried look as if its process were gone: its lease
// is over, and it is in the queue again. The process goes on, as one that was cut off
// does.
func (b *bench) died(want int) {
	b.t.Helper()
	b.sql("UPDATE keyway.runs SET lease_until = now() - interval '1 second' WHERE status = 'RUNNING'")
	if n, err := b.runner.Requeue(b.t.Context()); err != nil || n != want {
		b.t.Fatalf("%d runs are taken up again, want %d: %v", n, want, err)
	}
}

// take has a runner carry a run that waits to its end.
func (b *bench) take(r *run.Runner, runID string) store.Run {
	b.t.Helper()
	execute, claimed, err := r.Claim(b.t.Context(), uuid.MustParse(runID))
	if err != nil {
		b.t.Fatal(err)
	}
	if claimed {
		execute()
	}
	return b.row(runID)
}

// begun starts a run in the background, has it taken and waits for the model to be
// asked. release lets the model answer.
func begun(t *testing.T, b *bench, in run.Input) (runID string) {
	t.Helper()
	in.AgentID, in.Owner, in.SessionID = "a", "ann", "s"
	b.works(1)
	accepted, err := b.runner.Start(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return len(b.model.requests()) > 0 })
	return accepted.RunID
}

func TestARunWhoseProcessDiedIsCarriedByAnother(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "never"))
	id := begun(t, b, run.Input{Message: "hi"})
	b.died(1)
	second := b.again(t, agentOnly, says("done"))
	r := b.take(second.runner, id)
	if r.Status != "COMPLETED" || *r.Content != "done" || r.Attempt != 2 || len(second.model.requests()) != 1 {
		t.Errorf("%+v", r)
	}
}

// The first process is only slow: it finds out by itself, or when it ends the run.
func TestWhoLostItsLeaseRecordsNothing(t *testing.T) {
	t.Parallel()
	goAhead := make(chan struct{})
	b := newBench(t, hangs(goAhead, "too late"))
	var list []run.Event
	var end error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e, err := range b.runner.Run(context.Background(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi", Streamed: true}) {
			list, end = append(list, e), err
		}
	}()
	await(t, func() bool { return len(b.model.requests()) == 1 })
	runs, err := b.db.Runs(t.Context(), ann, store.RunQuery{SessionID: "s"})
	if err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	id := runs[0].RunID.String()
	b.died(1)
	second := b.again(t, agentOnly, says("in time"))
	want := b.take(second.runner, id)
	close(goAhead)
	<-ended
	if !errors.Is(end, fault.Conflict) || last(list).Name() != "RunError" || last(list).Result != nil {
		t.Errorf("%s, %v", names(list), end)
	}
	got := b.row(id)
	if got.Status != "COMPLETED" || *got.Content != "in time" || string(got.Messages) != string(want.Messages) {
		t.Errorf("%+v", got)
	}
	if all := b.frames(id); strings.Contains(all, "too late") || !strings.Contains(all, "RunCompleted") || strings.Contains(all, "RunError") {
		t.Errorf("the events are not those of the last attempt: %s", all)
	}
	if s, err := b.db.Session(t.Context(), ann, "s", ""); err != nil || s.Usage[0].Total != usage.Total {
		t.Errorf("%+v %v", s.Usage, err)
	}
}

func TestOfTwoWorkersOneCarriesARun(t *testing.T) {
	t.Parallel()
	b := newBench(t, says("x"))
	other := b.again(t, agentOnly, says("x"))
	b.works(2)
	other.works(2)
	const n = 12
	var ids []string
	for range n {
		accepted, err := b.runner.Start(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, accepted.RunID)
	}
	for _, id := range ids {
		if r := b.ended(id); r.Status != "COMPLETED" || r.Attempt != 1 {
			t.Errorf("%+v", r)
		}
	}
	if got := len(b.model.requests()) + len(other.model.requests()); got != n {
		t.Errorf("the models were asked %d times for %d runs", got, n)
	}
}

// Each process dies of the run.
func TestARunThatKillsItsProcessIsGivenUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, says("x"))
	accepted, err := b.runner.Start(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	for range run.MaxCrashes {
		if _, claimed, err := b.runner.Claim(t.Context(), uuid.MustParse(accepted.RunID)); err != nil || !claimed {
			t.Fatal("it is not tried", err)
		}
		b.died(1)
	}
	r := b.take(b.runner, accepted.RunID)
	if r.Status != "ERROR" || *r.Content != "The server stopped 3 times while this run was in progress; it is not tried again" {
		t.Errorf("%+v", r)
	}
	b.died(0)
	if n := len(b.model.requests()); n != 0 {
		t.Errorf("the model was asked %d times", n)
	}
}

func TestARunThatWaitsIsDecidedAboutAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, says("x"))
	caller := run.Caller{Subject: "ann", Issuer: "i", SessionID: "s", Scopes: []string{"agents:a:run"}, Path: "/agents/a/runs"}
	start := func() string {
		accepted, err := b.runner.Start(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi", Caller: caller})
		if err != nil {
			t.Fatal(err)
		}
		return accepted.RunID
	}
	o := options(b.db, agentOnly, b.model, io.Discard)
	var asked []run.Caller
	refuse := false
	o.Admit = func(c run.Caller) error {
		if asked = append(asked, c); refuse {
			return fault.Public(fault.Forbidden, "Insufficient permissions", nil)
		}
		return nil
	}
	if r := b.take(run.New(o), start()); r.Status != "COMPLETED" {
		t.Errorf("%+v", r)
	}
	refuse = true
	if r := b.take(run.New(o), start()); r.Status != "ERROR" || *r.Content != "The run is no longer allowed: Insufficient permissions" {
		t.Errorf("%+v", r)
	}
	for _, c := range asked {
		if c.Subject != caller.Subject || c.Issuer != caller.Issuer || c.SessionID != "s" || c.Path != caller.Path || len(c.Scopes) != 1 || c.Scopes[0] != caller.Scopes[0] {
			t.Errorf("asked about %+v", c)
		}
	}
	if n := len(b.model.requests()); len(asked) != 2 || n != 1 {
		t.Errorf("asked %d times, and the model %d times", len(asked), n)
	}

	// A run that an older version began says nothing of who began it.
	id := start()
	b.sql("UPDATE keyway.runs SET caller = NULL")
	if r := b.take(run.New(o), id); r.Status != "ERROR" || !strings.Contains(*r.Content, "started by an older version") {
		t.Errorf("%+v", r)
	}
}

func TestARunOfAnAgentThatIsGoneEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t, says("x"))
	accepted, err := b.runner.Start(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	o := options(b.db, agentOnly, b.model, io.Discard)
	o.Agents = nil
	if r := b.take(run.New(o), accepted.RunID); r.Status != "ERROR" || *r.Content != "The agent a is not declared any more" {
		t.Errorf("%+v", r)
	}
}

func TestACancelOfARunThatNobodyCarriesEndsIt(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	id := begun(t, b, run.Input{Message: "hi"})
	b.died(1)
	b.wantCancel(b.runner, bob, id, false)
	if r := b.row(id); r.Status != "PENDING" {
		t.Fatalf("%+v", r)
	}
	b.wantCancel(b.runner, ann, id, true)
	if r := b.row(id); r.Status != "CANCELLED" {
		t.Errorf("%+v", r)
	}
	b.died(0)
}

// A cancel that its dead process never saw counts when the run is taken up.
func TestARunThatWasCancelledMeanwhileIsNotCarried(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	id := begun(t, b, run.Input{Message: "hi"})
	b.sql("UPDATE keyway.runs SET cancel_requested = true, attempt = attempt + 1") // so that who carries it does not see it
	b.died(1)
	second := b.again(t, agentOnly, says("x"))
	if r := b.take(second.runner, id); r.Status != "CANCELLED" || len(second.model.requests()) != 0 {
		t.Errorf("%+v", r)
	}
}

// The step that was interrupted is repeated, with the same ids of calls and nothing
// before it.
func TestTheInterruptedStepIsRepeated(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var ids []string
	var hang atomic.Bool
	hang.Store(true)
	book := tool.Tool{Name: "book", Call: func(ctx context.Context, _ json.RawMessage) (string, error) {
		mu.Lock()
		ids = append(ids, tool.CallerFrom(ctx).RunID+" "+tool.CallerFrom(ctx).CallID)
		mu.Unlock()
		if hang.Load() {
			<-ctx.Done()
		}
		return "booked", nil
	}}
	called := func() []string { mu.Lock(); defer mu.Unlock(); return append([]string{}, ids...) }
	wants := calls("I book. ", model.ToolCall{ID: "call_7", Name: "book", Arguments: `{"n": 1}`})
	b := newBenchWith(t, agentOnly, tools(book), wants)
	id := begun(t, b, run.Input{Message: "hi", Streamed: true})
	await(t, func() bool { return len(called()) == 1 })

	// During the tool: it is called again, and the model not asked again for it.
	b.died(1)
	hang.Store(false)
	second := &bench{t: t, url: b.url, db: b.db, model: &scripted{answers: []answer{hangs(nil, "lost")}}}
	second.runner = newRunner(b.db, agentOnly, second.model, book)
	execute, claimed, err := second.runner.Claim(t.Context(), uuid.MustParse(id))
	if err != nil || !claimed {
		t.Fatal(claimed, err)
	}
	go execute()
	await(t, func() bool { return len(second.model.requests()) == 1 })
	if got := called(); len(got) != 2 || got[0] != id+" call_7" || got[1] != got[0] {
		t.Errorf("the calls: %q", got)
	}

	// During the second answer: the tool has done its work.
	b.died(1)
	third := &bench{t: t, url: b.url, db: b.db, model: &scripted{answers: []answer{says("Done.")}}}
	third.runner = newRunner(b.db, agentOnly, third.model, book)
	r := b.take(third.runner, id)
	if r.Status != "COMPLETED" || *r.Content != "I book. Done." || len(called()) != 2 {
		t.Errorf("%+v; the tool was called %d times", r, len(called()))
	}
	if got := strings.Join(said(t, r), " | "); got != "user: hi | assistant: I book.  | tool: booked | assistant: Done." {
		t.Error(got)
	}
	var m wire.Metrics
	decode(t, r.Metrics, &m)
	if m.TotalTokens != 2*usage.Total {
		t.Errorf("%d tokens are counted", m.TotalTokens)
	}
	heard := third.model.requests()[0].Messages
	if len(heard) != 3 || heard[1].ToolCalls[0].ID != "call_7" || heard[2].ToolCallID != "call_7" {
		t.Errorf("the model hears %+v", heard)
	}
	var index []float64
	var told []string
	for frame := range strings.SplitSeq(strings.TrimSpace(b.frames(id)), "\n\n") {
		name, data, _ := strings.Cut(frame, "\ndata: ")
		var e map[string]any
		decode(t, []byte(data), &e)
		index = append(index, e["event_index"].(float64))
		told = append(told, strings.TrimPrefix(name, "event: "))
	}
	want := "RunStarted ModelRequestStarted RunContent ModelRequestCompleted ToolCallStarted ToolCallCompleted ModelRequestStarted RunContent ModelRequestCompleted RunContentCompleted RunCompleted"
	if got := strings.Join(told, " "); got != want {
		t.Errorf("the events are %s, want %s", got, want)
	}
	for i := 1; i < len(index); i++ {
		if index[i] <= index[i-1] {
			t.Errorf("the indices are %v", index)
			break
		}
	}
}

// A run that was continued goes on with what was decided.
func TestADecisionOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	var hang atomic.Bool
	hang.Store(true)
	started := make(chan struct{}, 2)
	remove := tool.Tool{Name: "remove", Confirm: true, Call: func(ctx context.Context, _ json.RawMessage) (string, error) {
		started <- struct{}{}
		if hang.Load() {
			<-ctx.Done()
		}
		return "removed", nil
	}}
	b := newBenchWith(t, config.Agent{}, tools(remove), calls("", model.ToolCall{ID: "c", Name: "remove"}), says("Done."))
	paused := last(b.run("hi")).Result
	go func() {
		c := run.Continuation{Answers: run.Answers{"c": {Confirmed: new(true)}}}
		for range b.runner.Continue(context.Background(), ann, storeQuery{RunID: paused.RunID}, c) {
		}
	}()
	<-started
	b.died(1)
	hang.Store(false)
	second := newRunner(b.db, agentOnly, b.model, remove)
	r := b.take(second, paused.RunID)
	if r.Status != "COMPLETED" || *r.Content != "Done." || !strings.Contains(string(r.Tools), `"result":"removed"`) {
		t.Errorf("%s %q %s", r.Status, *r.Content, r.Tools)
	}
	var m wire.Metrics
	decode(t, r.Metrics, &m)
	if s, err := b.db.Session(t.Context(), ann, "s", ""); err != nil || m.TotalTokens != 2*usage.Total || s.Usage[0].Total != 2*usage.Total {
		t.Errorf("the run has %d tokens, the session %+v, %v", m.TotalTokens, s.Usage, err)
	}
}

// Without the database nobody may be sure to have a run alone.
func TestARunWhoseLeaseCannotBeRenewedIsGivenUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	var ahead atomic.Int64
	o := options(b.db, agentOnly, b.model, io.Discard)
	o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	r := run.New(o)
	var list []run.Event
	var end error
	for e, err := range r.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) {
		if list, end = append(list, e), err; e.Name() == "RunContent" {
			b.sql("ALTER TABLE keyway.runs RENAME TO gone")
			ahead.Store(int64(55 * time.Second))
		}
	}
	if last(list).Name() != "RunError" || !errors.Is(end, fault.Conflict) || !strings.Contains(members(t, last(list))["content"].(string), "could not renew its lease") {
		t.Errorf("%s %v", names(list), end)
	}
}
