package run

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
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
	renewEvery = 40                     // pulses between two renewals of the leases: 20 s
)

// live holds the runs that this process carries. While there are any, one
// goroutine asks the database, for all at once, who was cancelled elsewhere and
// renews their leases; no connection is held in between.
type live struct {
	db  *store.DB
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	runs map[uuid.UUID]entry
	stop chan struct{} // closed when the last run left; nil when there are none
}

// entry is a run that this process carries.
type entry struct {
	cancel context.CancelCauseFunc
	events *eventLog // nil: it isn't streamed
}

func newLive(db *store.DB, log *slog.Logger, now func() time.Time) *live {
	return &live{db: db, log: log, now: now, runs: map[uuid.UUID]entry{}}
}

// errOver ends a run with the time of the process that carries it.
var errOver = fault.Public(fault.Internal, "The run did not fit into the time that this server has for a request", nil)

// enter makes a run stoppable: by cancel, by the pulse and by ctx's deadline, but not
// by the end of ctx before that: a client that leaves stops no run. leave must be
// called at its end.
func (l *live) enter(ctx context.Context, t *turn) (_ context.Context, leave func()) {
	id := t.row.RunID
	deadline, limited := ctx.Deadline()
	ctx, cancelRun := context.WithCancelCause(context.WithoutCancel(ctx))
	over := func() {}
	if limited {
		ctx, over = context.WithDeadlineCause(ctx, deadline, errOver)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs[id] = entry{cancelRun, t.events}
	if l.stop == nil {
		l.stop = make(chan struct{})
		go l.pulse(l.stop) // #nosec G118 -- it outlives the run that started it
	}
	return ctx, func() {
		over()
		cancelRun(nil)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.runs, id)
		if len(l.runs) == 0 {
			close(l.stop)
			l.stop = nil
		}
	}
}

func (l *live) cancel(id uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.runs[id]; ok {
		e.cancel(errCancelled)
	}
}

func (l *live) pulse(stop <-chan struct{}) {
	ticker := time.NewTicker(pulseEvery)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		l.beat(n%renewEvery == 0)
	}
}

// beat looks after every run once.
func (l *live) beat(renew bool) {
	l.mu.Lock()
	runs := maps.Clone(l.runs)
	l.mu.Unlock()
	ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	if err := l.storeEvents(ctx, runs); err != nil { // the next beat tries again, and so does the run's end
		l.log.Warn("events can't be stored", "runs", len(runs), "err", err)
	}
	cancelled, err := l.db.Pulse(ctx, slices.Collect(maps.Keys(runs)), l.now(), renew)
	if err != nil { // the lease outlives two misses
		l.log.Warn("runs can't be looked after", "runs", len(runs), "err", err)
	}
	for _, id := range cancelled {
		l.cancel(id)
	}
}

// storeEvents stores what the streamed runs have told since the last beat, in one
// statement.
func (l *live) storeEvents(ctx context.Context, runs map[uuid.UUID]entry) (err error) {
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
	l.mu.Lock()
	e := l.runs[id]
	l.mu.Unlock()
	return l.storeEvents(ctx, map[uuid.UUID]entry{id: e})
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
