package main

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
)

type worker struct {
	runner *run.Runner
	db     *store.DB
	log    *slog.Logger
}

// margin is for the ends of the runs that did not fit.
const margin = 5 * time.Second

// handle answers a batch of messages with those that SQS is to deliver again, and any
// other event, which is the schedule's, with nothing. Each time it looks for runs whose
// process died.
func (w worker) handle(ctx context.Context, data json.RawMessage) (out events.SQSEventResponse, err error) {
	if deadline, limited := ctx.Deadline(); limited {
		earlier, cancel := context.WithDeadline(ctx, deadline.Add(-margin))
		defer cancel()
		ctx = earlier
	}
	if err := w.db.Check(ctx); err != nil { // SQS delivers all of it again
		return out, err
	}
	var batch events.SQSEvent
	_ = json.Unmarshal(data, &batch) // the schedule's event has no records
	var carried sync.WaitGroup
	for _, m := range batch.Records {
		carry, err := w.take(ctx, m.Body)
		if err != nil {
			w.log.WarnContext(ctx, "a run can't be taken", "run_id", m.Body, "err", err)
			out.BatchItemFailures = append(out.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
		if carry != nil {
			carried.Go(carry)
		}
	}
	err = w.requeue(ctx) // what is left behind and was not delivered
	if err != nil && len(batch.Records) > 0 {
		w.log.WarnContext(ctx, "runs that their process left behind can't be taken up yet", "err", err)
		err = nil // what was delivered is carried
	}
	carried.Wait()
	return out, cmp.Or(err, w.runner.Wait(ctx)) // for what was requeued, where no queue takes it
}

// requeue looks for runs whose process died, whatever called: the database is awake.
func (w worker) requeue(ctx context.Context) error {
	n, err := w.runner.Requeue(ctx)
	if n > 0 {
		w.log.WarnContext(ctx, "runs that their process left behind are taken up again", "runs", n)
	}
	return err
}

// take takes the run that a message names, or watches it while somebody else carries it.
// What is no run's id is nobody's.
func (w worker) take(ctx context.Context, body string) (carry func(), err error) {
	id, err := uuid.Parse(body)
	if err != nil {
		w.log.WarnContext(ctx, "a message names no run", "bytes", len(body))
		return nil, nil
	}
	if carry, err = w.runner.Take(ctx, id); err == nil && carry == nil {
		err = w.runner.Watch(ctx, id)
	}
	return carry, err
}
