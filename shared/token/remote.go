package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The rules for fetched keys. They are not options: docs/keys.md promises each of them,
// and no other value suits one operator better than another.
const (
	// maxAge is how old known keys may be before they are fetched again. It bounds how
	// long a key that was removed at its source is still accepted.
	maxAge = 5 * time.Minute
	// minGap is the time between the starts of two fetches. Anybody can send tokens with
	// unknown kids; they must not be able to make this program flood the source.
	minGap = 10 * time.Second
	// maxAbsence is how long a kid that was missing in a fetched set causes no further
	// fetch. Without it, one outdated token that is sent again and again would use up
	// every gap, and a token with a new kid would wait.
	maxAbsence = time.Minute
	// maxStale is how long keys are used while their source can't be read. An outage of
	// less than a day must not lock out all callers; a longer one has been noticed.
	maxStale = 24 * time.Hour
	// fetchTime limits a whole fetch: the metadata document, the set, redirects and bodies.
	fetchTime = 5 * time.Second
	// maxAsked is how many unknown kids are remembered while minGap allows no fetch. Their tokens
	// get 503, those of further unknown kids 401: so a flood of random kids gets few 503s.
	maxAsked = 64
	// maxWait is the longest rest of minGap that a request waits for.
	maxWait = time.Second
	// maxWaiters is how many requests wait for the rest of minGap at the same time. The others get 503.
	maxWaiters = 8
)

// remote is a source of keys that are fetched. The request that needs the keys fetches
// them. A goroutine in the background would not run on Lambda, which freezes the process
// between requests. A remote is safe for concurrent use.
type remote struct {
	name  string // for errors
	fetch fetch
	now   func() time.Time
	// issuers are Rules.Issuers of the source.
	issuers []string
	set     atomic.Pointer[keySet] // the last fetched set; nil before the first

	waiting atomic.Int32 // requests that wait for the rest of minGap

	mu     sync.Mutex
	flight chan struct{}         // closed when the current fetch ends; nil if there is none
	tried  time.Time             // when the last fetch began
	begun  int                   // how many fetches have begun
	failed error                 // the error of the last fetch; nil if it succeeded
	asked  map[kidHash]asked     // unknown kids that no set has answered
	absent map[kidHash]time.Time // kids that a fetched set lacked, and when that fetch began
}

// asked is how many fetches had begun when a kid was asked for, first and last.
type asked struct{ first, last int }

// kidHash stands for a kid of a token, which anybody can make as long as a token.
type kidHash [sha256.Size]byte

func hashOf(kid string) kidHash { return sha256.Sum256([]byte(kid)) }

// keySet is what one fetch returned. It may be empty: then all keys were removed.
type keySet struct {
	batch
	at  time.Time // when the fetch began; a later change may be missing
	end time.Time // when it ended
}

// knows reports whether a key in the set has this kid.
func (s *keySet) knows(kid string) bool {
	return kid != "" && slices.ContainsFunc(s.keys, func(k key) bool { return k.id == kid })
}

// passesOver reports whether the set contains an unusable key with this kid.
func (s *keySet) passesOver(kid string) bool {
	return slices.ContainsFunc(s.over, func(p PassedOver) bool { return p.kid == kid })
}

// named reports whether all keys of the set have a kid. Only then does a kid that is
// missing in the set mean that its key is missing too.
func (s *keySet) named() bool {
	return !slices.ContainsFunc(s.keys, func(k key) bool { return k.id == "" })
}

// since returns the time since t by the wall clock. The monotonic clock stands still
// while Lambda freezes the process. A wall clock that was set back counts as if the same
// time had passed, so that keys become outdated rather than valid for longer.
func (r *remote) since(t time.Time) time.Duration { return r.now().Round(0).Sub(t).Abs() }

// within returns the set if it was fetched less than age ago, and otherwise nil.
func (r *remote) within(age time.Duration) *keySet {
	if s := r.set.Load(); s != nil && r.since(s.at) < age {
		return s
	}
	return nil
}

// fresh returns the keys that need no new fetch.
func (r *remote) fresh() []key { return r.within(maxAge).all() }

// known returns the keys that may be used while the source can't be read.
func (r *remote) known() []key { return r.within(maxStale).all() }

func (s *keySet) all() []key {
	if s == nil {
		return nil
	}
	return s.keys
}

// renew fetches keys that are older than maxAge, and returns the known keys. If another
// request is fetching them, or did so less than minGap ago, renew returns the old keys at
// once: one request waits for a slow source, and the others don't. kid is that of the token.
func (r *remote) renew(ctx context.Context, kid string) []key {
	if r.set.Load() == nil || r.within(maxAge) != nil {
		return nil
	}
	r.mu.Lock()
	_, mine := r.join()
	r.mu.Unlock()
	if mine {
		r.load(ctx, kid)
	}
	return r.known()
}

// lookUp fetches for a token that no known key verifies. It doesn't fetch if a known key
// has the token's kid, because a new set would not change the result, or if a set
// lacked the kid less than maxAbsence ago. If another request is fetching, lookUp waits
// for it, because that set may contain the key. An empty kid is never known.
//
// lookUp returns 0, or how long it takes until a fetch can answer whether there is such a key.
// If that is soon, few requests at a time wait for it.
func (r *remote) lookUp(ctx context.Context, kid string) time.Duration {
	rest := r.lookUpNow(ctx, kid)
	if rest == 0 || rest > maxWait {
		return rest
	}
	defer r.waiting.Add(-1)
	if r.waiting.Add(1) > maxWaiters {
		return rest
	}
	select {
	case <-time.After(rest):
		return r.lookUpNow(ctx, kid)
	case <-ctx.Done():
		return rest
	}
}

// lookUpNow is lookUp without waiting for the rest of minGap.
func (r *remote) lookUpNow(ctx context.Context, kid string) time.Duration {
	r.mu.Lock()
	s, hash := r.within(maxStale), hashOf(kid)
	at, missed := r.absent[hash]
	if s != nil && s.knows(kid) || missed && r.since(at) < maxAbsence {
		r.mu.Unlock()
		return 0
	}
	if q, before := r.asked[hash]; before {
		r.asked[hash] = asked{q.first, r.begun}
	} else if kid != "" && len(r.asked) < maxAsked {
		r.asked[hash] = asked{r.begun, r.begun}
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
	return r.rest(kid)
}

// rest returns the time until the next fetch is allowed if only that one can answer whether there
// is a key with this kid. It returns 0 if a fetch that began after the kid was first asked for
// has answered it, or if the answer would not count: a key without a name may be the one of any
// token, so that such sets are tried as they are.
func (r *remote) rest(kid string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.within(maxStale)
	if _, open := r.asked[hashOf(kid)]; !open || s == nil || !s.named() || s.knows(kid) || s.passesOver(kid) {
		return 0
	}
	return max(minGap-r.since(r.tried), time.Millisecond)
}

// join returns the current fetch, or starts one if minGap allows it. mine means that the
// caller has to execute the fetch with load. The caller must hold the lock.
func (r *remote) join() (flight chan struct{}, mine bool) {
	if r.flight == nil && (r.tried.IsZero() || r.since(r.tried) >= minGap) {
		r.flight, r.tried, r.begun = make(chan struct{}), r.now().Round(0), r.begun+1
		return r.flight, true
	}
	return r.flight, false
}

// load executes the fetch that join started. The end of ctx doesn't end it, because other
// requests wait for it; fetchTime does.
func (r *remote) load(ctx context.Context, kid string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
	defer cancel()
	var found batch
	var err error
	defer func() {
		if recover() != nil { // a set that somebody else publishes must not crash this process
			err = errors.New("the answer can't be read")
		}
		r.end(kid, found, err)
	}()
	found, err = r.fetch(ctx)
}

// end records the result of a fetch and wakes up the requests that wait for it.
func (r *remote) end(kid string, found batch, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed = err; err == nil {
		s := &keySet{found, r.tried, r.now().Round(0)}
		r.set.Store(s)
		r.answer(s, kid)
	} else {
		// A kid that nobody asks for again must not be remembered while the source is down.
		maps.DeleteFunc(r.asked, func(_ kidHash, q asked) bool { return q.last < r.begun-int(maxAbsence/minGap) })
	}
	close(r.flight)
	r.flight = nil
}

// answer records which kids a fetched set lacks: the one that the set was fetched for, and those
// that were asked for before that fetch began. A later one may have been published since.
func (r *remote) answer(s *keySet, kid string) {
	// Each fetch adds maxAsked + 1 kids at most, and fetches are minGap apart: the map stays small.
	maps.DeleteFunc(r.absent, func(_ kidHash, at time.Time) bool { return r.since(at) >= maxAbsence })
	for _, k := range s.keys {
		delete(r.asked, hashOf(k.id))
	}
	lacks := func(hash kidHash) {
		delete(r.asked, hash)
		if s.named() {
			r.absent[hash] = r.tried
		}
	}
	if kid != "" && !s.knows(kid) {
		lacks(hashOf(kid))
	}
	for hash, q := range r.asked {
		if q.first < r.begun {
			lacks(hash)
		}
	}
}

// fault returns the error of the last fetch, or nil if it succeeded.
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

// tryFetched verifies a token that the other keys refused. It tries the fetched keys that
// are fresh, then those that have to be fetched again, and if none of them verifies the
// signature, those that it fetches for this token. This order keeps a token with a known
// key from waiting for a slow source.
func (v *Verifier) tryFetched(ctx context.Context, p parts, refusal error) (Claims, error) {
	before := make([]*keySet, len(v.remotes))
	for i, r := range v.remotes {
		before[i] = r.set.Load()
	}
	c, err := v.tryEach(p, refusal, (*remote).fresh)
	if err != nil {
		c, err = v.tryEach(p, err, func(r *remote) []key { return r.renew(ctx, p.kid) })
	}
	var rest time.Duration
	others := v.others(p, err)
	if len(others) > 0 {
		rest = lookUp(ctx, others, p.kid)
		// The keys of an unchanged set were tried above. Anybody can send a token that none of them
		// verifies, so that trying them twice would double its cost.
		c, err = v.tryEach(p, err, func(r *remote) []key {
			if r.set.Load() == before[slices.Index(v.remotes, r)] {
				return nil
			}
			return r.known()
		})
	}
	// If a source has no keys, or may have published a key since it was read, the token may be
	// valid. 401 would make its client throw the token away; 503 makes it try again.
	if others = v.others(p, err); len(others) > 0 {
		if cause := unreadable(others); cause != nil {
			err = tryAgain(minGap, cause)
		} else if rest > 0 {
			err = tryAgain(rest, v.pending())
		}
	}
	return c, err
}

// others returns the sources that may have a key that accepts the token although err refused it: all of them if no
// known key verifies it. Another source can have the key that verified it, for other audiences or clients. If the
// refusal was about these, the sources count that were never read, and those of the token's issuer that lack its kid.
func (v *Verifier) others(p parts, err error) []*remote {
	switch {
	case errors.Is(err, errNoKey):
		return v.remotes
	case !isForeign(err):
		return nil
	}
	o, _ := parseObject(p.payload)
	iss, _ := o.text("iss")
	return slices.DeleteFunc(slices.Clone(v.remotes), func(r *remote) bool {
		ofIssuer := slices.Contains(r.issuers, iss)
		if s := r.within(maxStale); s != nil {
			return !ofIssuer || p.kid == "" || s.knows(p.kid)
		}
		return len(r.issuers) > 0 && !ofIssuer
	})
}

// pending says why a token with an unknown kid was not judged.
func (v *Verifier) pending() error {
	causes := []error{fmt.Errorf("no known key has the kid of the token, and two fetches are %v apart", minGap)}
	for _, r := range v.remotes {
		causes = append(causes, r.fault())
	}
	return errors.Join(causes...)
}

// tryAgain is the error for a token that may be valid.
func tryAgain(after time.Duration, cause error) error {
	const detail = "The signing keys can't be fetched, try again"
	return &fault.Error{Kind: fault.Unavailable, Detail: detail, RetryAfter: after, Cause: cause}
}

// tryEach verifies a token with the keys of each source. refusal is the error so far; a
// key that verifies the signature but refuses the claims has a better one.
func (v *Verifier) tryEach(p parts, refusal error, keys func(*remote) []key) (Claims, error) {
	for _, r := range v.remotes {
		c, err := v.try(p, keys(r), refusal)
		if err == nil {
			return c, nil
		}
		refusal = err
	}
	return Claims{}, refusal
}

// lookUp fetches from several sources at the same time, so that the waiting is as long as
// the slowest one and not the sum of all. It returns the longest of their answers.
func lookUp(ctx context.Context, sources []*remote, kid string) time.Duration {
	var wg sync.WaitGroup
	rests := make([]time.Duration, len(sources))
	for i, r := range sources[1:] {
		wg.Go(func() { rests[i+1] = r.lookUp(ctx, kid) })
	}
	rests[0] = sources[0].lookUp(ctx, kid)
	wg.Wait()
	return slices.Max(rests)
}

// unreadable returns the errors of the sources without usable keys, or nil if all sources
// have some.
func unreadable(sources []*remote) error {
	var causes []error
	for _, r := range sources {
		if r.within(maxStale) == nil {
			causes = append(causes, r.fault())
		}
	}
	return errors.Join(causes...)
}

// Fetch fetches the keys of all sources that need a request, at the same time, and
// returns an error for each source that failed. An error of kind fault.Invalid stays
// until the operator changes something. Verify fetches by itself; Fetch lets a server
// report errors at its start.
func (v *Verifier) Fetch(ctx context.Context) (faults []error) {
	if len(v.remotes) == 0 {
		return nil
	}
	lookUp(ctx, v.remotes, "")
	for _, r := range v.remotes {
		if err := r.fault(); err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}

// PassedOver returns the keys that the sources contain and that verify nothing, and the fetched
// sets without any usable key. Sources that were never fetched are not in it: see Fetch.
func (v *Verifier) PassedOver() []PassedOver {
	all := slices.Clone(v.over)
	for _, r := range v.remotes {
		s := r.set.Load()
		if s == nil {
			continue
		}
		if len(s.keys) == 0 {
			all = append(all, PassedOver{Source: r.name, Why: "its set has no usable key, so all its tokens are refused"})
		}
		all = append(all, s.over...)
	}
	return all
}

// Clock compares the clock of a source of keys with the one here.
type Clock struct {
	// Source names the source, such as keys[0].
	Source string
	// Ahead is by how much the source's clock is ahead at least. It is negative if that clock is behind, and 0 within the
	// precision of the comparison: a second, and the time that the answer took.
	Ahead time.Duration
}

// Clocks returns a Clock for each fetched set that came with a date.
func (v *Verifier) Clocks() (all []Clock) {
	for _, r := range v.remotes {
		s := r.set.Load()
		if s == nil || s.date.IsZero() {
			continue
		}
		const precision = time.Second // of the header Date, which is rounded down
		ahead := max(s.date.Sub(s.end), 0)
		if behind := s.at.Sub(s.date.Add(precision)); behind > 0 {
			ahead = -behind
		}
		all = append(all, Clock{r.name, ahead})
	}
	return all
}

// unusable returns why a token with this kid may have found no key, or "".
func (v *Verifier) unusable(kid string) string {
	var why []string
	for _, p := range v.PassedOver() {
		if p.Key == "" || kid != "" && p.kid == kid {
			why = append(why, p.String())
		}
	}
	return strings.Join(why, "; ")
}
