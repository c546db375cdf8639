package run_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/run"
)

// recordingQueue records the messages that are sent.
type recordingQueue struct {
	queue.Queue
	mu   sync.Mutex
	sent []message
}

type message struct {
	id    string
	share string
	after time.Duration
}

func (q *recordingQueue) Enqueue(_ context.Context, id uuid.UUID, share string, after time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = append(q.sent, message{id.String(), share, after})
	return nil
}

func (q *recordingQueue) all() []message {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]message{}, q.sent...)
}

// No process calls Requeue; only the message leads to the run.
func TestARunIsRecoveredByItsDelayedMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	q := &recordingQueue{}
	o := options(b.db, agentOnly, b.model, io.Discard)
	o.Queue, o.Watch = q, true
	r := run.New(o)
	id := ""
	go func() {
		in := run.Input{AgentID: "a", Owner: "ann", Spender: "admin", SessionID: "s", Message: "hi"}
		for range r.Run(context.Background(), in) {
			// The run ends with the test.
		}
	}()
	await(t, func() bool { return len(q.all()) == 1 })
	first := q.all()[0]
	if first.share != "admin" {
		t.Errorf("the message counts in the share of %q", first.share)
	}
	if id = first.id; first.after < time.Minute || first.after > 80*time.Second {
		t.Errorf("the message is delayed by %s, and the lease expires after a minute", first.after)
	}
	runID := uuid.MustParse(id)

	// While the run is executed, the receiver sends the message again.
	second := b.withModel(t, agentOnly, replies("done"))
	if _, claimed, err := r.Claim(t.Context(), runID); err != nil || claimed {
		t.Fatal("the run was claimed twice", err)
	}
	if err := r.Watch(t.Context(), runID); err != nil || len(q.all()) != 2 {
		t.Fatal(q.all(), err)
	}

	// The process has crashed: the receiver of the next delivery claims the run.
	b.sql("UPDATE keyway.runs SET lease_until = now() - interval '1 second'")
	if got := b.claimAndExecute(second.runner, id); got.Status != "COMPLETED" || *got.Content != "done" ||
		got.Losses != 1 || got.Attempt != 2 {
		t.Errorf("%+v", got)
	}

	// A run that has ended gets no further message.
	if err := r.Watch(t.Context(), runID); err != nil || len(q.all()) != 2 {
		t.Error(q.all(), err)
	}
	if err := r.Watch(t.Context(), uuid.New()); err != nil || len(q.all()) != 2 {
		t.Error(q.all(), err)
	}
}

func TestAShortRunSendsNoMessage(t *testing.T) {
	t.Parallel()
	var got []any
	for range 5 { // On a busy machine a run may last until the pulse.
		b := newBench(t, replies("done"))
		q := &recordingQueue{}
		o := options(b.db, agentOnly, b.model, io.Discard)
		o.Queue, o.Watch = q, true
		b.runner = run.New(o)
		b.run("hi")
		if len(q.all()) == 0 {
			return
		}
		got = append(got, q.all())
	}
	t.Errorf("%+v", got)
}
