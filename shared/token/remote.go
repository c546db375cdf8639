package token

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The rules of keys that are fetched. None is an option: each is a promise that
// docs/keys.md makes, and no value of theirs suits one operator better than another.
const (
	// maxAge bounds how long a key that was removed at its source goes on.
	maxAge = 5 * time.Minute
	// minGap lies between the beginnings of two fetches. Anybody can send unknown
	// kids; none may turn us against the source.
	minGap = 10 * time.Second
	// maxAbsence is how long a kid that a fetch did not bring is believed to be no
	// key's, so that one stale token can't use up every gap.
	maxAbsence = time.Minute
	// maxStale bounds how long keys outlive their source: an outage of a day is no
	// reason to refuse everybody, and of more than that somebody knows.
	maxStale = 24 * time.Hour
	// fetchTime is for a whole fetch, redirects and body included.
	fetchTime = 5 * time.Second
)

// remote is a set of keys that lives elsewhere. The request that needs the keys
// fetches them: a goroutine of its own would stand still whenever Lambda freezes the
// process. It is safe for concurrent use.
type remote struct {
	name  string // for errors
	fetch func(context.Context) ([]key, error)
	now   func() time.Time
	set   atomic.Pointer[keySet] // as last fetched; nil: never

	mu     sync.Mutex
	flight chan struct{}        // closed when the fetch under way is over; nil: there is none
	tried  time.Time            // when the last fetch began
	failed error                // what was wrong with it; nil: nothing
	absent map[string]time.Time // kids that a fetch did not bring, and when it began
}

// keySet is what one fetch brought. An empty one counts: all keys were removed.
type keySet struct {
	keys []key
	at   time.Time // when the fetch began: what changed since may be missing
}

func (s *keySet) knows(kid string) bool {
	return kid != "" && slices.ContainsFunc(s.keys, func(k key) bool { return k.id == kid })
}

// named: only then does a kid that isn't in the set say that its key isn't.
func (s *keySet) named() bool {
	return !slices.ContainsFunc(s.keys, func(k key) bool { return k.id == "" })
}

// since is by the clock on the wall, the only one that goes on while Lambda freezes
// the process. One that was set back by an hour is as good as an hour gone.
func (r *remote) since(t time.Time) time.Duration { return r.now().Round(0).Sub(t).Abs() }

// within is the set if it was fetched less than age ago, else nil.
func (r *remote) within(age time.Duration) *keySet {
	if s := r.set.Load(); s != nil && r.since(s.at) < age {
		return s
	}
	return nil
}

// fresh are the keys that need no confirmation.
func (r *remote) fresh() []key { return r.within(maxAge).all() }

// known are the keys to go on with while their source is down.
func (r *remote) known() []key { return r.within(maxStale).all() }

func (s *keySet) all() []key {
	if s == nil {
		return nil
	}
	return s.keys
}

// renew returns keys that need confirmation, which this request has asked for unless
// another is about to: that one waits, the others go on with the old keys.
func (r *remote) renew(ctx context.Context) []key {
	if r.set.Load() == nil || r.within(maxAge) != nil {
		return nil
	}
	r.mu.Lock()
	_, mine := r.join()
	r.mu.Unlock()
	if mine {
		r.load(ctx, "")
	}
	return r.known()
}

// look fetches for a token that no key verified, unless its kid is known, which
// leaves no hope, or fetching is of no use so soon. It waits for a fetch under way:
// the key that it brings may be the one. "" is never known.
func (r *remote) look(ctx context.Context, kid string) {
	r.mu.Lock()
	s := r.within(maxStale)
	at, missed := r.absent[kid]
	if s != nil && s.knows(kid) || missed && r.since(at) < maxAbsence {
		r.mu.Unlock()
		return
	}
	flight, mine := r.join()
	r.mu.Unlock()
	switch {
	case mine:
		r.load(ctx, kid)
	case flight != nil:
		select {
		case <-flight:
		case <-ctx.Done():
		}
	}
}

// join returns the fetch under way, or starts one, mine, if it may. The caller holds
// the lock.
func (r *remote) join() (flight chan struct{}, mine bool) {
	if r.flight == nil && (r.tried.IsZero() || r.since(r.tried) >= minGap) {
		r.flight, r.tried = make(chan struct{}), r.now().Round(0)
		return r.flight, true
	}
	return r.flight, false
}

// load is the fetch that join started. Its caller may go away; others wait for it.
func (r *remote) load(ctx context.Context, kid string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
	defer cancel()
	var keys []key
	var err error
	defer func() {
		if recover() != nil { // what somebody else publishes must not end this process
			err = errors.New("what it answers can't be read")
		}
		r.end(kid, keys, err)
	}()
	keys, err = r.fetch(ctx)
}

func (r *remote) end(kid string, keys []key, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed = err; err == nil {
		s := &keySet{keys, r.tried}
		r.set.Store(s)
		// A fetch adds one at most, and minGap apart, so the map stays small.
		maps.DeleteFunc(r.absent, func(_ string, at time.Time) bool { return r.since(at) >= maxAbsence })
		if kid != "" && s.named() && !s.knows(kid) {
			r.absent[kid] = r.tried
		}
	}
	close(r.flight)
	r.flight = nil
}

// fault says why the last fetch brought nothing; nil: it did.
func (r *remote) fault() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.failed != nil:
		return fmt.Errorf("%s: %w", r.name, r.failed)
	case r.set.Load() == nil:
		return fmt.Errorf("%s: not fetched yet", r.name)
	}
	return nil
}

// tryFetched goes on where the keys at hand refused: with the keys that are fresh,
// then with those to be confirmed, and when none verified the signature, with those
// that are fetched for this token.
func (v *Verifier) tryFetched(ctx context.Context, p parts, refusal error) (Claims, error) {
	c, err := v.tryEach(p, refusal, (*remote).fresh)
	if err != nil {
		c, err = v.tryEach(p, err, func(r *remote) []key { return r.renew(ctx) })
	}
	if errors.Is(err, errNoKey) {
		v.look(ctx, p.kid)
		c, err = v.tryEach(p, err, (*remote).known)
	}
	if errors.Is(err, errNoKey) {
		if cause := v.keyless(); cause != nil {
			err = &fault.Error{Kind: fault.Unavailable, Detail: "The signing keys can't be fetched, try again", RetryAfter: minGap, Cause: cause}
		}
	}
	return c, err
}

func (v *Verifier) tryEach(p parts, refusal error, keys func(*remote) []key) (Claims, error) {
	for _, r := range v.remotes {
		c, err := v.try(p, keys(r))
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, errNoKey) {
			refusal = err
		}
	}
	return Claims{}, refusal
}

// look asks all sources at once: a slow one must not hold up the others' keys longer
// than itself.
func (v *Verifier) look(ctx context.Context, kid string) {
	var wg sync.WaitGroup
	for _, r := range v.remotes[1:] {
		wg.Go(func() { r.look(ctx, kid) })
	}
	v.remotes[0].look(ctx, kid)
	wg.Wait()
}

// keyless says which sources have no keys to judge a token with; nil: all have.
func (v *Verifier) keyless() error {
	var causes []error
	for _, r := range v.remotes {
		if r.within(maxStale) == nil {
			causes = append(causes, r.fault())
		}
	}
	return errors.Join(causes...)
}

// Fetch asks for the keys that live elsewhere, all at once, and returns what is wrong
// with each source that gave none. Nobody has to call it: the request that needs them
// does. One of kind fault.Invalid stays until the operator changes something.
func (v *Verifier) Fetch(ctx context.Context) (faults []error) {
	if len(v.remotes) == 0 {
		return nil
	}
	v.look(ctx, "")
	for _, r := range v.remotes {
		if err := r.fault(); err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}
