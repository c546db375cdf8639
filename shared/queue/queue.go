// Package queue delivers the ids of runs to workers, at least once and in any order. A message is a hint that a run may
// need a process; it holds nothing but the id. The run's row in the database is authoritative: it says whether there is
// anything to execute, and its lease says which process may do so. So a message may be lost, late or delivered twice
// without harm. The package knows no database, no agent and no lease.
package queue

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// Message is a received message. If it is not acknowledged in time, it is delivered again, to any receiver.
type Message struct {
	RunID uuid.UUID
	// Receipt identifies this delivery of the message. It has a meaning only to the queue that delivered it.
	Receipt string
}

// Queue delivers every message at least once, in any order. Package queuetest tests an implementation.
type Queue interface {
	// Enqueue sends a message about a run, to be delivered after a delay. When Enqueue returns without an error, the
	// queue has the message. share names whose share of the processes the run counts in: while the messages of one share
	// wait, those of another one are delivered first. The name is a secret of the caller, so no message contains it.
	Enqueue(ctx context.Context, id uuid.UUID, share string, after time.Duration) error
	// Receive waits for messages and returns at most limit of them. It may return none, without an error, after a while.
	Receive(ctx context.Context, limit int) ([]Message, error)
	// Acknowledge deletes a message, so that it is not delivered again. If the message was delivered again meanwhile,
	// Acknowledge may have no effect.
	Acknowledge(ctx context.Context, m Message) error
}

// Claim acquires the lease of a run for this process, as run.Runner.Claim does. If claimed is true, execute runs it and
// returns at the end. If claimed is false and err is nil, there is nothing to execute.
type Claim func(ctx context.Context, id uuid.UUID) (execute func(), claimed bool, err error)

// retryAfter is how long a worker waits after the queue has failed.
const retryAfter = 2 * time.Second

// Work receives messages, claims their runs and executes at most limit of them at the same time, until ctx ends. Runs
// that were claimed before that continue.
//
// A message is acknowledged as soon as its run is claimed, not when the run ends: from then on the run's lease makes
// sure that the run is not lost. A visibility timeout would have to be longer than the longest run, and a run whose
// process crashed would stay invisible for so long. A message whose claim fails is not acknowledged and is delivered
// again.
func Work(ctx context.Context, q Queue, log *slog.Logger, limit int, claim Claim) {
	slots := make(chan struct{}, limit)
	// slots has an element for each run that is executed, and one while Receive waits. So a worker never receives more
	// messages than it can execute: another worker can have them, and they do not become visible again unclaimed.
	for {
		select {
		case slots <- struct{}{}: // Receive only while a slot is free.
		case <-ctx.Done():
			return
		}
		messages, err := q.Receive(ctx, limit-len(slots)+1)
		if err != nil && ctx.Err() == nil {
			log.Warn("could not receive runs from the queue; will try again", "err", err)
			pause(ctx, retryAfter)
		}
		<-slots
		for _, m := range messages {
			slots <- struct{}{} // It does not block: Receive was asked for no more than the free slots.
			execute, claimed, err := claim(ctx, m.RunID)
			if err == nil {
				err = q.Acknowledge(context.WithoutCancel(ctx), m)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				log.Warn("could not claim a run; its message will be delivered again", "run_id", m.RunID, "err", err)
			}
			if !claimed {
				<-slots
				continue
			}
			go func() {
				defer func() { <-slots }()
				execute()
			}()
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
