// Package local is the queue of servers that share a database. Its messages are the rows of pending runs, so it has no
// table of its own that would have to be kept consistent with the runs.
package local

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/store"
)

const (
	// pollEvery is how soon Receive finds a run that another process enqueued. It finds a run of this process at once.
	pollEvery = time.Second
	// visibility is how long a received message stays invisible before it is delivered again. Claiming a run takes
	// milliseconds, so this is ample.
	visibility = 30 * time.Second
)

// Queue implements queue.Queue.
type Queue struct {
	db *store.DB
	// wake has room for one element. Enqueue fills it to wake a Receive of the same process. More than one element would
	// be useless, because a receiver that is awake reads all visible runs.
	wake chan struct{}
	// last is whose turn was the last one; see store.DB.ReceiveRuns.
	last atomic.Value
}

// New returns a Queue.
func New(db *store.DB) *Queue { return &Queue{db: db, wake: make(chan struct{}, 1)} }

// Enqueue implements queue.Queue. A run that is not PENDING is not enqueued: it needs no process, or has one. Its row
// has its spender, so the share is not needed.
func (q *Queue) Enqueue(ctx context.Context, id uuid.UUID, _ string, after time.Duration) error {
	if err := q.db.EnqueueRun(ctx, id, after); err != nil {
		return err
	}
	select {
	case q.wake <- struct{}{}:
	default: // A receiver is being woken already.
	}
	return nil
}

// Receive implements queue.Queue. If no run is visible, it waits once, for a wake-up or for pollEvery, and returns
// none; the worker calls it again.
func (q *Queue) Receive(ctx context.Context, limit int) (out []queue.Message, err error) {
	last, _ := q.last.Load().(string)
	list, next, err := q.db.ReceiveRuns(ctx, limit, visibility, last)
	q.last.Store(next)
	for _, m := range list {
		// The visibility deadline is the receipt: another delivery of the same run has another deadline.
		out = append(out, queue.Message{RunID: m.RunID, Receipt: m.LeaseUntil.Format(time.RFC3339Nano)})
	}
	if err != nil || len(out) > 0 {
		return out, err
	}
	timer := time.NewTimer(pollEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-q.wake:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, err
}

// Acknowledge implements queue.Queue. A run that was claimed is not PENDING any more, so there is nothing to do for
// it. For a run that could not be claimed it delays the next delivery; see store.AcknowledgeRun.
func (q *Queue) Acknowledge(ctx context.Context, m queue.Message) error {
	until, err := time.Parse(time.RFC3339Nano, m.Receipt)
	if err != nil {
		return err
	}
	return q.db.AcknowledgeRun(ctx, store.Received{RunID: m.RunID, LeaseUntil: until})
}
