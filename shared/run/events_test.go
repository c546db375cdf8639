package run_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// frames returns the stored frames of a run, and checks that their indices have no gap within an attempt.
func (b *bench) frames(runID string) string {
	b.t.Helper()
	row := b.row(runID)
	var all strings.Builder
	for next, last := 0, -1; ; {
		news, err := b.db.Follow(context.Background(), row.RunID, row.Attempt, last)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(news.Frames) == 0 {
			return all.String()
		}
		for _, e := range news.Frames {
			if e.First%store.FirstIndex(2) == 0 { // The first event of another attempt.
				next = e.First
			}
			if n := strings.Count(string(e.Data), "\n\n"); e.First != next || n != e.Count {
				b.t.Errorf("the row at index %d has the count %d and %d frames; want it at index %d", e.First, e.Count, n, next)
			}
			next += e.Count
			last = next - 1
			all.Write(e.Data)
		}
	}
}

func sentFrames(list []run.Event) string {
	var all strings.Builder
	for _, e := range list {
		all.Write(e.Frame)
	}
	return all.String()
}

var streamed = run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi", Streamed: true}

func TestEventsAreStoredAsTheyWereSent(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("日本 ", "<b>", "\n"))
	list := b.collect(b.runner.Run(t.Context(), streamed))
	if diff := cmp.Diff(sentFrames(list), b.frames(last(list).Result.RunID)); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(sentFrames(list), "event: RunStarted\ndata: {") ||
		strings.Count(sentFrames(list), "\n\n") != len(list) {
		t.Errorf("%q", sentFrames(list))
	}
}

func TestARunThatIsNotStreamedStoresNoEvents(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("hi"))
	list := b.run("hi")
	if got := b.frames(last(list).Result.RunID); got != "" || sentFrames(list) != "" {
		t.Errorf("%q", got)
	}
}

// A client that follows the run in another process sees the events while the run continues.
func TestEventsAreStoredDuringTheRun(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	b := newBench(t, hangs(proceed, "begin"))
	var list []run.Event
	for e, err := range b.runner.Run(t.Context(), streamed) {
		if err != nil {
			t.Fatal(err)
		}
		if list = append(list, e); e.Name() == "RunContent" && len(list) == 3 {
			runID, _ := members(t, e)["run_id"].(string)
			await(t, func() bool { return strings.Contains(b.frames(runID), `"content":"begin"`) })
			close(proceed)
		}
	}
	if diff := cmp.Diff(sentFrames(list), b.frames(last(list).Result.RunID)); diff != "" {
		t.Error(diff)
	}
}

// await polls until ok returns true. The time limit is far above what any test needs.
func await(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatal("the condition did not become true in a minute")
		}
		select {
		case <-t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// The write fails for a while. A later pulse stores all events.
func TestEventsAreStoredAfterAFailedWrite(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	b := newBench(t, hangs(proceed, "begin"))
	var log syncLog
	b.runner = newRunnerLogging(b.db, agentOnly, b.model, &log)
	b.sql("ALTER TABLE keyway.run_events RENAME TO hidden")
	var list []run.Event
	for e, err := range b.runner.Run(t.Context(), streamed) {
		if err != nil {
			t.Fatal(err)
		}
		if list = append(list, e); e.Name() == "RunContent" && len(list) == 3 {
			runID, _ := members(t, e)["run_id"].(string)
			await(t, func() bool { return strings.Contains(log.String(), "could not store events") })
			b.sql("ALTER TABLE keyway.hidden RENAME TO run_events")
			await(t, func() bool { return b.frames(runID) != "" })
			close(proceed)
		}
	}
	if diff := cmp.Diff(sentFrames(list), b.frames(last(list).Result.RunID)); diff != "" {
		t.Error(diff)
	}
}

func TestAContinuedRunContinuesTheIndices(t *testing.T) {
	t.Parallel()
	d := &guardedTool{}
	b := newBenchWith(t, agentOnly, tools(d.tool(confirm)), calls("", knock), replies("done"))
	first := b.collect(b.runner.Run(t.Context(), streamed))
	runID := last(first).Result.RunID
	var second []run.Event
	for e, err := range b.runner.Continue(t.Context(), ann, storeQuery{RunID: runID},
		approve(t, last(first).Result)) {
		if err != nil {
			t.Fatal(err)
		}
		if got := members(t, e)["event_index"]; got != float64(len(first)+len(second)) {
			t.Errorf("%s has the index %v", e.Name(), got)
		}
		second = append(second, e)
	}
	if diff := cmp.Diff(sentFrames(first)+sentFrames(second), b.frames(runID)); diff != "" {
		t.Error(diff)
	}
}

// awaitEnd waits for the end of a background run and returns its row.
func (b *bench) awaitEnd(runID string) (r store.Run) {
	b.t.Helper()
	await(b.t, func() bool { r = b.row(runID); return wire.Ended(r.Status) })
	return r
}

func TestABackgroundRunIsStoredAtOnceAndContinuesWithoutItsCaller(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	b := newBench(t, hangs(proceed, "begin"))
	b.startWorker(1)
	ctx, cancel := context.WithCancel(t.Context())
	accepted, err := b.runner.Start(ctx, run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"})
	cancel() // The caller disconnects.
	if err != nil || accepted.Status != "PENDING" || accepted.SessionID != "s" {
		t.Fatalf("%+v %v", accepted, err)
	}
	if r := b.row(accepted.RunID); !r.Background || r.Status != "PENDING" && r.Status != "RUNNING" {
		t.Errorf("%+v", r)
	}
	await(t, func() bool { return b.row(accepted.RunID).Status == "RUNNING" })
	close(proceed)
	if r := b.awaitEnd(accepted.RunID); r.Status != "COMPLETED" || *r.Content != "begin and the rest" {
		t.Errorf("%+v", r)
	}
	if _, err := b.runner.Start(t.Context(), run.Input{AgentID: "nope"}); !errors.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
}

// Runs that hang occupy all slots of the worker, so the last run stays pending.
func TestAPendingBackgroundRunCanBeCancelled(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	b := newBench(t, hangs(proceed, "begin"))
	const most = 3
	b.startWorker(most)
	in := run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}
	for range most {
		if _, err := b.runner.Start(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	await(t, func() bool { return len(b.model.requests()) == most })
	waiting, err := b.runner.Start(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := b.runner.Cancel(t.Context(), ann, uuid.MustParse(waiting.RunID)); err != nil || !found {
		t.Fatal(found, err)
	}
	if r := b.row(waiting.RunID); r.Status != "CANCELLED" || *r.CancellationStage != "EXECUTING" || *r.Content != "" {
		t.Errorf("%+v", r)
	}
	close(proceed)
	if err := b.runner.Wait(t.Context()); err != nil || len(b.model.requests()) != most {
		t.Errorf("%v; the model was called %d times", err, len(b.model.requests()))
	}
}

func TestABackgroundRunThatPanicsIsStoredAsFailed(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(context.Context, func(model.Part) bool) error { panic("oops") })
	b.startWorker(1)
	accepted, err := b.runner.Start(t.Context(), run.Input{AgentID: "a", Owner: "ann", Message: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	if r := b.awaitEnd(accepted.RunID); r.Status != "ERROR" || *r.Content != "Internal server error" {
		t.Errorf("%+v", r)
	}
}

func TestTheCallersStateIsMergedIntoTheSession(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("hi"))
	for _, row := range []struct{ state, want string }{
		{`{"a": 1, "b": {"x": 1}}`, `{"a": 1, "b": {"x": 1}}`},
		{"", `{"a": 1, "b": {"x": 1}}`},
		{`{"b": 2, "c": "ü"}`, `{"a": 1, "b": 2, "c": "ü"}`},
	} {
		in := run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi", Metadata: []byte(`{"m":1}`)}
		if row.state != "" {
			in.State = []byte(row.state)
		}
		r := last(b.collect(b.runner.Run(t.Context(), in))).Result
		s, err := b.db.Session(t.Context(), ann, "s", "")
		if string(r.SessionState) != row.want || err != nil || string(s.State) != row.want ||
			string(r.Metadata) != `{"m":1}` {
			t.Errorf("%s: the run has %s, the session %s, %v", row.state, r.SessionState, s.State, err)
		}
	}
}
