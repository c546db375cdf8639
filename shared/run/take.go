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
	"github.com/keyway-agents/keyway/shared/store"
)

// MaxLosses is how many processes may die of a run before it counts as what kills them.
const MaxLosses = 3

// Take makes a run that waits, or whose process died, this process's own: of several who try, one succeeds,
// and until its lease is over nobody else can. carry takes it to its end; it is nil
// when there is nothing (more) to do: the run doesn't wait, or was ended here, since
// it was cancelled, is no longer allowed, or killed its process too often. Of ctx only
// the deadline counts once the run is taken.
func (r *Runner) Take(ctx context.Context, id uuid.UUID) (carry func(), err error) {
	row, taken, err := r.db.TakeRun(ctx, id, r.clock())
	if err != nil || !taken {
		return nil, err
	}
	t, known := r.turnOf(row)
	at, began, err := t.restore()
	switch {
	case row.CancelRequested:
		err = errCancelled
	case err != nil:
	case row.Losses >= MaxLosses:
		err = fault.Public(fault.Internal, fmt.Sprintf("The server stopped %d times while this run was in progress; it is not tried again", MaxLosses), nil)
	case !known:
		err = fault.Public(fault.NotFound, "The agent "+row.AgentID+" is not declared any more", nil)
	default:
		err = r.admitted(row.Caller)
	}
	if err != nil {
		ended, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		if errors.Is(err, errCancelled) {
			cancel(err)
		}
		t.end(ended, err)
		cancel(nil)
		return nil, nil
	}
	ctx, leave := r.live.enter(ctx, t)
	return func() {
		defer leave()
		defer func() { // there is no caller to whom a panic could go
			if p := recover(); p != nil {
				r.log.Error("a run panicked", "run_id", t.row.RunID, "panic", p)
			}
		}()
		r.goAhead(ctx, t, at, began)
	}, nil
}

// turnOf makes the turn of a taken row. known is false when its agent is gone.
func (r *Runner) turnOf(row store.Run) (t *turn, known bool) {
	agent, known := r.agents[row.AgentID]
	if known {
		t = r.newTurn(agent, agent.Model.Describe(), row)
	} else {
		t = r.newTurn(Agent{Agent: config.Agent{ID: row.AgentID, Name: row.AgentName}}, model.Description{ID: row.ModelID, Provider: row.ModelProvider}, row)
	}
	t.index = store.FirstIndex(row.Attempt)
	return t, known
}

// goAhead carries a run on from where it stands.
func (r *Runner) goAhead(ctx context.Context, t *turn, at checkpoint, began bool) {
	if !began && at.Answers == nil {
		r.carry(ctx, t)
		return
	}
	ctx, stop := t.limited(ctx)
	defer stop()
	defer t.panicked(ctx)
	if !began {
		t.continuing()
		t.end(ctx, r.carryOn(ctx, t, at.Answers))
		return
	}
	messages, err := r.recalled(ctx, t)
	if err == nil {
		err = r.converse(ctx, t, messages, at.Asked)
	}
	t.end(ctx, err)
}

// Requeue hands the runs whose process died to the queue, and tells how many there
// were.
func (r *Runner) Requeue(ctx context.Context) (int, error) {
	ids, err := r.db.RequeueExpired(ctx, r.clock())
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if err := r.enqueue(ctx, id); err != nil {
			return len(ids), err // the rest counts as lost by the queue after a while
		}
	}
	return len(ids), nil
}

// enqueue has a run that waits taken by somebody; without a queue that is this process.
func (r *Runner) enqueue(ctx context.Context, id uuid.UUID) error {
	if r.queue != nil {
		return r.queue.Enqueue(ctx, id, 0)
	}
	carry, err := r.Take(ctx, id)
	if carry != nil {
		go carry()
	}
	return err
}

// watchMargin is how long after the end of its lease a run is looked at: clocks differ.
const watchMargin = 15 * time.Second

// Watch has the queue deliver a run that is in progress when its lease could be over. As
// long as it is renewed, whoever receives it watches on; without it, Take takes it.
func (r *Runner) Watch(ctx context.Context, id uuid.UUID) error {
	until, carried, err := r.db.LeaseOf(ctx, id)
	if err != nil || !carried || r.queue == nil {
		return err
	}
	return r.queue.Enqueue(ctx, id, until.Sub(r.now())+watchMargin)
}

// clock is the time as the database keeps it.
func (r *Runner) clock() time.Time { return r.now().UTC().Truncate(time.Microsecond) }
