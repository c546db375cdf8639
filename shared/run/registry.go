package run

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/store"
)

// The causes with which the registry ends a leg: the run is to be cancelled, was deleted with its session, belongs to
// another process now or soon, or is to be handed over to one.
var (
	errCancelled = errors.New("run cancelled")
	errDeleted   = errors.New("run deleted")
	errLost      = errors.New("the run belongs to another process, or the lease could not be renewed")
	errHandOver  = errors.New("hand over the run")
)

const (
	// pulseEvery is how soon a cancellation by another process is noticed, and how far a client that follows the run in
	// another process is behind. Each pulse costs one or two statements, whatever the number of runs.
	pulseEvery = 500 * time.Millisecond
	// renewEvery is the time between two renewals of a lease. It is a third of LeaseDuration, so a failed renewal can be
	// repeated before the lease expires.
	renewEvery = 20 * time.Second
	// A lease that could not be renewed for abandonAfter is treated as lost, so that this process has stopped the run
	// before the lease expires and another process claims it.
	abandonAfter = store.LeaseDuration - 10*time.Second
	// pulseTimeout bounds the statements of one pulse.
	pulseTimeout = 5 * time.Second
	// watchMargin is added to the end of a lease before a watching message is delivered, because the process that
	// crashed may still have been renewing it.
	watchMargin = 15 * time.Second
)

// registry holds the legs that this process executes. While there are any, the pulse does three things for all of them
// at once: it renews their leases, reads which runs were cancelled or lost, and stores their events. So the number of
// statements does not grow with the number of runs, and no connection to the database is held while a model answers.
//
// Leases and events have goroutines of their own, and neither waits for a locked row. So an event batch or a checkpoint
// that hangs delays no lease, and a run whose row is locked delays no other run.
type registry struct {
	db    *store.DB
	log   *slog.Logger
	now   func() time.Time
	queue queue.Queue // of the watching messages; nil if runs leave none

	mu sync.Mutex
	// leases has an entry for each leg, not for each run: a paused leg may still deliver its last event while the next
	// leg of the run has begun.
	leases map[store.Leg]*lease
	// stop is closed when the last lease is removed. It is nil while there are none.
	stop chan struct{}
}

// lease is the right of a leg to write its run.
type lease struct {
	store.Leg
	// ctx ends when the lease is lost. The leg's writes use it. Its execution uses a context below it, which cancel ends.
	ctx    context.Context
	lose   context.CancelCauseFunc
	cancel context.CancelCauseFunc
	events *eventLog // nil if the run is not streamed
	// renewed is when the lease was last renewed, and watchFrom when a watching message is due, or zero if none is. The
	// registry's lock guards them.
	renewed, watchFrom time.Time
}

// newRegistry returns an empty registry. The pulse starts with the first leg, so an idle process sends no statements.
func newRegistry(db *store.DB, log *slog.Logger, now func() time.Time) *registry {
	return &registry{db: db, log: log, now: now, leases: map[store.Leg]*lease{}}
}

// enter adds a leg. Its context can then be cancelled by cancel and by a lost lease, but not by the cancellation of
// ctx: a client that disconnects does not stop its run. The caller must call leave when the leg has ended.
func (g *registry) enter(ctx context.Context, leg store.Leg, events *eventLog) (context.Context, *lease) {
	l := &lease{Leg: leg, events: events, renewed: g.now()}
	l.ctx, l.lose = context.WithCancelCause(context.WithoutCancel(ctx))
	ctx, l.cancel = context.WithCancelCause(l.ctx)
	if g.queue != nil {
		l.watchFrom = l.renewed // The first pulse sends the message, so that a run shorter than that needs none.
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leases[leg] = l
	if g.stop == nil {
		g.stop = make(chan struct{})
		go g.pulse(g.stop) // #nosec G118 -- it outlives the run that started it
	}
	return ctx, l
}

// leave removes a leg. It may be called again.
func (g *registry) leave(l *lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leases[l.Leg] != l {
		return
	}
	delete(g.leases, l.Leg)
	if len(g.leases) == 0 {
		close(g.stop)
		g.stop = nil
	}
}

// expired reports whether the lease may have expired, for example because this process was suspended.
func (g *registry) expired(l *lease) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now().Sub(l.renewed) >= abandonAfter
}

// of returns the leases of one run.
func (g *registry) of(id uuid.UUID) (list []*lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for leg, l := range g.leases {
		if leg.RunID == id {
			list = append(list, l)
		}
	}
	return list
}

// handOver stops every run, for other processes to continue, and returns how many there are. Each run hands itself
// over in its own goroutine, when its model or tool has returned; wait returns when all have done so.
func (g *registry) handOver() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.leases {
		l.cancel(errHandOver)
	}
	return len(g.leases)
}

// wait returns when the registry is empty, or with the cause of ctx's end. It looks again after each wake-up, because
// a new leg may have been entered meanwhile.
func (g *registry) wait(ctx context.Context) error {
	for {
		g.mu.Lock()
		stop := g.stop
		g.mu.Unlock()
		if stop == nil {
			return nil
		}
		select {
		case <-stop:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pulse calls keepLeases and storeEvents regularly until stop is closed. It never waits for the database, so it
// abandons leases in time even if the database hangs.
func (g *registry) pulse(stop <-chan struct{}) {
	ticker := time.NewTicker(pulseEvery)
	defer ticker.Stop()
	var keeping, storing atomic.Bool
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		g.mu.Lock()
		leases := slices.Collect(maps.Values(g.leases))
		g.mu.Unlock()
		leases = slices.DeleteFunc(leases, g.abandon)
		alone(&keeping, func() { g.keepLeases(leases) })
		alone(&storing, func() { g.storeEvents(leases) })
	}
}

// alone calls f in a goroutine of its own, unless the previous call of the same kind is still busy.
func alone(busy *atomic.Bool, f func()) {
	if busy.CompareAndSwap(false, true) {
		go func() {
			defer busy.Store(false)
			f()
		}()
	}
}

// abandon gives up a lease that could not be renewed in time, and reports whether it did.
func (g *registry) abandon(l *lease) bool {
	if !g.expired(l) {
		return false
	}
	if l.ctx.Err() == nil {
		g.log.Warn("stopped a run because its lease could not be renewed", "run_id", l.RunID)
	}
	l.lose(errLost)
	return true // Its later events belong to no valid leg, and are not stored.
}

// keepLeases renews the leases, all together if one is due since that is one statement anyway, and stops the legs whose
// run was cancelled, deleted or claimed by another process. A database that fails here stops no run: the lease outlives
// several pulses.
func (g *registry) keepLeases(leases []*lease) {
	ctx, done := context.WithTimeout(context.Background(), pulseTimeout)
	defer done()
	now, renew := g.now(), false
	legs := make([]store.Leg, len(leases))
	g.mu.Lock()
	for i, l := range leases {
		legs[i] = l.Leg
		renew = renew || now.Sub(l.renewed) >= renewEvery
	}
	g.mu.Unlock()
	pulses, err := g.db.Pulse(ctx, legs, renew)
	if err != nil {
		g.log.Warn("could not read cancellations or renew leases; will try again", "runs", len(legs), "err", err)
		return
	}
	g.mu.Lock()
	for i, p := range pulses {
		switch l := leases[i]; {
		case p.Deleted:
			l.lose(errDeleted)
		case p.Lost:
			l.lose(errLost)
		default:
			if p.Cancel {
				l.cancel(errCancelled)
			}
			if p.Renewed { // The time is that before the statement, so the lease in the database never ends earlier.
				l.renewed = now
			}
		}
	}
	g.mu.Unlock()
	g.sendWatches(ctx, leases, now)
}

// sendWatches sends the watching messages that are due. One that cannot be sent is tried again after renewEvery; if the
// process crashes before, the run is found by Requeue instead.
func (g *registry) sendWatches(ctx context.Context, leases []*lease, now time.Time) {
	for _, l := range leases {
		g.mu.Lock()
		due := !l.watchFrom.IsZero() && !now.Before(l.watchFrom)
		g.mu.Unlock()
		if !due {
			continue
		}
		next := time.Time{}
		if err := watch(ctx, g.db, g.queue, l.RunID); err != nil {
			g.log.Warn("could not enqueue the message that watches a run; will try again", "run_id", l.RunID, "err", err)
			next = now.Add(renewEvery)
		}
		g.mu.Lock()
		l.watchFrom = next
		g.mu.Unlock()
	}
}

// watch sends a delayed message about a running run, to be delivered when its lease would expire.
func watch(ctx context.Context, db *store.DB, q queue.Queue, id uuid.UUID) error {
	left, spender, running, err := db.LeaseLeft(ctx, id)
	if err != nil || !running || q == nil {
		return err
	}
	return q.Enqueue(ctx, id, spender, max(left, 0)+watchMargin)
}

// storeEvents stores the events of legs in one statement. What could not be stored keeps its batches, and the next
// pulse, checkpoint or end stores them. If the statement for all of them fails, each leg gets a statement of its own,
// so that one run cannot keep the others' events from being stored.
func (g *registry) storeEvents(leases []*lease) {
	if err := g.storeTogether(leases); err != nil && len(leases) > 1 {
		for _, l := range leases {
			_ = g.storeTogether([]*lease{l})
		}
	}
}

// storeTogether stores the events of legs in one statement.
func (g *registry) storeTogether(leases []*lease) error {
	var all []store.Events
	byLease := map[*lease][]store.Events{}
	for _, l := range leases {
		byLease[l] = l.events.pending()
		all = append(all, byLease[l]...)
	}
	if len(all) == 0 {
		return nil
	}
	ctx, done := context.WithTimeout(context.Background(), pulseTimeout)
	defer done()
	busy, err := g.db.AddEvents(ctx, all)
	if err != nil {
		g.log.Warn("could not store events; will try again", "runs", len(leases), "err", err)
		return err
	}
	for l, batches := range byLease {
		if !slices.Contains(busy, l.RunID) {
			l.events.stored(batches)
		}
	}
	return nil
}

// storeEventsOf stores the events of one run, and returns when that is done or ctx ends. The statement does not depend
// on ctx, which is that of a reader.
func (g *registry) storeEventsOf(ctx context.Context, id uuid.UUID) error {
	done := make(chan error, 1)
	go func() { done <- g.storeTogether(g.of(id)) }() // #nosec G118 -- it must not depend on the reader
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fault.Public(fault.Unavailable, "The request ended before the run's events were stored", ctx.Err())
	}
}
