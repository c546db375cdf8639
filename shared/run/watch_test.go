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

// noting is a queue that only notes what is put into it.
type noting struct {
	queue.Queue
	mu   sync.Mutex
	sent []message
}

type message struct {
	id    string
	after time.Duration
}

func (q *noting) Enqueue(_ context.Context, id uuid.UUID, after time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = append(q.sent, message{id.String(), after})
	return nil
}

func (q *noting) all() []message {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]message{}, q.sent...)
}

// Nobody sweeps: the message is all that knows of the run.
func TestARunLeavesAMessageThatOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	b := newBench(t, hangs(nil, "so far"))
	q := &noting{}
	o := options(b.db, agentOnly, b.model, io.Discard)
	o.Queue, o.Watch = q, true
	r := run.New(o)
	id := ""
	go func() {
		for range r.Run(context.Background(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi"}) { //nolint:revive // it ends with the test
		}
	}()
	await(t, func() bool { return len(q.all()) == 1 })
	first := q.all()[0]
	if id = first.id; first.after < time.Minute || first.after > 80*time.Second {
		t.Errorf("the message comes after %s, and the lease is over after a minute", first.after)
	}
	runID := uuid.MustParse(id)

	// While it is carried, whoever receives the message passes it on.
	second := b.again(t, agentOnly, says("done"))
	if _, claimed, err := r.Claim(t.Context(), runID); err != nil || claimed {
		t.Fatal("it is carried twice", err)
	}
	if err := r.Watch(t.Context(), runID); err != nil || len(q.all()) != 2 {
		t.Fatal(q.all(), err)
	}

	// Its process is gone: the next delivery takes it up.
	b.sql("UPDATE keyway.runs SET lease_until = now() - interval '1 second'")
	if got := b.take(second.runner, id); got.Status != "COMPLETED" || *got.Content != "done" || got.Losses != 1 || got.Attempt != 2 {
		t.Errorf("%+v", got)
	}

	// One that has ended is watched no more.
	if err := r.Watch(t.Context(), runID); err != nil || len(q.all()) != 2 {
		t.Error(q.all(), err)
	}
	if err := r.Watch(t.Context(), uuid.New()); err != nil || len(q.all()) != 2 {
		t.Error(q.all(), err)
	}
}

func TestARunThatIsOverAtOnceLeavesNoMessage(t *testing.T) {
	t.Parallel()
	var got []any
	for range 5 { // on a busy machine a run may last until the pulse
		b := newBench(t, says("done"))
		q := &noting{}
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
