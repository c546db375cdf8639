package run_test

import (
	"context"
	"encoding/json"
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

// expireLeases makes every running run look orphaned: its lease has expired, and it is in the queue again. The process
// that executes the run continues, like one that was cut off from the network.
func (b *bench) expireLeases(want int) {
	b.t.Helper()
	b.sql("UPDATE keyway.runs SET lease_until = now() - interval '1 second' WHERE status = 'RUNNING'")
	if n, err := b.runner.Requeue(b.t.Context()); err != nil || n != want {
		b.t.Fatalf("%d orphaned runs are found, want %d: %v", n, want, err)
	}
}

// claimAndExecute claims a run with a runner, executes it to its end and returns its row.
func (b *bench) claimAndExecute(r *run.Runner, runID string) store.Run {
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

// startAndAwaitModel starts a background run, claims it and returns when the model has been called. There is no worker:
// it would claim the run again as soon as its first leg notices that the lease has ended.
func startAndAwaitModel(t *testing.T, b *bench, in run.Input, modelCalls int) (runID string) {
	t.Helper()
	in.AgentID, in.Owner, in.SessionID = "a", "ann", "s"
	accepted, err := b.runner.Start(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	execute, claimed, err := b.runner.Claim(t.Context(), uuid.MustParse(accepted.RunID))
	if err != nil || !claimed {
		t.Fatal(claimed, err)
	}
	go execute()
	await(t, func() bool { return len(b.model.requests()) >= modelCalls })
	return accepted.RunID
}

func TestAnOrphanedRunContinuesInAnotherProcess(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "never"))
	id := startAndAwaitModel(t, b, run.Input{Message: "hi"}, 1)
	b.expireLeases(1)
	second := b.withModel(t, agentOnly, replies("done"))
	r := b.claimAndExecute(second.runner, id)
	if r.Status != "COMPLETED" || *r.Content != "done" || r.Attempt != 2 || len(second.model.requests()) != 1 {
		t.Errorf("%+v", r)
	}
}

// The first process has not crashed, it is only slow. It notices the loss of its lease with the pulse, or when it
// stores the end.
func TestAProcessThatLostItsLeaseStoresNothing(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	b := newBench(t, hangs(proceed, "after the loss"))
	var list []run.Event
	var end error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e, err := range b.runner.Run(context.Background(), streamed) {
			list, end = append(list, e), err
		}
	}()
	await(t, func() bool { return len(b.model.requests()) == 1 })
	runs, err := b.db.Runs(t.Context(), ann, store.RunQuery{SessionID: "s"})
	if err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	id := runs[0].RunID.String()
	b.expireLeases(1)
	second := b.withModel(t, agentOnly, replies("in time"))
	want := b.claimAndExecute(second.runner, id)
	close(proceed)
	<-ended
	over := last(list).HandedOver
	if end != nil || over == nil || over.RunID != id || over.Status != "RUNNING" || last(list).Event != nil ||
		last(list).Result != nil {
		t.Errorf("%+v, %v", last(list), end)
	}
	if got := names(list[:len(list)-1]); strings.Contains(got, "RunError") || strings.Contains(got, "RunCompleted") {
		t.Error(got)
	}
	got := b.row(id)
	if got.Status != "COMPLETED" || *got.Content != "in time" || string(got.Messages) != string(want.Messages) {
		t.Errorf("%+v", got)
	}
	if all := b.frames(id); strings.Contains(all, "after the loss") || !strings.Contains(all, "RunCompleted") ||
		strings.Contains(all, "RunError") {
		t.Errorf("the events are not those of the last attempt: %s", all)
	}
	if s, err := b.db.Session(t.Context(), ann, "s", ""); err != nil || s.Usage[0].Total != usage.Total {
		t.Errorf("%+v %v", s.Usage, err)
	}
}

func TestOneOfTwoWorkersExecutesARun(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("x"))
	other := b.withModel(t, agentOnly, replies("x"))
	b.startWorker(2)
	other.startWorker(2)
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
		if r := b.awaitEnd(id); r.Status != "COMPLETED" || r.Attempt != 1 {
			t.Errorf("%+v", r)
		}
	}
	if got := len(b.model.requests()) + len(other.model.requests()); got != n {
		t.Errorf("the models were called %d times for %d runs", got, n)
	}
}

// Every process that executes the run crashes.
func TestARunEndsAfterThreeCrashes(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("x"))
	accepted, err := b.runner.Start(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	for range run.MaxCrashes {
		if _, claimed, err := b.runner.Claim(t.Context(), uuid.MustParse(accepted.RunID)); err != nil || !claimed {
			t.Fatal("the run could not be claimed:", err)
		}
		b.expireLeases(1)
	}
	r := b.claimAndExecute(b.runner, accepted.RunID)
	if r.Status != "ERROR" ||
		*r.Content != "The server stopped 3 times while this run was in progress; it is not tried again" {
		t.Errorf("%+v", r)
	}
	b.expireLeases(0)
	if n := len(b.model.requests()); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
}

func TestAPendingRunIsAuthorizedAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("x"))
	caller := run.Caller{Subject: "ann", Issuer: "i", SessionID: "s", Scopes: []string{"agents:a:run"},
		Path: "/agents/a/runs"}
	start := func() string {
		accepted, err := b.runner.Start(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi",
			Caller: caller})
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
	if r := b.claimAndExecute(run.New(o), start()); r.Status != "COMPLETED" {
		t.Errorf("%+v", r)
	}
	refuse = true
	if r := b.claimAndExecute(run.New(o), start()); r.Status != "ERROR" ||
		*r.Content != "The run is no longer allowed: Insufficient permissions" {
		t.Errorf("%+v", r)
	}
	for _, c := range asked {
		if c.Subject != caller.Subject || c.Issuer != caller.Issuer || c.SessionID != "s" || c.Path != caller.Path ||
			len(c.Scopes) != 1 || c.Scopes[0] != caller.Scopes[0] {
			t.Errorf("the decision was about %+v", c)
		}
	}
	if n := len(b.model.requests()); len(asked) != 2 || n != 1 {
		t.Errorf("%d decisions and %d model calls", len(asked), n)
	}

	// Old versions did not record the caller of a run.
	id := start()
	b.sql("UPDATE keyway.runs SET caller = NULL")
	if r := b.claimAndExecute(run.New(o), id); r.Status != "ERROR" ||
		!strings.Contains(*r.Content, "started by an older version") {
		t.Errorf("%+v", r)
	}
}

func TestARunOfAnUndeclaredAgentEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("x"))
	accepted, err := b.runner.Start(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	o := options(b.db, agentOnly, b.model, io.Discard)
	o.Agents = nil
	if r := b.claimAndExecute(run.New(o), accepted.RunID); r.Status != "ERROR" ||
		*r.Content != "The agent a is not declared any more" {
		t.Errorf("%+v", r)
	}
}

func TestCancelEndsAPendingRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("never")) // No worker receives the run.
	accepted, err := b.runner.Start(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	id := accepted.RunID
	b.wantCancel(b.runner, bob, id, false)
	if r := b.row(id); r.Status != "PENDING" {
		t.Fatalf("%+v", r)
	}
	b.wantCancel(b.runner, ann, id, true)
	if r := b.row(id); r.Status != "CANCELLED" || len(b.model.requests()) != 0 {
		t.Errorf("%+v, and %d model calls", r, len(b.model.requests()))
	}
	b.expireLeases(0)
}

// The process crashed before it noticed the cancellation.
func TestAnOrphanedRunThatWasCancelledIsNotExecuted(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	id := startAndAwaitModel(t, b, run.Input{Message: "hi"}, 1)
	// The new attempt number hides the cancellation from the first process.
	b.sql("UPDATE keyway.runs SET cancel_requested = true, attempt = attempt + 1")
	b.expireLeases(1)
	second := b.withModel(t, agentOnly, replies("x"))
	if r := b.claimAndExecute(second.runner, id); r.Status != "CANCELLED" || len(second.model.requests()) != 0 {
		t.Errorf("%+v", r)
	}
}

// The ids of the repeated tool calls stay the same, and no earlier step is repeated.
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
	id := startAndAwaitModel(t, b, run.Input{Message: "hi", Streamed: true}, 1)
	await(t, func() bool { return len(called()) == 1 })

	// A crash during the tool call: the tool is called again, the model is not.
	b.expireLeases(1)
	hang.Store(false)
	second := &bench{t: t, url: b.url, db: b.db, model: &scripted{answers: []answer{hangs(nil, "lost")}}}
	second.runner = newRunner(b.db, agentOnly, second.model, book)
	execute, claimed, err := second.runner.Claim(t.Context(), uuid.MustParse(id))
	if err != nil || !claimed {
		t.Fatal(claimed, err)
	}
	go execute()
	await(t, func() bool { return len(second.model.requests()) == 1 })
	callID := callIDs(t, second.model.requests()[0].Messages[1])[0]
	if got := called(); len(got) != 2 || got[0] != id+" "+callID || got[1] != got[0] {
		t.Errorf("the tool calls are %q", got)
	}

	// A crash during the second answer: the tool is not called again.
	b.expireLeases(1)
	third := &bench{t: t, url: b.url, db: b.db, model: &scripted{answers: []answer{replies("Done.")}}}
	third.runner = newRunner(b.db, agentOnly, third.model, book)
	r := b.claimAndExecute(third.runner, id)
	if r.Status != "COMPLETED" || *r.Content != "I book. Done." || len(called()) != 2 {
		t.Errorf("%+v; the tool was called %d times", r, len(called()))
	}
	if got := strings.Join(storedMessages(t, r),
		" | "); got != "user: hi | assistant: I book.  | tool: booked | assistant: Done." {
		t.Error(got)
	}
	var m wire.Metrics
	decode(t, r.Metrics, &m)
	if m.TotalTokens != 2*usage.Total {
		t.Errorf("the run has %d tokens", m.TotalTokens)
	}
	requests := third.model.requests()[0].Messages
	if len(requests) != 3 || requests[1].ToolCalls[0].ID != callID || requests[2].ToolCallID != callID {
		t.Errorf("the model receives %+v", requests)
	}
	var index []float64
	var events []string
	for frame := range strings.SplitSeq(strings.TrimSpace(b.frames(id)), "\n\n") {
		name, data, _ := strings.Cut(frame, "\ndata: ")
		var e map[string]any
		decode(t, []byte(data), &e)
		index = append(index, e["event_index"].(float64))
		events = append(events, strings.TrimPrefix(name, "event: "))
	}
	want := "RunStarted ModelRequestStarted RunContent ModelRequestCompleted " +
		"ToolCallStarted ToolCallCompleted " +
		"ModelRequestStarted RunContent ModelRequestCompleted RunContentCompleted RunCompleted"
	if got := strings.Join(events, " "); got != want {
		t.Errorf("the events are %s, want %s", got, want)
	}
	for i := 1; i < len(index); i++ {
		if index[i] <= index[i-1] {
			t.Errorf("the indices are %v", index)
			break
		}
	}
}

// A run that was continued after a pause keeps the decisions of people when its process crashes.
func TestADecisionSurvivesACrash(t *testing.T) {
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
	b := newBenchWith(t, config.Agent{}, tools(remove), calls("", model.ToolCall{ID: "c", Name: "remove"}),
		replies("Done."))
	paused := last(b.run("hi")).Result
	go func() {
		c := approve(t, paused)
		for range b.runner.Continue(context.Background(), ann, storeQuery{RunID: paused.RunID}, c) {
		}
	}()
	<-started
	b.expireLeases(1)
	hang.Store(false)
	second := newRunner(b.db, agentOnly, b.model, remove)
	r := b.claimAndExecute(second, paused.RunID)
	if r.Status != "COMPLETED" || *r.Content != "Done." || !strings.Contains(string(r.Tools), `"result":"removed"`) {
		t.Errorf("%s %q %s", r.Status, *r.Content, r.Tools)
	}
	var m wire.Metrics
	decode(t, r.Metrics, &m)
	if s, err := b.db.Session(t.Context(), ann, "s", ""); err != nil || m.TotalTokens != 2*usage.Total ||
		s.Usage[0].Total != 2*usage.Total {
		t.Errorf("the run has %d tokens, the session %+v, %v", m.TotalTokens, s.Usage, err)
	}
}

// Earlier versions stored a member "events" in each checkpoint. A run that such a version handed over continues.
func TestACheckpointOfAnEarlierVersionIsRead(t *testing.T) {
	t.Parallel()
	var called atomic.Int32
	b := newBenchWith(t, agentOnly, tools(countingTool(&called)), requestsCount("1"), replies("One."))
	in := run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}
	_, over := collectAll(t, b.runner.Run(shortDeadline(t), in))
	if over == nil {
		t.Fatal("the run was not handed over")
	}
	b.sql(`UPDATE keyway.runs SET checkpoint = ('{"events":0,' || substr(checkpoint::text, 2))::json`)
	r := b.claimAndExecute(b.runner, over.RunID)
	if r.Status != "COMPLETED" || *r.Content != "One." || called.Load() != 1 || len(b.model.requests()) != 2 {
		t.Errorf("%+v, %d tool calls, %d model calls", r, called.Load(), len(b.model.requests()))
	}
}

// A process that cannot reach the database cannot know whether it still holds the lease.
func TestARunWhoseLeaseCannotBeRenewedIsStopped(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	var ahead atomic.Int64
	o := options(b.db, agentOnly, b.model, io.Discard)
	o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	r := run.New(o)
	var last run.Event
	for e, err := range r.Run(t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) {
		if err != nil {
			t.Fatal(err)
		}
		if last = e; e.HandedOver == nil && e.Name() == "RunContent" {
			b.sql("ALTER TABLE keyway.runs RENAME TO gone")
			ahead.Store(int64(55 * time.Second))
		}
	}
	if last.HandedOver == nil || last.HandedOver.Status != "RUNNING" {
		t.Errorf("%+v", last)
	}
}
