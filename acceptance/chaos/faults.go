//go:build unix

package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// The kinds of faults.
const (
	killed     = "kill -9"
	terminated = "SIGTERM"
	stopped    = "SIGSTOP"
	cutOff     = "connections cut"
	frozen     = "connections frozen"
	delayed    = "connections delayed"
	answerLost = "answers lost"
	askingLost = "requests lost"
	backends   = "backends terminated"
	fast       = "PostgreSQL restarted, fast"
	immediate  = "PostgreSQL restarted, immediate"
)

// target is a process that faults are injected into: a server or an instance of a function.
type target interface {
	// name is the name of the process that runs now.
	name() string
	// isUp reports whether it can be given requests.
	isUp() bool
	// signal sends a signal, if the process runs.
	signal(sig syscall.Signal)
	// connections are those to the database.
	connections() *proxy
}

// weights are how often each kind occurs beside the kills, which have a rhythm of their own.
var weights = []struct {
	kind   string
	weight int
}{
	{terminated, 2}, {stopped, 2}, {cutOff, 4}, {frozen, 3}, {delayed, 2}, {answerLost, 8}, {askingLost, 4}, {backends, 5},
	{fast, 1}, {immediate, 1},
}

// draw returns a random kind.
func draw(random *rand.Rand) string {
	sum := 0
	for _, w := range weights {
		sum += w.weight
	}
	n := random.IntN(sum)
	for _, w := range weights {
		if n -= w.weight; n < 0 {
			return w.kind
		}
	}
	panic("unreachable: n is less than the sum")
}

// injectKills kills a random server every so often until ctx ends.
func (p *phase) injectKills(ctx context.Context, random *rand.Rand) {
	for harness.Wait(ctx, p.plan.killEvery*time.Duration(50+random.IntN(100))/100) == nil {
		if t := p.busier(random); t != nil {
			over := p.journal.injected(killed, t.name())
			t.signal(syscall.SIGKILL)
			over()
		}
	}
}

// busier returns the one of two random processes that has more requests open, so that most kills interrupt something.
// It is nil if no process runs.
func (p *phase) busier(random *rand.Rand) (t target) {
	up := slices.DeleteFunc(slices.Clone(p.targets), func(t target) bool { return !t.isUp() })
	most := -1
	for range min(len(up), 2) {
		other := up[random.IntN(len(up))]
		if n := p.journal.openOf(other.name()); n > most {
			t, most = other, n
		}
	}
	return t
}

// injectOthers injects the other faults, one after the other, until ctx ends. Each has ended when the next begins, so
// that faults that are short stay short.
func (p *phase) injectOthers(ctx context.Context, random *rand.Rand) {
	lastLong := time.Now()
	for harness.Wait(ctx, time.Duration(300+random.IntN(1500))*time.Millisecond) == nil {
		s, kind := p.targets[random.IntN(len(p.targets))], draw(random)
		restarts := kind == fast || kind == immediate
		if !s.isUp() || kind == terminated && p.plan.functions ||
			restarts && time.Since(p.lab.pg.restarted) < restartGap {
			continue
		}
		d := time.Duration(200+random.IntN(3000)) * time.Millisecond
		// Now and then a server is stopped or frozen for longer than a lease.
		if (kind == stopped || kind == frozen) && p.plan.long && time.Since(lastLong) > 100*time.Second {
			lastLong, d = time.Now(), 75*time.Second
			p.background.Go(func() { p.inject(ctx, kind, s, d, random.IntN(2) == 0) })
			continue
		}
		p.inject(ctx, kind, s, d, random.IntN(2) == 0)
	}
}

// restartGap is the least time between two restarts of PostgreSQL. devpg gives up a server that ends more often.
const restartGap = 65 * time.Second

// inject injects one fault, for d if it lasts. hang chooses what happens to a connection that has lost a piece.
func (p *phase) inject(ctx context.Context, kind string, s target, d time.Duration, hang bool) {
	name := s.name()
	if kind == fast || kind == immediate || kind == backends {
		name = ""
	}
	defer p.journal.injected(kind, name)()
	switch kind {
	case terminated:
		s.signal(syscall.SIGTERM)
	case stopped:
		s.signal(syscall.SIGSTOP)
		_ = harness.Wait(ctx, d)
		s.signal(syscall.SIGCONT)
	case cutOff:
		s.connections().set(func(x *proxy) { x.refusing = hang })
		s.connections().cut()
		p.disturb(ctx, s.connections(), d)
	case frozen:
		s.connections().freeze()
		p.disturb(ctx, s.connections(), d)
	case delayed:
		s.connections().set(func(x *proxy) { x.delay = d / 20 })
		p.disturb(ctx, s.connections(), d)
	case answerLost:
		s.connections().set(func(x *proxy) { x.lose = loss{Answers: 0.3, Hang: hang} })
		p.disturb(ctx, s.connections(), d)
	case askingLost:
		s.connections().set(func(x *proxy) { x.lose = loss{Requests: 0.3, Hang: hang} })
		p.disturb(ctx, s.connections(), d)
	case backends:
		p.terminateBackends(ctx)
	case fast, immediate:
		if err := p.lab.pg.restart(context.WithoutCancel(ctx), kind); err != nil {
			p.fail("%v", err)
		}
	}
}

// disturb ends what was done to a proxy after d.
func (p *phase) disturb(ctx context.Context, x *proxy, d time.Duration) {
	_ = harness.Wait(ctx, d)
	x.calm()
}

// terminateBackends ends about half of the database sessions of all servers.
func (p *phase) terminateBackends(ctx context.Context) {
	conn, err := pgx.Connect(ctx, p.direct)
	if err != nil {
		return // PostgreSQL restarts
	}
	defer conn.Close(ctx)
	_, _ = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.5`)
}
