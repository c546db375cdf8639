// Package queue hands runs to whoever has time for them: a message is the id of a
// run that waits, or that may have been left behind by then, and nothing else. What a run is and who may run it stands in its
// row.
// It knows no database, no agent and no lease: a message says that somebody should
// look at a run, never that nobody else does.
package queue

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// Message is a received message. It is received again, by anybody, when it isn't
// acknowledged in time.
type Message struct {
	RunID   uuid.UUID
	Receipt string // of this delivery
}

// Queue delivers every message at least once, in any order.
type Queue interface {
	// Enqueue puts a run into the queue, to be received after that time at the earliest.
	// Without an error it is there.
	Enqueue(ctx context.Context, id uuid.UUID, after time.Duration) error
	// Receive waits for messages and gives at most limit of them, at least one or an
	// error. It may also give none, after a while.
	Receive(ctx context.Context, limit int) ([]Message, error)
	// Acknowledge says that a message need not be delivered again. Of one that was
	// delivered again meanwhile it may mean nothing.
	Acknowledge(ctx context.Context, m Message) error
}

// Claim acquires the lease of a run for this process. If claimed is true, execute runs it; if claimed is false and
// err is nil, there is nothing to execute.
type Claim func(ctx context.Context, id uuid.UUID) (execute func(), claimed bool, err error)

// retryAfter is how long a worker leaves a queue alone that failed.
const retryAfter = 2 * time.Second

// Work carries what the queue delivers, at most most at once, until ctx ends; what was
// taken until then goes on. A message is acknowledged as soon as its run is taken:
// from then on the run's lease, not the queue, sees to it that it isn't lost.
func Work(ctx context.Context, q Queue, log *slog.Logger, most int, claim Claim) {
	places := make(chan struct{}, most)
	for {
		select {
		case places <- struct{}{}: // one is held while nothing is received
		case <-ctx.Done():
			return
		}
		messages, err := q.Receive(ctx, most-len(places)+1)
		if err != nil && ctx.Err() == nil {
			log.Warn("runs can't be received", "err", err)
			pause(ctx, retryAfter)
		}
		<-places
		for _, m := range messages {
			places <- struct{}{} // free: no more were asked for
			execute, claimed, err := claim(ctx, m.RunID)
			if err == nil {
				err = q.Acknowledge(context.WithoutCancel(ctx), m)
			}
			if err != nil && !errors.Is(err, context.Canceled) { // it is delivered again
				log.Warn("could not claim a run", "run_id", m.RunID, "err", err)
			}
			if !claimed {
				<-places
				continue
			}
			go func() {
				defer func() { <-places }()
				execute()
			}()
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
