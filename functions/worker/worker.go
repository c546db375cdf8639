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

	"github.com/keyway-agents/keyway/shared/lambdaboot"
	"github.com/keyway-agents/keyway/shared/notify"
	"github.com/keyway-agents/keyway/shared/store"
)

// worker handles SQS's batches and the schedule's events.
type worker struct {
	lambdaboot.Worker
	// notices reports runs to the operator's webhook. It is nil without one.
	notices *notify.Sender
	log     *slog.Logger
}

// margin is the time between the deadline of the runs and Lambda's. A run that doesn't
// finish in time stores its state and is handed over to another process; at Lambda's
// deadline this process is ended without notice.
const margin = 5 * time.Second

// handle executes the runs that a batch of messages names, and then looks for orphaned
// runs. Any event without records is the schedule's, and names no run.
//
// It returns the messages that SQS must deliver again (ReportBatchItemFailures). If the
// schema doesn't fit, the error makes SQS deliver the whole batch again. A failure to
// requeue is an error only for the schedule: if the event had records, an error would
// also deliver the runs again that have been executed.
func (w worker) handle(ctx context.Context, data json.RawMessage) (out events.SQSEventResponse, err error) {
	if deadline, limited := ctx.Deadline(); limited {
		earlier, cancel := context.WithDeadline(ctx, deadline.Add(-margin))
		defer cancel()
		ctx = earlier
	}
	if err := w.DB.Check(ctx); err != nil {
		return out, err
	}
	var batch events.SQSEvent
	_ = json.Unmarshal(data, &batch)
	var executed sync.WaitGroup
	for _, m := range batch.Records {
		execute, claimed, err := w.claim(ctx, m.Body)
		if err != nil {
			w.log.WarnContext(ctx, "could not claim a run", "run_id", m.Body, "err", err)
			failure := events.SQSBatchItemFailure{ItemIdentifier: m.MessageId}
			out.BatchItemFailures = append(out.BatchItemFailures, failure)
		}
		if claimed {
			executed.Go(execute)
		}
	}
	err = w.requeue(ctx)
	if err != nil && len(batch.Records) > 0 {
		w.log.WarnContext(ctx, "could not recover orphaned runs", "err", err)
		err = nil
	}
	if len(batch.Records) == 0 {
		err = cmp.Or(err, w.sweep(ctx))
	}
	executed.Wait()
	w.report(ctx)
	// Without a queue that could receive them, requeued runs execute in this process.
	return out, cmp.Or(err, w.Settle(ctx))
}

// sweep deletes data that is too old. It has what is left of the schedule's invocation; the next one continues.
func (w worker) sweep(ctx context.Context) error {
	did, err := w.DB.Sweep(ctx, w.Keep)
	if did != (store.Swept{}) {
		w.log.InfoContext(ctx, "deleted data that is too old", "sessions", did.Sessions, "runs", did.Runs,
			"runs_without_events", did.Events)
	}
	return err
}

// longestDelay is the longest delay of a message in SQS.
const longestDelay = 15 * time.Minute

// report reports what is due to the operator's webhook. For what the webhook has not accepted, it leaves a message that
// wakes a worker at the next try, or after the longest delay. The schedule finds what remains.
func (w worker) report(ctx context.Context) {
	left, err := w.notices.Deliver(ctx)
	if err != nil {
		w.log.WarnContext(ctx, "could not report all notices; they are reported later", "err", err)
	}
	for _, n := range left {
		if w.Queue == nil {
			return
		}
		if err := w.Queue.Enqueue(ctx, n.RunID, n.Owner, min(n.Wait, longestDelay)); err != nil {
			w.log.WarnContext(ctx, "could not leave a message for a notice", "run_id", n.RunID, "err", err)
		}
	}
}

// requeue puts orphaned runs back into the queue. It is called for each event, and not
// only for the schedule's: while there is work, the database is awake anyway, and an
// orphaned run then waits less than the schedule's interval.
func (w worker) requeue(ctx context.Context) error {
	n, err := w.Runner.Requeue(ctx)
	if n > 0 {
		w.log.WarnContext(ctx, "recovered orphaned runs", "runs", n)
	}
	return err
}

// claim claims the run that a message names. While another process executes the run,
// claim watches it instead: it sends the message again, to arrive when the lease of that
// process expires. A message without a run id is dropped.
func (w worker) claim(ctx context.Context, body string) (execute func(), claimed bool, err error) {
	id, err := uuid.Parse(body)
	if err != nil {
		w.log.WarnContext(ctx, "a message contains no run id", "bytes", len(body))
		return nil, false, nil
	}
	if execute, claimed, err = w.Runner.Claim(ctx, id); err == nil && !claimed {
		err = w.Runner.Watch(ctx, id)
	}
	return execute, claimed, err
}
