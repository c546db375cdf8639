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

// errCancelled is the cause of a context that somebody cancelled through Cancel.
var errCancelled = errors.New("run cancelled")

const (
	pulseEvery = 500 * time.Millisecond // how soon a cancel from elsewhere is seen
	renewEvery = 20 * time.Second       // between two renewals of the leases
	// A run whose lease could not be renewed is given up before the lease is over, so
	// that nobody carries it at the same time. One pulse may take pulseTimeout.
	giveUpAfter  = store.Lease - 2*pulseTimeout
	pulseTimeout = 5 * time.Second
)

// live holds the runs that this process carries. While there are any, one
// goroutine asks the database, for all at once, who was cancelled elsewhere and
// renews their leases; no connection is held in between.
type live struct {
	db  *store.DB
	log *slog.Logger
	now func() time.Time

	watch func(context.Context, uuid.UUID) error // nil: nobody needs to be told of a run

	mu   sync.Mutex
	runs map[store.Held]entry // a process may lose a run and take it up again
	stop chan struct{}        // closed when the last run left; nil when there are none
}

// entry is a run that this process carries.
type entry struct {
	cancel  context.CancelCauseFunc
	events  *eventLog // nil: it isn't streamed
	renewed time.Time // the lease lasts from then
	watch   time.Time // from when on it should leave a message; zero: it has, or need not
}

func newLive(db *store.DB, log *slog.Logger, now func() time.Time) *live {
	return &live{db: db, log: log, now: now, runs: map[store.Held]entry{}}
}

// errOver ends a step with the time of the process that carries the run; errAlone ends a
// run that nobody else could go on with.
var (
	errOver  = fault.Public(fault.Internal, "A single step of the run, an answer of its model or a call of its tools, took longer than this server has for a request", nil)
	errAlone = fault.Public(fault.Internal, "The run did not fit into the time that this server has for a request, and without a queue no other goes on with it", nil)
)

// enter makes a run stoppable: by cancel, by the pulse and by ctx's deadline, but not
// by the end of ctx before that: a client that leaves stops no run. leave must be
// called at its end.
func (l *live) enter(ctx context.Context, t *turn) (_ context.Context, leave func()) {
	held := t.held()
	deadline, limited := ctx.Deadline()
	ctx, cancelRun := context.WithCancelCause(context.WithoutCancel(ctx))
	over := func() {}
	if limited {
		t.until = deadline
		cause := errOver
		if t.r.queue == nil {
			cause = errAlone
		}
		ctx, over = context.WithDeadlineCause(ctx, deadline, cause)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e := entry{cancel: cancelRun, events: t.events, renewed: t.start}
	if l.watch != nil {
		e.watch = t.start
	}
	l.runs[held] = e
	if l.stop == nil {
		l.stop = make(chan struct{})
		go l.pulse(l.stop) // #nosec G118 -- it outlives the run that started it
	}
	return ctx, func() {
		over()
		cancelRun(nil)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.runs, held)
		if len(l.runs) == 0 {
			close(l.stop)
			l.stop = nil
		}
	}
}

func (l *live) cancel(h store.Held, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.runs[h]; ok {
		e.cancel(cause)
	}
}

// attempts are those at a run that are carried here.
func (l *live) attempts(id uuid.UUID) map[store.Held]entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[store.Held]entry{}
	for h, e := range l.runs {
		if h.RunID == id {
			out[h] = e
		}
	}
	return out
}

// handOver stops every run that is carried here, for others to go on with, and tells how
// many there are.
func (l *live) handOver() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.runs {
		e.cancel(errHandedOver)
	}
	return len(l.runs)
}

func (l *live) pulse(stop <-chan struct{}) {
	ticker := time.NewTicker(pulseEvery)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		l.beat()
	}
}

// beat looks after every run once.
func (l *live) beat() {
	now := l.now()
	l.mu.Lock()
	runs := maps.Clone(l.runs)
	l.mu.Unlock()
	var held []store.Held
	renew := false
	for h, e := range runs {
		switch age := now.Sub(e.renewed); {
		case age >= giveUpAfter:
			l.log.Warn("a run's lease can't be kept; the run is given up", "run_id", h.RunID)
			l.cancel(h, errLost)
			delete(runs, h) // what it tells from here on is nobody's
			continue
		case age >= renewEvery:
			renew = true
		}
		held = append(held, h)
	}
	ctx, done := context.WithTimeout(context.Background(), pulseTimeout)
	defer done()
	if err := l.storeEvents(ctx, runs); err != nil { // the next beat tries again, and so does the run's end
		l.log.Warn("events can't be stored", "runs", len(runs), "err", err)
	}
	cancelled, lost, err := l.db.Pulse(ctx, held, now, renew)
	if err != nil { // the lease outlives it
		l.log.Warn("runs can't be looked after", "runs", len(runs), "err", err)
		return
	}
	if renew {
		for _, h := range held {
			l.note(h, func(e *entry) { e.renewed = now })
		}
	}
	for _, h := range cancelled {
		l.cancel(h, errCancelled)
	}
	for _, h := range lost {
		l.cancel(h, errLost)
	}
	for h, e := range runs {
		if e.watch.IsZero() || now.Before(e.watch) {
			continue
		}
		next := time.Time{}
		if err := l.watch(ctx, h.RunID); err != nil { // the schedule finds it, should this process die
			l.log.Warn("a run isn't watched yet", "run_id", h.RunID, "err", err)
			next = now.Add(renewEvery)
		}
		l.note(h, func(e *entry) { e.watch = next })
	}
}

// note changes what is known of a run, if it is still carried here.
func (l *live) note(h store.Held, change func(*entry)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.runs[h]; ok {
		change(&e)
		l.runs[h] = e
	}
}

// storeEvents stores what the streamed runs have told since the last beat, in one
// statement.
func (l *live) storeEvents(ctx context.Context, runs map[store.Held]entry) (err error) {
	var batch []store.Events
	for _, e := range runs {
		if e.events == nil {
			continue
		}
		events, done := e.events.take()
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

// storeNow stores what a run that is carried here has told so far.
func (l *live) storeNow(ctx context.Context, id uuid.UUID) error {
	for h, e := range l.attempts(id) { // one by one: the pulse may hold another of them
		if err := l.storeEvents(ctx, map[store.Held]entry{h: e}); err != nil {
			return err
		}
	}
	return nil
}

func (l *live) wait(ctx context.Context) error {
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
