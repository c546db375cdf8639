package devpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// keeper keeps a server running: it starts a new holder when one ends unasked. A holder
// ends when its PostgreSQL has ended, or when it was killed itself. The new one removes
// what is left of the previous server, as after any crash.
type keeper struct {
	job    job
	place  place
	report func(string)
	child  *child
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
	k.child = c
	return m, nil
}

// keep waits for the end of the holder and starts another one, until ctx ends or the
// server can't be started again.
func (k *keeper) keep(ctx context.Context) {
	defer close(k.ended)
	for failures := 0; ; {
		began := time.Now()
		release := context.AfterFunc(ctx, k.child.end)
		cause := k.child.wait()
		release()
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

// restart starts a holder whose server has the same address as before.
func (k *keeper) restart(ctx context.Context) error {
	m, err := k.start(ctx)
	if err != nil {
		return err
	}
	if m.Shared || m.URL != k.url {
		// No holder had the lock for a moment.
		return errors.Join(errors.New("another program has taken over the directory; stop it"), k.child.close())
	}
	return nil
}

// close stops the server and waits until it has ended.
func (k *keeper) close() error {
	k.cancel()
	<-k.ended
	return k.err
}
