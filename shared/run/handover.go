package run

import (
	"context"
	"errors"
	"time"

	"github.com/keyway-agents/keyway/shared/wire"
)

// errHandedOver ends a run here, for another process to go on with.
var errHandedOver = errors.New("handed over")

// stepRoom is what a step gets at least of the time that this process has left: one that
// is begun with less belongs to the next. Most answers of models take less.
const stepRoom = time.Minute

// late reports whether the next step might not fit. Where the agent's own limit comes
// first there is nobody to whom the run could go.
func (t *turn) late(ctx context.Context) bool {
	end, limited := ctx.Deadline()
	return limited && end.Equal(t.until) && end.Sub(t.r.now()) < stepRoom && t.r.queue != nil
}

// goesOn reports whether the run doesn't end with err, but in another process. A step that was
// cut off is done again there, unless all of this process's time was not enough for it:
// then it would not be there either.
func (t *turn) goesOn(ctx context.Context, err error) bool {
	if t.r.queue == nil || err == nil || errors.Is(err, errPaused) {
		return false
	}
	cause := context.Cause(ctx)
	return errors.Is(err, errHandedOver) || errors.Is(cause, errHandedOver) || errors.Is(cause, errOver) && t.stepped
}

// handOver lets the run wait where its last checkpoint says that it stands.
func (t *turn) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if err := t.r.db.ReleaseRun(ctx, t.held(), t.r.clock()); err != nil {
		t.unstored(err)
		return
	}
	if err := t.r.enqueue(ctx, t.row.RunID); err != nil { // Requeue finds what no queue has
		t.r.log.WarnContext(ctx, "a run that is handed over can't be enqueued yet", "run_id", t.row.RunID, "err", err)
	}
	t.events = nil // what it told since the checkpoint is told again
	t.emit(Event{HandedOver: &wire.Accepted{RunID: t.head.RunID, SessionID: t.row.SessionID, Status: wire.StatusPending}}, nil)
}

// HandOver stops the runs in progress here and has them wait for another process; Wait
// tells when that is done. It gives back how many there are.
func (r *Runner) HandOver() int { return r.live.handOver() }
