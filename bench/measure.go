package main

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	starts      = 5      // of each subject, besides one that isn't measured
	firstTexts  = 50     // streams in a round of the first-byte cell
	callersMost = 64     // the greatest number of callers
	listed      = 1000   // sessions that are there when they are listed, one run each
	grown       = 300    // runs in the session that grows
	growthShare = 30     // of them, at the beginning and at the end, are compared
	maxRequests = 20_000 // in one cell
	maxWrong    = 100    // wrong answers in one cell: nothing is learned from more
)

// bench is a run of the benchmark.
type bench struct {
	flags
	lab      *lab
	subjects []*subject
	report   report
}

// usage is what a process group has used. Pages that its processes share count
// for each.
type usage struct {
	processes      int
	cpu            time.Duration // user and system, since its start
	resident, peak int64         // bytes
}

// usage fails when the server ended: what is left of its group says nothing.
func (s *subject) usage() (usage, error) {
	select {
	case <-s.done:
		return usage{}, fmt.Errorf("%s ended while it was measured (%s); it wrote last:\n%s", s.name, s.cmd.ProcessState, s.tail())
	default:
		return groupUsage(s.cmd.Process.Pid)
	}
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// measure takes every figure, the subjects in turn within each cell, so that both
// meet the same machine.
func (b *bench) measure(ctx context.Context) error {
	if err := b.measureStarts(ctx); err != nil {
		return err
	}
	for _, s := range b.subjects {
		if _, err := s.start(ctx); err != nil {
			return err
		}
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	for _, c := range b.cells() {
		say("%s", c)
		for range b.rounds {
			for i := range b.subjects {
				if err := b.measureCell(ctx, i, c); err != nil {
					return err
				}
			}
		}
	}
	for i, s := range b.subjects {
		u, err := s.usage()
		if err != nil {
			return err
		}
		b.report.add(i, "memory after the load, MiB", mib(u.resident))
		b.report.add(i, "memory at its peak, MiB", mib(u.peak))
	}
	return b.measureFirstText(ctx)
}

// measureStarts measures from exec to the first answers. The first start makes the
// tables and is left out.
func (b *bench) measureStarts(ctx context.Context) error {
	for n := range starts + 1 {
		say("start %d of %d", n, starts)
		for i, s := range b.subjects {
			t, err := s.start(ctx)
			if err != nil {
				return err
			}
			u, err := s.usage()
			s.stop()
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			b.report.add(i, "exec to the first 200 of GET /health, ms", ms(t.health))
			b.report.add(i, "exec to the first 200 of GET /agents with a token, ms", ms(t.agents))
			b.report.add(i, "memory after the start, MiB", mib(u.resident))
		}
	}
	return nil
}

// cell is one kind of request at one number of callers.
type cell struct {
	name    string
	callers int
	ask     func(context.Context, *subject) error
}

func (c cell) String() string {
	if c.callers == 1 {
		return c.name + ", 1 caller"
	}
	return fmt.Sprintf("%s, %d callers", c.name, c.callers)
}

func (b *bench) cells() (out []cell) {
	text := b.lab.model.fast.text
	list := func(ctx context.Context, s *subject) error { return s.listAgents(ctx) }
	run := func(ctx context.Context, s *subject) error { return s.run(ctx, text) }
	stream := func(ctx context.Context, s *subject) error { _, err := s.stream(ctx, text); return err }
	sessions := func(ctx context.Context, s *subject) error { return s.listSessions(ctx) }
	detail := func(ctx context.Context, s *subject) error { return s.session(ctx) }
	for _, row := range []struct {
		name    string
		callers []int
		ask     func(context.Context, *subject) error
	}{
		{"GET /agents", []int{1, 16}, list},
		{fmt.Sprintf("GET /sessions?limit=20 of %d", listed), []int{1, 16}, sessions},
		{fmt.Sprintf("GET /sessions/{id} of %d runs", grown), []int{1, 16}, detail},
		{"a run, not streamed", []int{1, 16, callersMost}, run},
		{fmt.Sprintf("a streamed run of %d tokens", b.tokens), []int{1, 16, callersMost}, stream},
	} {
		for _, callers := range row.callers {
			out = append(out, cell{row.name, callers, row.ask})
		}
	}
	return out
}

// measureCell lets the callers ask the i-th subject for the cell's time, after as
// many requests to warm up.
func (b *bench) measureCell(ctx context.Context, i int, c cell) error {
	s := b.subjects[i]
	for range c.callers {
		if err := c.ask(ctx, s); err != nil {
			s.wrong(err)
		}
	}
	before, err := s.usage()
	if err != nil {
		return err
	}
	begin := time.Now()
	right := s.load(ctx, c, b.cell)
	wall := time.Since(begin)
	after, err := s.usage()
	if err := cmp.Or(ctx.Err(), err); err != nil {
		return err
	}
	if right == 0 {
		say("%s gave no right answer: %s", s.name, c)
		return nil
	}
	b.report.add(i, "CPU of "+c.String()+", ms", ms(after.cpu-before.cpu)/float64(right))
	b.report.add(i, c.String()+", per second", float64(right)/wall.Seconds())
	return nil
}

// load asks with so many callers at once, each as soon as it has its answer, and
// returns how many answers were right. Requests under way when the time is over
// are waited for and count.
func (s *subject) load(ctx context.Context, c cell, d time.Duration) int {
	var asked, right, wrong atomic.Int64
	end := time.Now().Add(d)
	var callers sync.WaitGroup
	for range c.callers {
		callers.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil && asked.Add(1) <= maxRequests && wrong.Load() < maxWrong {
				if err := c.ask(ctx, s); err != nil {
					s.wrong(err)
					wrong.Add(1)
				} else {
					right.Add(1)
				}
			}
		})
	}
	callers.Wait()
	return int(right.Load())
}

// measureFirstText compares the first text of a stream with the model's own, at a
// pace at which no server batches.
func (b *bench) measureFirstText(ctx context.Context) error {
	m := b.lab.model
	m.now.Store(m.paced)
	defer m.now.Store(m.fast)
	client := newClient()
	defer client.CloseIdleConnections()
	say("first text of a stream, 1 caller")
	for range b.rounds {
		var own []time.Duration
		for range firstTexts {
			first, err := m.direct(ctx, client)
			if err != nil {
				return cmp.Or(ctx.Err(), err)
			}
			own = append(own, first)
		}
		for i, s := range b.subjects {
			var through []time.Duration
			for range firstTexts {
				if first, err := s.stream(ctx, m.paced.text); err != nil {
					s.wrong(err)
				} else {
					through = append(through, first)
				}
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if len(through) > 0 {
				b.report.add(i, "first text of a stream, added to the model's own, 1 caller, ms", median(inMS(through))-median(inMS(own)))
			}
		}
	}
	return nil
}

func inMS(times []time.Duration) (out []float64) {
	for _, t := range times {
		out = append(out, ms(t))
	}
	return out
}
