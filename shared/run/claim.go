package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/store"
)

// MaxCrashes is how many processes may crash while they execute a run before the run itself is assumed to be the
// cause. Then it ends in ERROR, so that one bad run cannot crash every process in turn.
const MaxCrashes = 3

// Claim tries to acquire the lease of a PENDING run, or of a RUNNING run whose lease expired. At most one caller
// succeeds, and while the lease is valid no other can. Errors are those of the database.
//
// If claimed is true, the caller must call execute, which returns when this attempt has ended. If claimed is false
// and err is nil, there is nothing to execute: the run does not exist, is paused, has ended or is executed by another
// process; or Claim itself ended it, because it was cancelled, is no longer allowed, or crashed too many processes.
//
// After a successful claim only ctx's deadline is honoured, not its cancellation: a worker that stops receiving must
// not interrupt the runs that it has claimed.
func (r *Runner) Claim(ctx context.Context, id uuid.UUID) (execute func(), claimed bool, err error) {
	row, claimed, err := r.db.ClaimRun(ctx, id, r.dbNow())
	if err != nil || !claimed {
		return nil, false, err
	}
	x, known := r.executionOf(row)
	at, saved, err := x.restore()
	if err == nil || row.CancelRequested {
		err = r.refusal(row, known)
	}
	if err != nil {
		endCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		if errors.Is(err, errCancelled) {
			cancel(err) // finish takes the status CANCELLED from the context's cause.
		}
		x.finish(endCtx, err)
		cancel(nil)
		return nil, false, nil
	}
	ctx, unregister := r.registry.register(ctx, x)
	return func() {
		defer unregister()
		defer func() { // The panic has no caller who could handle it, and must not end the other runs of this process.
			if p := recover(); p != nil {
				r.log.Error("a run panicked", "run_id", x.row.RunID, "panic", p)
			}
		}()
		r.executeFrom(ctx, x, at, saved)
	}, true, nil
}

// refusal returns why a claimed run must end without being executed, or nil. known is false if the run's agent is not
// declared. The authorization decision comes last, so that the caller sees the more specific reason.
func (r *Runner) refusal(row store.Run, known bool) error {
	switch {
	case row.CancelRequested:
		return errCancelled
	case row.Losses >= MaxCrashes:
		text := fmt.Sprintf("The server stopped %d times while this run was in progress; it is not tried again", MaxCrashes)
		return fault.Public(fault.Internal, text, nil)
	case !known:
		return fault.Public(fault.NotFound, "The agent "+row.AgentID+" is not declared any more", nil)
	}
	return r.checkStillAllowed(row.Caller)
}

// executionOf makes the execution of a claimed row. known is false if its agent is not declared any more; then the
// execution can only be ended.
func (r *Runner) executionOf(row store.Run) (x *execution, known bool) {
	agent, known := r.agents[row.AgentID]
	if known {
		x = r.newExecution(agent, agent.Model.Describe(), row)
	} else {
		agent = Agent{Agent: config.Agent{ID: row.AgentID, Name: row.AgentName}}
		x = r.newExecution(agent, model.Description{ID: row.ModelID, Provider: row.ModelProvider}, row)
	}
	x.index = store.FirstIndex(row.Attempt)
	return x, known
}

// executeFrom continues a claimed run from its checkpoint. There are three cases: no step was saved and the run was
// not paused (it starts again), no step was saved since the run was continued (the decisions are applied again), or a
// step was saved (the next one follows).
func (r *Runner) executeFrom(ctx context.Context, x *execution, at checkpoint, saved bool) {
	if !saved && at.Answers == nil {
		r.execute(ctx, x)
		return
	}
	ctx, stop := x.withTimeLimit(ctx)
	defer stop()
	defer x.recordPanic(ctx)
	if !saved {
		x.emitContinued()
		x.finish(ctx, r.applyAnswers(ctx, x, at.Answers))
		return
	}
	messages, err := r.conversationSoFar(ctx, x)
	if err == nil {
		err = r.converse(ctx, x, messages, at.PendingCalls)
	}
	x.finish(ctx, err)
}

// Requeue recovers orphaned runs by putting them into the queue: runs whose lease expired because their process
// crashed, and pending runs whose message seems lost. It returns how many there are. A server calls it at its start
// and regularly; on Lambda the worker calls it at each invocation.
func (r *Runner) Requeue(ctx context.Context) (int, error) {
	ids, err := r.db.RequeueExpired(ctx, r.dbNow())
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if err := r.enqueue(ctx, id); err != nil {
			return len(ids), err // The rest counts as lost by the queue after a while, and is then requeued.
		}
	}
	return len(ids), nil
}

// enqueue puts a pending run into the queue. Without a queue, this process claims and executes it at once.
func (r *Runner) enqueue(ctx context.Context, id uuid.UUID) error {
	if r.queue != nil {
		return r.queue.Enqueue(ctx, id, 0)
	}
	execute, claimed, err := r.Claim(ctx, id)
	if claimed {
		go execute()
	}
	return err
}

// watchMargin is added to the end of a lease before a watching message is delivered, because clocks of different
// machines differ.
const watchMargin = 15 * time.Second

// Watch sends a delayed message about a running run, to be delivered when its lease would expire. The receiver calls
// Claim. If the lease was renewed meanwhile, Claim does nothing and the receiver calls Watch again. If the
// process crashed, Claim continues the run. So a run is recovered even if no process looks for orphaned runs. Watch
// does nothing for a run that is not running, and without a queue. See docs/adr/0010.
func (r *Runner) Watch(ctx context.Context, id uuid.UUID) error {
	until, running, err := r.db.LeaseOf(ctx, id)
	if err != nil || !running || r.queue == nil {
		return err
	}
	return r.queue.Enqueue(ctx, id, until.Sub(r.now())+watchMargin)
}

// dbNow is the present time as the database stores it. Lease times are compared in SQL, so they must not lose digits
// on the way there.
func (r *Runner) dbNow() time.Time { return pgvalue.Time(r.now()) }
