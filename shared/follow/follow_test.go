package follow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
)

// database stands for the store. Each event is a part of its own.
type database struct {
	mu   sync.Mutex
	runs map[uuid.UUID]store.Progress
	err  error

	polls, reads atomic.Int64
	reading      atomic.Int64 // statements that read events now
	most         atomic.Int64 // the most of them at the same time
	slow         time.Duration
	bytes        int // the size of an event
}

func (d *database) set(p store.Progress) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runs[p.RunID] = p
}

func (d *database) remove(id uuid.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.runs, id)
}

func (d *database) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *database) progress(_ context.Context, runs []uuid.UUID) (list []store.Progress, err error) {
	d.polls.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range runs {
		if p, ok := d.runs[id]; ok && d.err == nil {
			list = append(list, p)
		}
	}
	return list, d.err
}

func (d *database) follow(_ context.Context, id uuid.UUID, attempt, after int) (n store.News, err error) {
	d.reads.Add(1)
	d.most.Store(max(d.most.Load(), d.reading.Add(1)))
	defer d.reading.Add(-1)
	time.Sleep(d.slow)
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.runs[id]
	if n.Found = ok && d.err == nil; n.Found {
		n.Status, n.Attempt = p.Status, p.Attempt
	}
	if n.Found && p.Attempt == attempt && p.Last > after {
		n.Frames = []store.Frames{{First: after + 1, Count: 1, Data: make([]byte, d.bytes)}}
	}
	return n, d.err
}

// newReader returns a Reader of a database with one running run.
func newReader() (*Reader, *database, store.Progress) {
	p := store.Progress{RunID: uuid.New(), Status: "RUNNING", Attempt: 1, Last: -1}
	d := &database{runs: map[uuid.UUID]store.Progress{p.RunID: p}, bytes: 10}
	r := New(nil)
	r.progress, r.follow = d.progress, d.follow
	return r, d, p
}

// start registers a follower until the end of the test.
func start(t *testing.T, r *Reader, run uuid.UUID) *Follower {
	t.Helper()
	f, err := r.Follow(run, "")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestOneStatementAsksForAllFollowers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, d, first := newReader()
		second := store.Progress{RunID: uuid.New(), Status: "RUNNING", Attempt: 1, Last: -1}
		d.set(second)
		var all sync.WaitGroup
		for i := range 40 {
			p := first
			if i%2 == 0 {
				p = second
			}
			f := start(t, r, p.RunID)
			all.Go(func() {
				defer f.Close()
				known := p
				for known.Last < 9 {
					next, found, err := f.Next(t.Context(), known)
					if err != nil || !found || next == known {
						t.Errorf("the run changed from %+v to %+v: %t %v", known, next, found, err)
						return
					}
					for known.Last < next.Last {
						news, err := f.Events(t.Context(), 1, known.Last)
						if err != nil || len(news.Frames) != 1 {
							t.Errorf("after %d: %+v %v", known.Last, news, err)
							return
						}
						known.Last = news.Frames[0].First
					}
					known = next
				}
			})
		}
		time.Sleep(10*time.Second + time.Millisecond)
		if d.reads.Load() != 0 || d.polls.Load() != 40 {
			t.Errorf("idle followers: %d polls and %d reads in 10 s", d.polls.Load(), d.reads.Load())
		}
		for _, p := range []store.Progress{first, second} {
			p.Last = 9
			d.set(p)
		}
		all.Wait()
		if d.reads.Load() != 20 {
			t.Errorf("10 events of each of two runs were read with %d statements", d.reads.Load())
		}
	})
}

func TestTheLastFollowerStopsTheReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // The bubble fails if a goroutine is left.
		r, d, p := newReader()
		for range 3 {
			one, other := start(t, r, p.RunID), start(t, r, p.RunID)
			p.Last++
			d.set(p)
			if _, err := one.Events(t.Context(), 1, -1); err != nil {
				t.Error(err)
			}
			one.Close()
			other.Close()
			synctest.Wait()
			if len(r.runs)+len(r.parts)+len(r.order)+r.size > 0 || r.stop != nil {
				t.Errorf("without followers: %+v", r)
			}
		}
		before := d.polls.Load()
		time.Sleep(time.Minute)
		if n := d.polls.Load() - before; n > 0 {
			t.Errorf("%d polls without a follower", n)
		}
	})
}

// A status that was read before the follower joined may be that of a pause that has ended meanwhile.
func TestAFollowerGetsNothingOlderThanItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, d, running := newReader()
		paused := running
		paused.Status = "PAUSED"
		d.set(paused)
		earlier := start(t, r, paused.RunID)
		defer earlier.Close()
		if p, found, err := earlier.Next(t.Context(), running); p != paused || !found || err != nil {
			t.Errorf("%+v %t %v", p, found, err)
		}
		d.set(running)
		later := start(t, r, running.RunID)
		defer later.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if p, _, err := later.Next(ctx, running); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a run that does not change became %+v, %v", p, err)
		}
	})
}

func TestFollowersOfADeletedRunLearnIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, d, p := newReader()
		f := start(t, r, p.RunID)
		defer f.Close()
		d.remove(p.RunID)
		if _, found, err := f.Next(t.Context(), p); found || err != nil {
			t.Errorf("found %t, %v", found, err)
		}
		if news, err := f.Events(t.Context(), 1, -1); news.Found || err != nil {
			t.Errorf("%+v %v", news, err)
		}
	})
}

func TestADatabaseThatIsNotAvailableIsAskedAgain(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err    error
		outage time.Duration
		fails  bool
	}{
		"a short outage": {fault.Unavailable, 10 * time.Second, false},
		"a long outage":  {fault.Unavailable, time.Minute, true},
		"another error":  {fault.Internal, 10 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, d, p := newReader()
				d.fail(fmt.Errorf("down: %w", row.err))
				time.AfterFunc(row.outage, func() {
					d.fail(nil)
					p := p
					p.Last = 0
					d.set(p)
				})
				began := time.Now()
				check := func(what string, err error) {
					switch took := time.Since(began); {
					case row.fails != (err != nil) || row.fails && !errors.Is(err, row.err):
						t.Errorf("%s: %v", what, err)
					case row.fails && took > patience+time.Second || !row.fails && took > row.outage+time.Second:
						t.Errorf("%s after %s", what, took)
					}
				}
				f := start(t, r, p.RunID)
				defer f.Close()
				var all sync.WaitGroup
				all.Go(func() {
					next, _, err := f.Next(t.Context(), p)
					if check("the next progress", err); err == nil && next.Last != 0 {
						t.Errorf("%+v", next)
					}
				})
				all.Go(func() {
					_, err := f.Events(t.Context(), 1, -1)
					check("the events", err)
				})
				all.Wait()
			})
		})
	}
}

func TestAFollowerThatLeavesDoesNotCancelTheReadOfTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, d, p := newReader()
		d.slow = time.Second
		p.Last = 0
		d.set(p)
		ctx, leave := context.WithCancel(t.Context())
		leaver, other := start(t, r, p.RunID), start(t, r, p.RunID)
		defer other.Close()
		var all sync.WaitGroup
		all.Go(func() {
			defer leaver.Close()
			if _, err := leaver.Events(ctx, 1, -1); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if _, err := leaver.Events(ctx, 1, -1); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if _, _, err := leaver.Next(ctx, p); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		all.Go(func() {
			if news, err := other.Events(t.Context(), 1, -1); err != nil || len(news.Frames) != 1 {
				t.Errorf("%+v %v", news, err)
			}
		})
		synctest.Wait()
		leave()
		all.Wait()
		if d.reads.Load() != 1 {
			t.Errorf("%d statements", d.reads.Load())
		}
	})
}

func TestMemoryAndStatementsHaveABound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, d, p := newReader()
		d.slow, d.bytes = time.Millisecond, 1<<20
		p.Last = 99
		d.set(p)
		var all sync.WaitGroup
		for i := range 30 { // Each follower is at another position, as slow ones are.
			f := start(t, r, p.RunID)
			all.Go(func() {
				defer f.Close()
				for after := i - 1; after < p.Last; after++ {
					if news, err := f.Events(t.Context(), 1, after); err != nil || news.Frames[0].First != after+1 {
						t.Errorf("after %d: %+v %v", after, news, err)
						return
					}
					r.mu.Lock()
					if r.size > cached || len(r.order) > cached>>20 {
						t.Errorf("%d bytes of %d parts are kept", r.size, len(r.order))
					}
					r.mu.Unlock()
				}
			})
		}
		all.Wait()
		if d.most.Load() > readers {
			t.Errorf("%d statements read events at the same time", d.most.Load())
		}
	})
}

func TestTooManyFollowersAreRejected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, _, p := newReader()
		list := make([]*Follower, bound.Followers.Default)
		for i := range list {
			list[i] = start(t, r, uuid.New())
		}
		_, err := r.Follow(uuid.New(), "")
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Unavailable || e.RetryAfter == 0 {
			t.Errorf("one more: %v", err)
		}
		list[0].Close()
		start(t, r, p.RunID).Close()
		for _, f := range list[1:] {
			f.Close()
		}
	})
}

func TestFollowersOfOneRunAndOfOneCallerHaveABound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, _, p := newReader()
		refused := func(run uuid.UUID, caller string) bool {
			f, err := r.Follow(run, caller)
			if err == nil {
				f.Close()
				return false
			}
			e, ok := errors.AsType[*fault.Error](err)
			return ok && e.Kind == fault.LimitReached && e.RetryAfter > 0
		}
		var list []*Follower
		follow := func(n int, run func() uuid.UUID, caller string) {
			for range n {
				f, err := r.Follow(run(), caller)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, f)
			}
		}
		follow(bound.FollowersOfRun.Default, func() uuid.UUID { return p.RunID }, "ann")
		if !refused(p.RunID, "bob") || refused(uuid.New(), "ann") {
			t.Error("one run is followed by too many, or another one by none")
		}
		follow(bound.FollowersOfCaller.Default-bound.FollowersOfRun.Default, uuid.New, "ann")
		if !refused(uuid.New(), "ann") || refused(uuid.New(), "bob") {
			t.Error("one caller follows too many runs, or another one none")
		}
		for _, f := range list {
			f.Close()
		}
		if refused(p.RunID, "ann") || len(r.ofRun)+len(r.ofCaller) > 0 {
			t.Errorf("after all have left, %d runs and %d callers are counted", len(r.ofRun), len(r.ofCaller))
		}
	})
}

func TestWhoReadsOnlyStoredEventsCausesNoPolls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, d, p := newReader()
		p.Last = 3
		d.set(p)
		f := start(t, r, p.RunID)
		defer f.Close()
		if news, err := f.Events(t.Context(), 1, -1); err != nil || len(news.Frames) != 1 {
			t.Fatal(news, err)
		}
		time.Sleep(time.Hour)
		if r.polls != 0 {
			t.Errorf("%d polls", r.polls)
		}
	})
}
