package run

import (
	"context"
	"errors"
	"time"

	"github.com/keyway-agents/keyway/shared/wire"
)

// A process that knows its deadline hands its runs over: it makes them PENDING at their last checkpoint and puts them
// into the queue, and another process claims them at once. On Lambda the deadline is that of the invocation; a server
// hands over when it is stopped. A crash cannot do that: its runs continue only after their leases expire, and the
// crash is counted in `losses`. A hand-over is not counted: a long run may be handed over as often as it needs, but it
// may crash only MaxCrashes processes. See docs/adr/0009.

// errHandedOver ends an execution whose run another process continues.
var errHandedOver = errors.New("handed over")

// minStepTime is the time that a process must have left to start another step. With less, it hands the run over
// instead of starting a step that the deadline would interrupt. Most model answers take less than a minute.
const minStepTime = time.Minute

// tooLateForNextStep reports whether the run should be handed over now, because its next step might not finish
// before this process's deadline. It is false without a queue, since no other process would receive the run. It is
// false too if ctx ends at the agent's own time limit, because that limit would end the run in any process.
func (x *execution) tooLateForNextStep(ctx context.Context) bool {
	end, limited := ctx.Deadline()
	return limited && end.Equal(x.deadline) && end.Sub(x.r.now()) < minStepTime && x.r.queue != nil
}

// shouldHandOver reports whether another process should continue the run after err. A step that was interrupted is
// repeated there, unless it already had this process's full time (savedStep is false): a step for which one process's
// time is too short would be repeated without end, so it ends the run.
func (x *execution) shouldHandOver(ctx context.Context, err error) bool {
	if x.r.queue == nil || err == nil || errors.Is(err, errPaused) {
		return false
	}
	cause := context.Cause(ctx)
	return errors.Is(err, errHandedOver) || errors.Is(cause, errHandedOver) ||
		errors.Is(cause, errStepTooLong) && x.savedStep
}

// handOver makes the run PENDING at its last checkpoint, puts it into the queue and reports Event.HandedOver to the
// consumer. The row is released first: a worker that received the message earlier would find a valid lease and do
// nothing. If this process crashes between the two, Requeue finds the run.
func (x *execution) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if err := x.r.db.ReleaseRun(ctx, x.attempt(), x.r.dbNow()); err != nil {
		x.emitUnstored(err)
		return
	}
	if err := x.r.enqueue(ctx, x.row.RunID); err != nil { // Requeue finds the run after a while.
		x.r.log.WarnContext(ctx, "could not enqueue a run after its hand-over; it will be enqueued again later",
			"run_id", x.row.RunID, "err", err)
	}
	// Events since the checkpoint are not stored: the next attempt repeats that step and sends them again.
	x.events = nil
	x.deliver(Event{HandedOver: &wire.Accepted{
		RunID: x.head.RunID, SessionID: x.row.SessionID, Status: wire.StatusPending,
	}}, nil)
}

// HandOver stops the runs that this process executes and hands each over to another process. It returns how many
// there are. Wait returns when all of them are handed over.
func (r *Runner) HandOver() int { return r.registry.handOver() }
