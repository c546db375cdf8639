package run

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
)

// errCancelled is the cause of a context that Runner.Cancel cancelled.
var errCancelled = errors.New("run cancelled")

const (
	// pulseEvery is how soon a cancellation by another process is noticed, and how far a client that follows the run in
	// another process is behind. Each pulse costs one or two statements, whatever the number of runs.
	pulseEvery = 500 * time.Millisecond
	// renewEvery is the time between two renewals of a lease. It is a third of LeaseDuration, so a failed renewal can be
	// repeated before the lease expires.
	renewEvery = 20 * time.Second
	// A lease that could not be renewed for abandonAfter is treated as lost, so that this process has stopped the run
	// before the lease expires and another process claims it. Two pulses may each wait pulseTimeout for the database
	// until that is noticed.
	abandonAfter = store.LeaseDuration - 2*pulseTimeout
	// pulseTimeout bounds one pulse. A database that hangs must not delay the check of abandonAfter.
	pulseTimeout = 5 * time.Second
)

// registry holds the runs that this process executes. While there are any, one goroutine, the pulse, does three
// things for all of them at once: it stores their events, reads which were cancelled by another process, and renews
// their leases. So the number of statements does not grow with the number of runs, and no connection to the database
// is held while a model answers.
type registry struct {
	db  *store.DB
	log *slog.Logger
	now func() time.Time

	// watch is Runner.Watch, or nil if runs leave no watching message.
	watch func(context.Context, uuid.UUID) error

	mu sync.Mutex
	// runs has an entry for each attempt, not for each run: a process may lose a run and claim it again while the first
	// attempt still ends.
	runs map[store.Attempt]entry
	// stop is closed when the last run is removed. It is nil while there are none.
	stop chan struct{}
}

// entry is one run in the registry.
type entry struct {
	cancel context.CancelCauseFunc
	// events is nil if the run is not streamed.
	events *eventLog
	// renewed is when the lease was last renewed.
	renewed time.Time
	// watchFrom is when a watching message is due. It is zero if none is needed, or it was sent.
	watchFrom time.Time
}

// newRegistry returns an empty registry. The pulse starts with the first run, so an idle process sends no statements.
func newRegistry(db *store.DB, log *slog.Logger, now func() time.Time) *registry {
	return &registry{db: db, log: log, now: now, runs: map[store.Attempt]entry{}}
}

// errStepTooLong and errNoQueue are the causes of a context that ended with this process's deadline. With a queue,
// only a step that got the process's full time ends the run; see shouldHandOver.
var (
	errStepTooLong = fault.Public(fault.Internal, "One step of the run (a model call or a round of tool calls) "+
		"exceeded this server's time limit for a request", nil)
	errNoQueue = fault.Public(fault.Internal, "The run exceeded this server's time limit for a request, and no queue "+
		"is configured to continue it", nil)
)

// register adds a run to the registry. Its context can then be cancelled by Cancel, by a lost lease or by ctx's
// deadline, but not by the cancellation of ctx: a client that disconnects does not stop its run. The caller must call
// unregister when the execution has ended.
func (l *registry) register(ctx context.Context, x *execution) (_ context.Context, unregister func()) {
	attempt := x.attempt()
	deadline, limited := ctx.Deadline()
	ctx, cancelRun := context.WithCancelCause(context.WithoutCancel(ctx))
	cancelDeadline := func() {}
	if limited {
		x.deadline = deadline
		cause := errStepTooLong
		if x.r.queue == nil {
			cause = errNoQueue
		}
		ctx, cancelDeadline = context.WithDeadlineCause(ctx, deadline, cause)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e := entry{cancel: cancelRun, events: x.events, renewed: x.start}
	if l.watch != nil {
		e.watchFrom = x.start // The first pulse sends the message, so that a run shorter than that needs none.
	}
	l.runs[attempt] = e
	if l.stop == nil {
		l.stop = make(chan struct{})
		go l.pulse(l.stop) // #nosec G118 -- it outlives the run that started it
	}
	return ctx, func() {
		cancelDeadline()
		cancelRun(nil)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.runs, attempt)
		if len(l.runs) == 0 {
			close(l.stop)
			l.stop = nil
		}
	}
}

// cancel stops one attempt, if this process executes it. cause becomes the cause of the run's context, from which
// finish derives how the run ends: errCancelled, errLost or errHandedOver.
func (l *registry) cancel(a store.Attempt, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.runs[a]; ok {
		e.cancel(cause)
	}
}

// attemptsAt returns the attempts at a run that this process executes.
func (l *registry) attemptsAt(id uuid.UUID) map[store.Attempt]entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[store.Attempt]entry{}
	for a, e := range l.runs {
		if a.RunID == id {
			out[a] = e
		}
	}
	return out
}

// handOver stops every run, for other processes to continue, and returns how many there are. Each run hands itself
// over in its own goroutine, when its model or tool has returned; wait returns when all have done so.
func (l *registry) handOver() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.runs {
		e.cancel(errHandedOver)
	}
	return len(l.runs)
}

// pulse calls pulseOnce regularly until stop is closed.
func (l *registry) pulse(stop <-chan struct{}) {
	ticker := time.NewTicker(pulseEvery)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		l.pulseOnce()
	}
}

// pulseOnce abandons runs whose lease could not be renewed, stores events, and then reads and renews the leases. A
// database that fails here stops no run: the lease outlives several pulses.
func (l *registry) pulseOnce() {
	now := l.now()
	l.mu.Lock()
	runs := maps.Clone(l.runs)
	l.mu.Unlock()
	var attempts []store.Attempt
	renew := false
	for a, e := range runs {
		switch age := now.Sub(e.renewed); {
		case age >= abandonAfter:
			l.log.Warn("stopped a run because its lease could not be renewed", "run_id", a.RunID)
			l.cancel(a, errLost)
			delete(runs, a) // Its later events belong to no valid attempt, and are not stored.
			continue
		case age >= renewEvery:
			renew = true // All leases are renewed together, since it is one statement anyway.
		}
		attempts = append(attempts, a)
	}
	ctx, done := context.WithTimeout(context.Background(), pulseTimeout)
	defer done()
	if err := l.storeEvents(ctx, runs); err != nil { // The next pulse tries again, and so does the end of the run.
		l.log.Warn("could not store events; will try again", "runs", len(runs), "err", err)
	}
	cancelled, lost, err := l.db.Pulse(ctx, attempts, now, renew)
	if err != nil {
		l.log.Warn("could not read cancellations or renew leases; will try again", "runs", len(runs), "err", err)
		return
	}
	if renew {
		for _, a := range attempts {
			l.update(a, func(e *entry) { e.renewed = now })
		}
	}
	for _, a := range cancelled {
		l.cancel(a, errCancelled)
	}
	for _, a := range lost {
		l.cancel(a, errLost)
	}
	l.sendWatches(ctx, runs, now)
}

// sendWatches sends the watching messages that are due. One that cannot be sent is tried again after renewEvery; if the
// process crashes before, the run is found by Requeue instead.
func (l *registry) sendWatches(ctx context.Context, runs map[store.Attempt]entry, now time.Time) {
	for a, e := range runs {
		if e.watchFrom.IsZero() || now.Before(e.watchFrom) {
			continue
		}
		next := time.Time{}
		if err := l.watch(ctx, a.RunID); err != nil {
			l.log.Warn("could not enqueue the message that watches a run; will try again", "run_id", a.RunID, "err", err)
			next = now.Add(renewEvery)
		}
		l.update(a, func(e *entry) { e.watchFrom = next })
	}
}

// update changes an entry, if it is still in the registry. The run may have ended while the pulse waited for the
// database.
func (l *registry) update(a store.Attempt, change func(*entry)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.runs[a]; ok {
		change(&e)
		l.runs[a] = e
	}
}

// storeEvents stores the buffered events of runs in one statement. If it fails, the events go back into their buffers,
// and the next pulse, checkpoint or end stores them.
func (l *registry) storeEvents(ctx context.Context, runs map[store.Attempt]entry) (err error) {
	var batch []store.Events
	for _, e := range runs {
		if e.events == nil {
			continue
		}
		events, done := e.events.drain()
		defer func() { done(err == nil) }()
		if events.Count > 0 {
			batch = append(batch, events)
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return l.db.AddEvents(ctx, batch)
}

// storeEventsOf stores the buffered events of one run. Its attempts are stored one by one: draining several logs
// while the pulse drains the same ones in another order could deadlock.
func (l *registry) storeEventsOf(ctx context.Context, id uuid.UUID) error {
	for a, e := range l.attemptsAt(id) {
		if err := l.storeEvents(ctx, map[store.Attempt]entry{a: e}); err != nil {
			return err
		}
	}
	return nil
}

// wait returns when the registry is empty, or with the cause of ctx's end. It looks again after each wake-up, because
// a new run may have been registered meanwhile.
func (l *registry) wait(ctx context.Context) error {
	for {
		l.mu.Lock()
		stop := l.stop
		l.mu.Unlock()
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
