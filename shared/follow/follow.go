// Package follow reads the stored events of runs for the clients that follow them. One goroutine asks the database four
// times a second how far all followed runs are, with one statement, and each part of the events is read once for all
// clients that need it. It decides neither who is allowed to follow a run nor what a client receives.
package follow

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/store"
)

const (
	// pollInterval is the time between two questions to the database. The events of a run are stored twice a second, so
	// a shorter interval would find little more.
	pollInterval = 250 * time.Millisecond
	// patience is how long a database that is not available is asked again before the followers get the error. A restart
	// of PostgreSQL takes a few seconds.
	patience = 20 * time.Second
	// readers is how many statements that read events are executed at the same time. Followers must not occupy the pool,
	// because the runs need its connections.
	readers = 2
	// cached is how many bytes of events are kept for the next followers that need them.
	cached = 32 << 20
	// retryAfter is when a client may try again that was refused because too many follow.
	retryAfter = 5 * time.Second
)

// Reader reads for all followers of one process. Its memory and its number of statements at the same time have a bound,
// whatever the number of followers and the size of the runs. It is safe for concurrent use.
type Reader struct {
	// progress and follow are the store's methods; the tests of this package replace them.
	progress func(context.Context, []uuid.UUID) ([]store.Progress, error)
	follow   func(ctx context.Context, id uuid.UUID, attempt, after int) (store.News, error)
	counts   func(ctx context.Context, id uuid.UUID, after int) (store.EventCounts, error)

	reading chan struct{} // has an element for each statement that reads events now

	mu        sync.Mutex
	runs      map[uuid.UUID]*followed // those whose followers wait for news
	followers int
	ofRun     map[uuid.UUID]int
	ofCaller  map[string]int
	// stop ends the goroutine that polls. It is nil while nobody waits.
	stop chan struct{}
	// polls counts the polls that were started, and polled is closed at the end of each one.
	polls  int
	polled chan struct{}
	// parts are the parts of the events that are being read or are kept. order lists those that are kept, the oldest
	// first, and size is how many bytes they have.
	parts map[position]*part
	order []position
	size  int
}

// followed is one run whose followers wait for news. All fields except followers are what the last poll has found.
type followed struct {
	followers int
	poll      int // the number of that poll, 0 for none
	found     bool
	progress  store.Progress
	err       error // the database has not been available for longer than patience
}

// position is where a part of the events begins: after an event of an attempt at a run.
type position struct {
	run            uuid.UUID
	attempt, after int
}

// part is the outcome of one call of store.DB.Follow. done is closed when it is there.
type part struct {
	done chan struct{}
	news store.News
	err  error
	size int
}

// New returns a Reader without followers. It starts no goroutine; the first follower does.
func New(db *store.DB) *Reader {
	return &Reader{
		progress: db.Progress, follow: db.Follow, counts: db.EventCounts, reading: make(chan struct{}, readers),
		runs: map[uuid.UUID]*followed{}, ofRun: map[uuid.UUID]int{}, ofCaller: map[string]int{},
		polled: make(chan struct{}), parts: map[position]*part{},
	}
}

// Followers returns how many clients follow runs.
func (r *Reader) Followers() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.followers
}

// Follower follows one run. One goroutine uses it.
type Follower struct {
	r      *Reader
	run    uuid.UUID
	caller string
	shared *followed // nil until the first Next: who reads only what is stored causes no polls
	joined int       // the number of polls that were started before it joined
}

// Follow registers a follower of a run until Close is called. caller distinguishes the clients; "" stands for one that
// is not known, which is not counted by caller. The error has RetryAfter: fault.Unavailable if too many follow, and
// fault.LimitReached if too many follow this run or are of this caller.
func (r *Reader) Follow(run uuid.UUID, caller string) (*Follower, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range []struct {
		b   *bound.Bound
		now int
	}{
		{bound.FollowersOfRun, r.ofRun[run]}, {bound.FollowersOfCaller, r.ofCaller[caller]}, {bound.Followers, r.followers},
	} {
		if c.now >= c.b.Default {
			e := c.b.Fault(c.b.Default, c.now+1)
			e.RetryAfter = retryAfter
			return nil, e
		}
	}
	r.followers++
	r.ofRun[run]++
	if caller != "" {
		r.ofCaller[caller]++
	}
	return &Follower{r: r, run: run, caller: caller}, nil
}

// wait makes the run one that the polls ask for. The first one that waits starts them.
func (f *Follower) wait() {
	r := f.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.runs[f.run] == nil {
		r.runs[f.run] = &followed{}
	}
	f.shared, f.joined = r.runs[f.run], r.polls
	f.shared.followers++
	if r.stop == nil {
		r.stop = make(chan struct{})
		go r.pollUntil(r.stop)
	}
}

// Close ends the following. The last one that waits stops the polls, and the last follower releases what was kept.
func (f *Follower) Close() {
	r := f.r
	r.mu.Lock()
	defer r.mu.Unlock()
	r.followers--
	if r.ofRun[f.run]--; r.ofRun[f.run] == 0 {
		delete(r.ofRun, f.run)
	}
	if r.ofCaller[f.caller]--; r.ofCaller[f.caller] <= 0 {
		delete(r.ofCaller, f.caller)
	}
	if f.shared != nil {
		if f.shared.followers--; f.shared.followers == 0 {
			delete(r.runs, f.run)
		}
		if len(r.runs) == 0 {
			close(r.stop)
			r.stop = nil
		}
	}
	if r.followers == 0 {
		r.parts, r.order, r.size = map[position]*part{}, nil, 0
	}
}

// Next waits until the progress of the run differs from known, and returns it. found is false if the run has been
// deleted. Only polls that started after the first Next count, so the result is never older than what the caller read
// before it.
//
// The error is that of ctx, or the database's if it has not been available for some time, during which Next waits.
func (f *Follower) Next(ctx context.Context, known store.Progress) (p store.Progress, found bool, err error) {
	if f.shared == nil {
		f.wait()
	}
	for {
		f.r.mu.Lock()
		now, polled := *f.shared, f.r.polled
		f.r.mu.Unlock()
		if now.poll > f.joined && (now.err != nil || !now.found || now.progress != known) {
			return now.progress, now.found, now.err
		}
		select {
		case <-polled:
		case <-ctx.Done():
			return known, true, ctx.Err()
		}
	}
}

// Events returns what store.DB.Follow returns for the run. Followers at the same position share the result. A database
// that is not available is asked again for some time; else the errors are those of Next.
func (f *Follower) Events(ctx context.Context, attempt, after int) (store.News, error) {
	at := position{f.run, attempt, after}
	var news store.News
	return news, patiently(ctx, func() (err error) {
		p := f.r.part(at)
		select {
		case <-p.done:
			news = p.news
			return p.err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// Counts returns what store.DB.EventCounts returns for all events of the run, with the errors of Events.
func (f *Follower) Counts(ctx context.Context) (c store.EventCounts, err error) {
	return c, patiently(ctx, func() error {
		c, err = f.r.counts(ctx, f.run, -1)
		return err
	})
}

// patiently calls read until it succeeds, until it fails otherwise than because the database is not available, or for
// the time of patience.
func patiently(ctx context.Context, read func() error) error {
	for began := time.Now(); ; {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := read()
		if !store.Transient(err) || time.Since(began) >= patience {
			return err
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pollUntil polls until stop is closed.
func (r *Reader) pollUntil(stop <-chan struct{}) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var failing time.Time // since when the polls fail; zero if the last one did not
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		r.mu.Lock()
		r.polls++
		number, runs := r.polls, make([]uuid.UUID, 0, len(r.runs))
		for id := range r.runs {
			runs = append(runs, id)
		}
		r.mu.Unlock()
		// The statement is not cancelled when the last follower leaves, because that would close the connection. The store
		// bounds its time.
		list, err := r.progress(context.Background(), runs)
		switch {
		case err == nil:
			failing = time.Time{}
		case failing.IsZero():
			failing = time.Now()
		}
		if !store.Transient(err) || time.Since(failing) >= patience {
			r.publish(stop, number, runs, list, err)
		}
	}
}

// publish stores the outcome of a poll and wakes all followers. A poll that is the last one before stop was closed has
// nobody to inform, and must not replace what a later poll has found.
func (r *Reader) publish(stop <-chan struct{}, number int, runs []uuid.UUID, list []store.Progress, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != stop {
		return
	}
	for _, id := range runs {
		if f := r.runs[id]; f != nil {
			f.poll, f.err, f.found = number, err, f.found && err != nil
		}
	}
	for _, p := range list {
		if f := r.runs[p.RunID]; f != nil {
			f.found, f.progress = true, p
		}
	}
	close(r.polled)
	r.polled = make(chan struct{})
}

// part returns the part of the events at a position. If it is not kept, a statement reads it, which no follower
// cancels: others may wait for it.
func (r *Reader) part(at position) *part {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parts[at]
	if p == nil {
		p = &part{done: make(chan struct{})}
		r.parts[at] = p
		go r.read(at, p)
	}
	return p
}

// read reads a part and keeps it, unless it is empty: then the next follower has to ask again. The oldest parts make
// room for it.
func (r *Reader) read(at position, p *part) {
	r.reading <- struct{}{}
	p.news, p.err = r.follow(context.Background(), at.run, at.attempt, at.after)
	<-r.reading
	for _, f := range p.news.Frames {
		p.size += len(f.Data)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	close(p.done)
	switch {
	case r.parts[at] != p: // All followers have left meanwhile.
	case p.err != nil || len(p.news.Frames) == 0:
		delete(r.parts, at)
	default:
		r.order, r.size = append(r.order, at), r.size+p.size
		for r.size > cached {
			r.size -= r.parts[r.order[0]].size
			delete(r.parts, r.order[0])
			r.order = r.order[1:]
		}
	}
}
