package devpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// keeper keeps a server running: it starts a new holder when one ends unasked. A holder
// ends when its PostgreSQL has ended, or when it was killed itself. The new one removes
// what is left of the previous server, as after any crash. The keeper of a shared server
// has no holder. It watches the server, and starts a holder when the server has ended:
// one of the programs that shared it becomes the owner, the others share again.
type keeper struct {
	job    job
	place  place
	report func(string)
	child  *child
	// shared is whether another program's holder has the server.
	shared atomic.Bool
	// url is the server's address. A new holder must bring the server back at the same one,
	// since the program's connections know no other.
	url string
	// failed receives the reason when the keeper gives up.
	failed chan error

	// cancel stops the server, and ended is closed when that is done, with the result in err.
	cancel context.CancelFunc
	ended  chan struct{}
	err    error
}

const (
	// maxRestarts is how often in succession a server is started again. The pause before
	// the first start is firstPause, and it doubles each time.
	maxRestarts = 5
	firstPause  = 200 * time.Millisecond
	// stable is how long a server must have run so that its end begins a new succession.
	stable = time.Minute
)

// start starts a holder and waits until its server answers.
func (k *keeper) start(ctx context.Context) (message, error) {
	c, err := startChild(k.place, k.job)
	if err != nil {
		return message{}, err
	}
	// The end of ctx stops the holder, unless release comes first: the server then
	// outlives ctx. Release returns false if the holder is being stopped already.
	release := context.AfterFunc(ctx, c.end)
	m := c.answer(k.report)
	if !release() || m.URL == "" {
		err := c.close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%s: %w", cmp.Or(c.doing, "starting"), context.Cause(ctx))
		} else if m.Error != "" {
			err = errors.New(m.Error)
		}
		return message{}, err
	}
	if m.Shared { // the holder has ended
		if err := c.close(); err != nil {
			return message{}, err
		}
	}
	k.child = c
	k.shared.Store(m.Shared)
	return m, nil
}

// await waits for the end of the server, or of ctx. The error is why it ended.
func (k *keeper) await(ctx context.Context) error {
	if k.shared.Load() {
		return watch(ctx, k.url)
	}
	release := context.AfterFunc(ctx, k.child.end)
	defer release()
	return k.child.wait()
}

// keep waits for the end of the holder and starts another one, until ctx ends or the
// server can't be started again.
func (k *keeper) keep(ctx context.Context) {
	defer close(k.ended)
	for failures := 0; ; {
		began := time.Now()
		cause := k.await(ctx)
		if ctx.Err() != nil {
			k.err = cause
			return
		}
		if time.Since(began) > stable {
			failures = 0
		}
		for again := true; again; again = cause != nil {
			if failures == maxRestarts {
				k.failed <- fmt.Errorf("PostgreSQL in %s has ended and could not be started again: %w", k.place.dir, cause)
				return
			}
			failures++
			k.report(fmt.Sprintf("PostgreSQL in %s has ended (%v); starting it again, try %d of %d",
				k.place.dir, cause, failures, maxRestarts))
			if !sleep(ctx, firstPause<<(failures-1)) {
				return
			}
			cause = k.restart(ctx)
		}
		k.report(fmt.Sprintf("PostgreSQL in %s runs again", k.place.dir))
	}
}

// restart starts a holder whose server has the same address as before, or finds the
// server that another program has started again there.
func (k *keeper) restart(ctx context.Context) error {
	m, err := k.start(ctx)
	if err != nil || m.URL == k.url {
		return err
	}
	err = errors.New("another program has started it at another address; stop that program")
	if m.Shared {
		return err
	}
	return errors.Join(err, k.child.close())
}

// close stops the server and waits until it has ended.
func (k *keeper) close() error {
	k.cancel()
	<-k.ended
	return k.err
}
