// Package revoke decides whether a token was revoked, from a copy of the list of revocations that is a few seconds old.
// One List serves a whole process, and no request reads the database by itself. Package store keeps the list; this
// package knows no SQL, and no request.
package revoke

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
)

const (
	// Fresh is how long a copy of the list is used without another look at the database, from the moment at which it was
	// asked for. So a token is refused everywhere at most this long after its revocation.
	Fresh = 10 * time.Second
	// Longest is how long a copy is used while the database can't be read. After that nothing is allowed, because a token
	// may have been revoked meanwhile.
	Longest = time.Minute
	// patience is how long a request waits for the database if there is a copy that it may use.
	patience = 2 * time.Second
	// gap is the time after a failed read in which no other one is tried.
	gap = time.Second
)

// ErrRevoked is the error of a revoked token: fault.Unauthenticated.
var ErrRevoked = fault.Public(fault.Unauthenticated, "Token has been revoked", nil)

// Token is what the list says something about.
type Token struct {
	// Of reports whether a revocation is about tokens of this one's issuer, which can have several names. It is called
	// after the list was read, so it may use what was read together with it. Required.
	Of func(store.Revocation) bool
	// ID is the claim jti, or "".
	ID string
	// Subject is what auth.claims.subject names, by default the claim sub, or "".
	Subject string
	// IssuedAt is the claim iat. The zero time, of a token without it, counts as older than everything.
	IssuedAt time.Time
}

// List is the list of revocations as this process knows it. It is safe for concurrent use.
type List struct {
	read func(context.Context) ([]store.Revocation, error)
	now  func() time.Time
	log  *slog.Logger

	mu sync.Mutex
	// known is the latest copy, nil before the first one.
	known *reading
	// current is the read in progress, or the last one if it failed.
	current *reading
}

// New returns a List that reads with read. It reads nothing until a token is checked. now is the clock of the ages, and
// log receives a warning when the list can't be read.
func New(read func(context.Context) ([]store.Revocation, error), now func() time.Time, log *slog.Logger) *List {
	// The monotonic clock stands still while Lambda has frozen the process; the time of day does not.
	wall := func() time.Time { return now().Round(0) }
	return &List{read: read, now: wall, log: log}
}

// Check returns nil if the token was not revoked, and ErrRevoked if it was. It is fault.Unavailable if the database
// can't be read and the last copy is older than Longest.
func (l *List) Check(ctx context.Context, t Token) error {
	r, err := l.copy(ctx)
	switch {
	case err != nil:
		return err
	case r.revokes(t):
		return ErrRevoked
	}
	return nil
}

// Age returns how old the copy is that checks use, 0 before the first one.
func (l *List) Age() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		return 0
	}
	return l.now().Sub(l.known.began).Abs()
}

// CheckNow is Check with a list that is read after the call began, for what only administrators do. Otherwise a leaked
// token could undo its own revocation before the copy has it. If the database can't be read, no copy replaces it. A
// token that the copy has costs no read.
func (l *List) CheckNow(ctx context.Context, t Token) error {
	if err := l.Check(ctx, t); err != nil {
		return err
	}
	list, err := l.read(ctx)
	if err != nil {
		l.log.Warn("could not read the list of revoked tokens", "err", err)
		return unavailable(err)
	}
	var r reading
	if r.index(list); r.revokes(t) {
		return ErrRevoked
	}
	return nil
}

// Forget makes the next check read the database. The process that changes the list calls it.
func (l *List) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.current = nil, nil
}

// copy returns a copy of the list that is young enough. All checks at the same time share one read.
func (l *List) copy(ctx context.Context) (*reading, error) {
	for again := true; ; again = false {
		known, r := l.choose(ctx)
		if r == nil {
			return known, nil
		}
		l.await(ctx, r, known != nil)
		switch now := l.now(); {
		case r.ended() && r.err == nil && (r.within(Fresh, now) || !again && r.within(Longest, now)):
			return r, nil
		case r.ended() && r.err == nil && again: // The process was frozen meanwhile.
		case known != nil && known.within(Longest, now):
			return known, nil
		case !r.ended():
			return nil, unavailable(context.Cause(ctx))
		default:
			return nil, unavailable(r.err)
		}
	}
}

// choose returns the copy that may be used, nil for none, and the read to wait for, nil for none.
func (l *List) choose(ctx context.Context) (known, r *reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.known != nil && l.known.within(Longest, now) {
		known = l.known
	}
	switch r = l.current; {
	case known != nil && known.within(Fresh, now):
		return known, nil
	case r != nil && !r.ended() && r.within(Fresh, now): // An older one began before the process was frozen, or hangs.
		return known, r
	case r != nil && r.ended() && now.Sub(r.at).Abs() < gap:
		return known, r
	}
	r = &reading{began: now, done: make(chan struct{})}
	l.current = r
	go l.fill(context.WithoutCancel(ctx), r) // #nosec G118 -- other requests wait for it too
	return known, r
}

// fill reads the list. Package store bounds the time of its statement.
func (l *List) fill(ctx context.Context, r *reading) {
	list, err := l.read(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	defer close(r.done)
	r.at, r.err = l.now(), err
	if err != nil {
		l.log.Warn("could not read the list of revoked tokens", "err", err)
		return
	}
	r.index(list)
	if l.current == r { // Otherwise a later read has begun, or the list has changed.
		l.known, l.current = r, nil
	}
}

// await waits for a read, until ctx ends. With a copy that may be used, it waits for a short time only.
func (l *List) await(ctx context.Context, r *reading, usable bool) {
	var late <-chan time.Time
	if usable {
		timer := time.NewTimer(max(0, patience-l.now().Sub(r.began).Abs()))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-r.done:
	case <-late:
	case <-ctx.Done():
	}
}

// unavailable is the error of a check that can't be made. An error that the store has chosen for callers stays as it
// is.
func unavailable(err error) error {
	if chosen, ok := errors.AsType[*fault.Error](err); ok && chosen.Kind == fault.Unavailable {
		return err
	}
	e := fault.Public(fault.Unavailable, "The list of revoked tokens can't be read, try again", err)
	e.RetryAfter = 2 * time.Second
	return e
}

// reading is one read of the list. The fields except began are set when done is closed.
type reading struct {
	began time.Time
	done  chan struct{}
	at    time.Time // when the read ended
	err   error
	// ids are the revoked tokens. Their issuers don't matter: an id can't be guessed, and only administrators write the
	// list.
	ids map[string]bool
	// subjects are the revocations of each subject, one for each issuer.
	subjects map[string][]store.Revocation
}

// index prepares the lookup.
func (r *reading) index(list []store.Revocation) {
	r.ids, r.subjects = map[string]bool{}, map[string][]store.Revocation{}
	for _, revoked := range list {
		if revoked.Before == nil {
			r.ids[revoked.TokenID] = true
		} else {
			r.subjects[revoked.Subject] = append(r.subjects[revoked.Subject], revoked)
		}
	}
}

// revokes reports whether the token is on the list.
func (r *reading) revokes(t Token) bool {
	if t.ID != "" && r.ids[t.ID] {
		return true
	}
	return t.Subject != "" && slices.ContainsFunc(r.subjects[t.Subject], func(revoked store.Revocation) bool {
		return t.IssuedAt.Before(*revoked.Before) && t.Of(revoked)
	})
}

// within reports whether the read began less than d ago. A clock that was set back makes it too old.
func (r *reading) within(d time.Duration, now time.Time) bool { return now.Sub(r.began).Abs() < d }

// ended reports whether the read has a result.
func (r *reading) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}
