package api

import (
	"context"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Readiness answers whether the database can be used: whether it answers, and whether its
// schema fits this program. It needs no token, since the probe of an orchestrator has none.
//
// An anonymous caller can send any number of probes, so all probes of a second share one
// check. They learn the same few fixed texts as a caller with a token whose request needs
// the database: no host, user, password or error text of the database.
type Readiness struct {
	// Check is store.DB.Check. Required.
	Check func(context.Context) error
	// Now is the clock that decides whether a check is still fresh. Required.
	Now func() time.Time

	mu     sync.Mutex
	latest *check
}

// check is one check of the database. err is set when done is closed.
type check struct {
	began time.Time
	done  chan struct{}
	err   error
}

const (
	// checkFor is how long the result of a check is used, from its start.
	checkFor = time.Second
	// checkTimeout bounds a check, for a database that accepts connections and never
	// answers. Probes usually give up after one to three seconds.
	checkTimeout = 2 * time.Second
	// readyRetry is the Retry-After of a server that is not ready.
	readyRetry = 2 * time.Second
)

// endpoints implements Resource.
func (r *Readiness) endpoints() []Endpoint {
	return []Endpoint{answer(route.Ready, r.ready), answer(route.ReadyHead, r.ready).withoutBody()}
}

// ready answers 200, or 503 with the reason and its remedy. It doesn't end with the
// request's context: a check ends within checkTimeout, and others may wait for it.
func (r *Readiness) ready(context.Context, *request, nothing) (wire.Ready, error) {
	c := r.current()
	<-c.done
	if c.err != nil {
		return wire.Ready{}, notReady(c.err)
	}
	return wire.Ready{Status: "ok"}, nil
}

// current returns the check that decides about a probe: the latest one if it is still
// running or fresh, otherwise a new one.
func (r *Readiness) current() *check {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.Now()
	if c := r.latest; c != nil && (!c.ended() || now.Sub(c.began).Abs() < checkFor) {
		return c
	}
	c := &check{began: now, done: make(chan struct{})}
	r.latest = c
	go func() {
		defer close(c.done)
		ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
		defer cancel()
		c.err = r.Check(ctx)
	}()
	return c
}

// ended reports whether the check has a result.
func (c *check) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// notReady returns the 503 for the error of a check. Only the texts of fault.Unavailable
// are shown, which name what the operator can do. Every other error is for the log.
func notReady(err error) error {
	detail := "The database can't be used; the log of this server has the reason"
	if fault.KindOf(err) == fault.Unavailable {
		detail = fault.Detail(err)
	}
	e := fault.Public(fault.Unavailable, detail, err)
	e.RetryAfter = readyRetry
	return e
}
