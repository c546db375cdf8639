package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// MaxCrashes is how many processes may crash while they execute a run before the run itself is assumed to be the
// cause. Then it ends in ERROR, so that one bad run cannot crash every process in turn.
const MaxCrashes = 3

// Claim tries to acquire the lease of a PENDING run, or of a RUNNING run whose lease expired. At most one caller
// succeeds, and while the lease is valid no other can. Errors are those of the database.
//
// If claimed is true, the caller must call execute, which returns when this leg has ended. If claimed is false
// and err is nil, there is nothing to execute: the run does not exist, is paused, has ended or is executed by another
// process; it waits for a place, and Claim has enqueued it again; or Claim itself ended it, because it was cancelled,
// is no longer allowed, or crashed too many processes.
//
// After a successful claim only ctx's deadline is honoured, not its cancellation: a worker that stops receiving must
// not interrupt the runs that it has claimed.
func (r *Runner) Claim(ctx context.Context, id uuid.UUID) (execute func(), claimed bool, err error) {
	legID := r.newID()
	row, claimed, err := r.db.ClaimRun(context.WithoutCancel(ctx), id, legID, r.places)
	if store.Transient(err) {
		// The claim may have happened although no answer came. Without another try, nobody would execute the run until its
		// lease expires, and the next claim would count a crash.
		row, claimed, err = r.db.ClaimRun(context.WithoutCancel(ctx), id, legID, r.places)
	}
	if full, ok := errors.AsType[*store.NoPlace](err); ok {
		return nil, false, r.claimLater(ctx, id, full)
	}
	if err != nil || !claimed {
		return nil, false, err
	}
	agent, known := r.agents[row.AgentID]
	if !known { // The run can only be ended.
		agent = Agent{Agent: config.Agent{ID: row.AgentID, Name: row.AgentName}}
	}
	l := r.newLeg(agent, row)
	var at position
	l.state, at, err = restore(l.row)
	if err == nil || row.CancelRequested {
		l.caller, err = r.refusal(row, known)
	}
	ctx, stop := l.enter(ctx, legID)
	if err != nil {
		defer stop()
		l.finish(context.Background(), err)
		return nil, false, nil
	}
	return func() {
		defer stop()
		defer func() { // The panic has no caller who could handle it, and must not end the other runs of this process.
			if p := recover(); p != nil {
				r.log.Error("a run panicked", "run_id", row.RunID, "panic", logging.Panicked(p))
			}
		}()
		l.execute(ctx, at)
	}, true, nil
}

// claimLater has a run claimed again that waits until its caller, its agent or the OS has fewer runs in progress.
func (r *Runner) claimLater(ctx context.Context, id uuid.UUID, full *store.NoPlace) error {
	if r.queue != nil {
		return r.queue.Enqueue(ctx, id, full.Spender, full.Wait)
	}
	time.AfterFunc(full.Wait, func() {
		// Requeue finds the run after a while if this fails.
		if err := r.enqueue(context.WithoutCancel(ctx), id, full.Spender); err != nil {
			r.log.Warn("could not start a run that waited; it will be started later", "run_id", id, "err", err)
		}
	})
	return nil
}

// refusal returns why a claimed run must end without being executed, or nil and the recorded caller. known is false if
// the run's agent is not declared. The authorization decision comes last, so that the caller sees the more specific
// reason.
func (r *Runner) refusal(row store.Run, known bool) (c Caller, err error) {
	switch {
	case row.CancelRequested:
		return c, errCancelled
	case row.Losses >= MaxCrashes:
		text := fmt.Sprintf("The server stopped %d times while this run was in progress; it is not tried again", MaxCrashes)
		return c, fault.Public(fault.Internal, text, nil)
	case !known:
		return c, fault.Public(fault.NotFound, "The agent "+row.AgentID+" is not declared any more", nil)
	}
	return r.checkStillAllowed(row.Caller)
}

// checkStillAllowed repeats the authorization decision for the caller that is recorded in a run's row. Its error is
// fault.Forbidden with a text for the caller. Rows from versions that did not record a caller are denied.
func (r *Runner) checkStillAllowed(recorded json.RawMessage) (c Caller, err error) {
	if recorded == nil {
		return c, fault.Public(fault.Forbidden, "The server stopped while this run was in progress, and the run was started "+
			"by an older version that did not record its caller; start the run again", nil)
	}
	if err := json.Unmarshal(recorded, &c); err != nil {
		return c, fmt.Errorf("caller: %w", err)
	}
	if err := r.admit(c); err != nil {
		return c, fault.Public(fault.Forbidden, "The run is no longer allowed: "+fault.Detail(err), err)
	}
	return c, nil
}

// Start runs an agent in the background, for a client that does not want to wait. When it returns without an error,
// the run is recorded as PENDING and in the queue, for a worker to claim. Errors are those of Run before its first
// event.
func (r *Runner) Start(ctx context.Context, in Input) (wire.Accepted, error) {
	l, err := r.newRun(in, wire.StatusPending, 0)
	if err == nil {
		err = r.begin(ctx, l, nil, in)
	}
	if err != nil {
		return wire.Accepted{}, err
	}
	// The run is accepted even if the queue is down: Requeue finds pending runs without a message.
	if err := r.enqueue(ctx, l.row.RunID, l.row.Spender); err != nil {
		r.log.WarnContext(ctx, "could not enqueue a new run; it will be enqueued again later",
			"run_id", l.row.RunID, "err", err)
	}
	return wire.Accepted{RunID: l.row.RunID.String(), SessionID: l.row.SessionID, Status: wire.StatusPending}, nil
}

// enqueue puts a pending run into the queue. Without a queue, this process claims and executes it at once.
func (r *Runner) enqueue(ctx context.Context, id uuid.UUID, spender string) error {
	if r.queue != nil {
		return r.queue.Enqueue(ctx, id, spender, 0)
	}
	execute, claimed, err := r.Claim(ctx, id)
	if claimed {
		go execute()
	}
	return err
}

// Cancel sets the mark in the database first, so that the cancellation survives a crash of either process. From then
// on, the run can end only as CANCELLED. It is stopped at once if this process executes it, and within a second if
// another process does. A pending or paused run ends here. Cancel reports whether the viewer has such a run; one that
// has ended stays as it is.
func (r *Runner) Cancel(ctx context.Context, v store.Viewer, id uuid.UUID) (bool, error) {
	found, err := r.db.RequestCancel(ctx, v, id)
	if err != nil || !found {
		return found, err
	}
	for _, l := range r.registry.of(id) {
		l.cancel(errCancelled)
	}
	_, _, err = r.Claim(ctx, id) // Claim ends a pending run that is to be cancelled.
	return true, err
}

// CancelAll is Cancel for the runs of a query, at most store.MaxCancelled of them. It returns how many are to be
// cancelled or have been, and whether there are more. If it returns an error after some of them were marked, these end
// all the same, when a process claims them; so a call can be repeated.
func (r *Runner) CancelAll(ctx context.Context, v store.Viewer, q store.ActiveQuery) (n int, more bool, err error) {
	marked, more, err := r.db.RequestCancelAll(ctx, v, q)
	if err != nil {
		return 0, false, err
	}
	for _, m := range marked {
		for _, l := range r.registry.of(m.RunID) {
			l.cancel(errCancelled)
		}
	}
	for _, m := range marked {
		if !m.Waits {
			continue
		}
		if _, _, err := r.Claim(ctx, m.RunID); err != nil {
			return 0, false, err
		}
	}
	return len(marked), more, nil
}

// Requeue recovers orphaned runs by putting them into the queue: runs whose lease expired because their process
// crashed, and pending runs whose message seems lost. It returns how many there are. A server calls it at its start
// and regularly; on Lambda the worker calls it at each invocation.
func (r *Runner) Requeue(ctx context.Context) (int, error) {
	orphans, err := r.db.RequeueExpired(ctx)
	if err != nil {
		return 0, err
	}
	for _, o := range orphans {
		if err := r.enqueue(ctx, o.RunID, o.Spender); err != nil {
			return len(orphans), err // The rest counts as lost by the queue after a while, and is then requeued.
		}
	}
	return len(orphans), nil
}

// Watch sends a delayed message about a running run, to be delivered when its lease would expire. The receiver calls
// Claim. If the lease was renewed meanwhile, Claim does nothing and the receiver calls Watch again. If the
// process crashed, Claim continues the run. So a run is recovered even if no process looks for orphaned runs. Watch
// does nothing for a run that is not running, and without a queue. See docs/adr/0010.
func (r *Runner) Watch(ctx context.Context, id uuid.UUID) error { return watch(ctx, r.db, r.queue, id) }
