package revoke_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/revoke"
	"github.com/keyway-agents/keyway/shared/store"
)

// database imitates the database: it counts the reads, and answers each with what the test sets.
type database struct {
	mu    sync.Mutex
	list  []store.Revocation
	err   error
	takes time.Duration
	reads int
}

func (d *database) read(context.Context) ([]store.Revocation, error) {
	d.mu.Lock()
	d.reads++
	list, err, takes := d.list, d.err, d.takes
	d.mu.Unlock()
	time.Sleep(takes)
	return list, err
}

func (d *database) set(change func(*database)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *database) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reads
}

// now is the clock inside of a bubble.
func now() time.Time { return time.Now() }

func listOf(d *database) *revoke.List {
	return revoke.New(d.read, now, slog.New(slog.DiscardHandler))
}

// of is the Token.Of of a token whose issuer has these names.
func of(names ...string) func(store.Revocation) bool {
	return func(r store.Revocation) bool { return slices.Contains(names, r.Issuer) }
}

// ann is a token without iat, so that a revocation of its subject is about it.
var ann = revoke.Token{Of: of("i"), ID: "t-1", Subject: "ann"}

var annRevoked = []store.Revocation{{Issuer: "i", TokenID: "t-1"}}

// wants checks what the list says about ann's token.
func wants(t *testing.T, l *revoke.List, want error) {
	t.Helper()
	if err := l.Check(t.Context(), ann); !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("%v, want %v", err, want)
	}
}

func TestARevocationIsAboutItsIssuersTokensOnly(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_000_000, 0)
	list := revoke.New(func(context.Context) ([]store.Revocation, error) {
		return []store.Revocation{
			{Issuer: "i", TokenID: "t-1"},
			{Issuer: "i", Subject: "ann", Before: &at},
			{Issuer: "", Subject: "bob", Before: &at},
		}, nil
	}, time.Now, slog.New(slog.DiscardHandler))
	for name, row := range map[string]struct {
		token   revoke.Token
		revoked bool
	}{
		"the token":                     {revoke.Token{Of: of("i"), ID: "t-1", Subject: "x", IssuedAt: at}, true},
		"its issuer's other name":       {revoke.Token{Of: of("j", "i"), ID: "t-1"}, true},
		"the id at another issuer":      {revoke.Token{Of: of("j"), ID: "t-1"}, true},
		"another token":                 {revoke.Token{Of: of("i"), ID: "t-2"}, false},
		"a token without claims":        {revoke.Token{Of: of("i")}, false},
		"an older token":                {revoke.Token{Of: of("i"), Subject: "ann", IssuedAt: at.Add(-1)}, true},
		"a token of that moment":        {revoke.Token{Of: of("i"), Subject: "ann", IssuedAt: at}, false},
		"a later token":                 {revoke.Token{Of: of("i"), Subject: "ann", IssuedAt: at.Add(1)}, false},
		"a token without iat":           {revoke.Token{Of: of("i"), Subject: "ann"}, true},
		"the subject at another issuer": {revoke.Token{Of: of("j"), Subject: "ann"}, false},
		"a subject of any issuer":       {revoke.Token{Of: of("", "k"), Subject: "bob"}, true},
		"an id that is the subject":     {revoke.Token{Of: of("i"), ID: "ann"}, false},
		"a subject that is the id":      {revoke.Token{Of: of("i"), Subject: "t-1"}, false},
	} {
		if err := list.Check(t.Context(), row.token); errors.Is(err, revoke.ErrRevoked) != row.revoked ||
			(err != nil) != row.revoked {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARevocationAndItsUndoTakeEffectWithinTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &database{}
		l := listOf(d)
		wants(t, l, nil)
		d.set(func(d *database) { d.list = annRevoked })
		time.Sleep(revoke.Fresh - time.Nanosecond)
		wants(t, l, nil)
		time.Sleep(time.Nanosecond)
		wants(t, l, revoke.ErrRevoked)
		d.set(func(d *database) { d.list = nil })
		time.Sleep(revoke.Fresh)
		wants(t, l, nil)
		if n := d.count(); n != 3 {
			t.Errorf("%d reads", n)
		}
	})
}

func TestAdministratorsAreCheckedAgainstTheDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &database{}
		l := listOf(d)
		wants(t, l, nil)
		if err := l.CheckNow(t.Context(), ann); err != nil {
			t.Error(err)
		}
		d.set(func(d *database) { d.list = annRevoked })
		wants(t, l, nil) // by the copy
		if err := l.CheckNow(t.Context(), ann); !errors.Is(err, revoke.ErrRevoked) {
			t.Errorf("revoked a moment ago: %v", err)
		}
		d.set(func(d *database) { d.list, d.err = nil, errors.New("no connection") })
		wants(t, l, nil)
		if err := l.CheckNow(t.Context(), ann); !errors.Is(err, fault.Unavailable) {
			t.Errorf("without the database: %v", err)
		}
		d.set(func(d *database) { d.list, d.err = annRevoked, nil })
		time.Sleep(revoke.Fresh)
		wants(t, l, revoke.ErrRevoked)
		reads := d.count()
		if err := l.CheckNow(t.Context(), ann); !errors.Is(err, revoke.ErrRevoked) || d.count() != reads {
			t.Errorf("by the copy: %v after %d reads", err, d.count()-reads)
		}
	})
}

// The copy is as old as its question, not as its answer: the answer may have been on its way for long.
func TestTheAgeCountsFromTheStartOfTheRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &database{takes: 4 * time.Second}
		l := listOf(d)
		wants(t, l, nil)
		d.set(func(d *database) { d.list, d.takes = annRevoked, 0 })
		time.Sleep(revoke.Fresh - 4*time.Second - time.Nanosecond)
		wants(t, l, nil)
		time.Sleep(time.Nanosecond)
		wants(t, l, revoke.ErrRevoked)
	})
}

func TestManyRequestsShareOneRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &database{takes: time.Second, list: annRevoked}
		l := listOf(d)
		for round := 1; round <= 3; round++ {
			var wg sync.WaitGroup
			for range 1000 {
				wg.Go(func() { wants(t, l, revoke.ErrRevoked) })
			}
			wg.Wait()
			if n := d.count(); n != round {
				t.Errorf("%d reads after round %d", n, round)
			}
			time.Sleep(revoke.Fresh)
		}
	})
}

// While the database refuses, or answers nothing, a copy is used for a minute. After that, nothing is allowed.
func TestWithoutTheDatabaseTheCopyIsUsedForAMinuteAndThenNothingIsAllowed(t *testing.T) {
	t.Parallel()
	refused := errors.New("connection refused")
	for name, breaks := range map[string]func(*database){
		"it refuses": func(d *database) { d.err = refused },
		"it hangs":   func(d *database) { d.takes, d.err = 8*time.Second, context.DeadlineExceeded },
		"it is slow": func(d *database) { d.takes = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &database{}
				l := listOf(d)
				began := time.Now()
				wants(t, l, nil)
				d.set(breaks)
				for time.Since(began) < revoke.Longest-5*time.Second {
					time.Sleep(500 * time.Millisecond)
					asked := time.Now()
					wants(t, l, nil)
					if waited := time.Since(asked); waited > 2*time.Second {
						t.Errorf("a request waited for %s", waited)
					}
				}
				time.Sleep(revoke.Longest - time.Since(began))
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				err := l.Check(ctx, ann)
				answer, ok := errors.AsType[*fault.Error](err)
				if !ok || answer.Kind != fault.Unavailable || answer.RetryAfter == 0 {
					t.Errorf("after a minute: %v", err)
				}
				if n := d.count(); n < 5 || n > 70 {
					t.Errorf("%d reads", n)
				}
				d.set(func(d *database) { d.list, d.err, d.takes = annRevoked, nil, 0 })
				time.Sleep(revoke.Fresh)
				wants(t, l, revoke.ErrRevoked)
				time.Sleep(2 * time.Hour) // until the slow reads have ended
			})
		})
	}
}

// A list that was never read allows nothing, and what the store says to callers reaches them.
func TestAListThatWasNeverReadAllowsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d := &database{err: errors.New("host db.internal refuses")}
		l := revoke.New(d.read, now, slog.New(slog.NewTextHandler(&log, nil)))
		for range 50 {
			err := l.Check(t.Context(), ann)
			if fault.KindOf(err) != fault.Unavailable || strings.Contains(fault.Detail(err), "db.internal") {
				t.Errorf("%v", err)
			}
		}
		if n := d.count(); n != 1 {
			t.Errorf("%d reads in one second", n)
		}
		if !strings.Contains(log.String(), "db.internal") {
			t.Errorf("the log has %q", &log)
		}
		migrate := fault.Public(fault.Unavailable, "run keyway migrate", nil)
		d.set(func(d *database) { d.err = migrate })
		time.Sleep(time.Second)
		wants(t, l, migrate)
		d.set(func(d *database) { d.err = nil })
		time.Sleep(time.Second)
		wants(t, l, nil)
	})
}

// Lambda freezes a process at any moment. A read that was frozen says nothing about the time since.
func TestAReadThatWasFrozenIsRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &database{takes: time.Second}
		offset := time.Duration(0)
		var mu sync.Mutex
		clock := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(offset)
		}
		l := revoke.New(d.read, clock, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := l.Check(ctx, ann); fault.KindOf(err) != fault.Unavailable { // The invocation ends before the read does.
			t.Errorf("%v", err)
		}
		mu.Lock()
		offset = time.Hour // Timers stand still while a process is frozen, the time of day does not.
		mu.Unlock()
		d.set(func(d *database) { d.list = annRevoked })
		wants(t, l, revoke.ErrRevoked)
		time.Sleep(2 * time.Second)
		wants(t, l, revoke.ErrRevoked)
	})
}

func TestAClockThatIsSetBackMakesTheCopyTooOld(t *testing.T) {
	t.Parallel()
	d, at := &database{}, time.Unix(1_000_000, 0)
	l := revoke.New(d.read, func() time.Time { return at }, slog.New(slog.DiscardHandler))
	wants(t, l, nil)
	d.set(func(d *database) { d.list = annRevoked })
	at = at.Add(-time.Hour)
	wants(t, l, revoke.ErrRevoked)
}

// The process that stores a revocation applies it at once, also if a read is under way that began before.
func TestForgetReadsTheListAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &database{}
		l := listOf(d)
		wants(t, l, nil)
		time.Sleep(revoke.Fresh)
		d.set(func(d *database) { d.takes = time.Second })
		go func() { _ = l.Check(context.Background(), ann) }()
		synctest.Wait()
		d.set(func(d *database) { d.list, d.takes = annRevoked, 0 })
		l.Forget()
		wants(t, l, revoke.ErrRevoked)
		time.Sleep(2 * time.Second) // The earlier read ends, and changes nothing.
		wants(t, l, revoke.ErrRevoked)
	})
}

// A client that disconnects is no error of the server, and does not end the read that others wait for.
func TestAClientThatDisconnectsEndsNoRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &database{takes: time.Second, list: annRevoked}
		l := listOf(d)
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if err := l.Check(ctx, ann); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		wants(t, l, revoke.ErrRevoked)
		if n := d.count(); n != 1 {
			t.Errorf("%d reads", n)
		}
	})
}
