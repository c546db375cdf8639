package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// starts is how often each subject is started, after one start that is not counted.
	starts = 5
	// firstTexts is how many streams a round of the first-text cell measures.
	firstTexts = 50
	// callersMost is the largest number of concurrent callers.
	callersMost = 64
	// listed is how many sessions of one run each exist when sessions are listed.
	listed = 1000
	// grown is how many runs the one long session gets.
	grown = 300
	// growthShare is how many of these runs are measured, at the beginning and at the end.
	// The kernel counts CPU in steps of 10 ms, so fewer runs would give a rough figure.
	growthShare = 30
	// maxRequests bounds the requests of one cell, so that a fast server does not fill the
	// disk with runs.
	maxRequests = 20_000
	// maxWrong ends a cell after so many wrong answers: more of them show nothing new.
	maxWrong = 100
)

// bench is one execution of the benchmark of the servers.
type bench struct {
	flags
	lab      *lab
	subjects []*subject
	report   report
}

// usage is what the processes of a group use together. Memory that they share counts once
// for each of them.
type usage struct {
	processes int
	// cpu is the user and system time since the start.
	cpu time.Duration
	// resident and peak are the resident memory now and at its highest, in bytes.
	resident, peak int64
}

// usage returns what the subject's processes use. It fails if the server has ended: its
// remaining processes would give a figure that means nothing.
func (s *subject) usage() (usage, error) {
	select {
	case <-s.done:
		return usage{}, fmt.Errorf("%s ended while it was measured (%s); it wrote last:\n%s",
			s.name, s.cmd.ProcessState, s.tail())
	default:
		return groupUsage(s.cmd.Process.Pid)
	}
}

// mib converts bytes to MiB.
func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// ms converts a duration to milliseconds.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// measure measures every figure. Within a cell the subjects take turns, so that a change
// of the machine's load affects all of them. All subjects run all the time, since a
// restart would empty the caches of one of them.
func (b *bench) measure(ctx context.Context) error {
	if b.wanted("start") {
		if err := b.measureStarts(ctx); err != nil {
			return err
		}
	}
	for _, s := range b.subjects {
		if _, err := s.start(ctx); err != nil {
			return err
		}
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	if err := b.measureWAL(ctx); err != nil {
		return err
	}
	// Rounds are the inner loop, so that a disturbance of the machine falls into few cells
	// and shows as their range.
	for _, c := range b.cells() {
		if !b.wanted(c.String()) {
			continue
		}
		say("%s", c)
		for range b.rounds {
			for i := range b.subjects {
				if err := b.measureCell(ctx, i, c); err != nil {
					return err
				}
			}
		}
	}
	// The load has ended, but nothing has collected the heap: this is what a server keeps.
	for i, s := range b.subjects {
		u, err := s.usage()
		if err != nil {
			return err
		}
		b.report.add(i, "memory after the load, MiB", mib(u.resident))
		b.report.add(i, "memory at its peak, MiB", mib(u.peak))
	}
	if err := b.measureFirstText(ctx); err != nil {
		return err
	}
	return b.measureOpenStreams(ctx)
}

// wanted reports whether a part of the benchmark is to be measured.
func (b *bench) wanted(name string) bool { return strings.Contains(name, b.only) }

// measureStarts measures the time from exec to the first answers, and the memory after
// that. GET /health shows that the server listens. GET /agents shows that it can verify a
// token, which includes reading its configuration and keys. The first start creates the
// tables and reads files from the disk, so it is not counted.
func (b *bench) measureStarts(ctx context.Context) error {
	// A subject is stopped after each start, so that the starts do not compete.
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

// cell is one kind of request with one number of callers. Each cell gives two lines of the
// table: CPU per answer, and answers per second.
type cell struct {
	name    string
	callers int
	// ask sends one request and returns an error if the answer is wrong.
	ask func(context.Context, *subject) error
}

// String is the cell's name in the table.
func (c cell) String() string {
	if c.callers == 1 {
		return c.name + ", 1 caller"
	}
	return fmt.Sprintf("%s, %d callers", c.name, c.callers)
}

// listCell is the name of the cells that list sessions.
var listCell = fmt.Sprintf("GET /sessions?limit=20 of %d", listed)

// cells returns the cells in the order of the table. The number of callers shows two
// things: one caller meets an idle server, many show what it does under load.
func (b *bench) cells() (out []cell) {
	text := b.lab.model.fast.text
	list := func(ctx context.Context, s *subject) error { return s.listAgents(ctx) }
	run := func(ctx context.Context, s *subject) error { return s.run(ctx, text) }
	stream := func(ctx context.Context, s *subject) error { _, err := s.stream(ctx, text); return err }
	sessions := func(ctx context.Context, s *subject) error { return s.listSessions(ctx) }
	detail := func(ctx context.Context, s *subject) error { return s.session(ctx) }
	// Long streams are asked for by up to 64 callers, as a chat application would. The other
	// requests are short, and 16 callers keep two cores busy with them.
	for _, row := range []struct {
		name    string
		callers []int
		ask     func(context.Context, *subject) error
	}{
		{"GET /agents", []int{1, 16}, list},
		{listCell, []int{1, 16}, sessions},
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

// measureCell measures the i-th subject under the load of a cell for the cell's time. One
// request per caller comes first, to open the connections. CPU time is divided by the
// right answers; a wrong answer may be cheap to produce and must not improve the figure.
//
// CPU per answer is the figure to compare. Answers per second also depend on the callers,
// the model and PostgreSQL, which share the machine's cores with the subject.
func (b *bench) measureCell(ctx context.Context, i int, c cell) error {
	s := b.subjects[i]
	for range c.callers {
		if err := c.ask(ctx, s); err != nil {
			s.wrong(err)
		}
	}
	// The kernel counts CPU in ticks of 10 ms. Over the seconds of a cell that is exact
	// enough. PostgreSQL's CPU is not included: its processes are in another group.
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
	// Without a right answer there is nothing to divide by. The table shows – for the cell.
	if right == 0 {
		say("%s gave no right answer: %s", s.name, c)
		return nil
	}
	b.report.add(i, "CPU of "+c.String()+", ms", ms(after.cpu-before.cpu)/float64(right))
	b.report.add(i, c.String()+", per second", float64(right)/wall.Seconds())
	return nil
}

// load sends requests with the cell's number of callers for a time d, and returns the
// number of right answers. Each caller sends its next request as soon as it has an answer,
// so a slow server receives fewer requests, and none of them waits in a queue of the
// benchmark. Requests that are under way at the end are waited for and count; the caller
// of load measures the time after that, so they are in both parts of the quotient.
func (s *subject) load(ctx context.Context, c cell, d time.Duration) int {
	// asked counts all requests, right and wrong the answers.
	var asked, right, wrong atomic.Int64
	end := time.Now().Add(d)
	var callers sync.WaitGroup
	for range c.callers {
		callers.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil &&
				asked.Add(1) <= maxRequests && wrong.Load() < maxWrong {
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

// measureFirstText measures how much later than the model's own first text a server's
// first text comes, for one caller and for many. That is the delay that a person notices before the answer begins. It
// uses the paced model: with the fast one, a server may put several events into one write,
// and the figure would show that instead. The model is measured again in each round, with the same number of callers,
// since its own time changes with the machine's load.
func (b *bench) measureFirstText(ctx context.Context) error {
	// The pace is set for these cells only.
	m := b.lab.model
	m.now.Store(m.paced)
	defer m.now.Store(m.fast)
	// The model is asked over connections that stay open, as the servers ask it.
	client := newClient()
	defer client.CloseIdleConnections()
	for _, callers := range []int{1, 16, callersMost} {
		c := cell{name: "first text of a stream, added to the model's own", callers: callers}
		if !b.wanted(c.String()) {
			continue
		}
		say("%s", c)
		for range b.rounds {
			own, wrong := firsts(callers, func() (time.Duration, error) { return m.direct(ctx, client) })
			if len(wrong) > 0 {
				return cmp.Or(ctx.Err(), wrong[0])
			}
			for i, s := range b.subjects {
				through, wrong := firsts(callers, func() (time.Duration, error) { return s.stream(ctx, m.paced.text) })
				for _, err := range wrong {
					s.wrong(err)
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if len(through) > 0 {
					b.report.add(i, c.String()+", ms", median(inMS(through))-median(inMS(own)))
				}
			}
		}
	}
	return nil
}

// firsts calls ask with a number of callers, firstTexts times each, or fewer times if there are many, and returns the
// times and the errors. The first call of each caller, which opens a connection, is left out.
func firsts(callers int, ask func() (time.Duration, error)) (times []time.Duration, wrong []error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for n := range max(firstTexts/callers, 10) + 1 {
				first, err := ask()
				mu.Lock()
				if err != nil {
					wrong = append(wrong, err)
				} else if n > 0 {
					times = append(times, first)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return times, wrong
}

// inMS converts durations to milliseconds.
func inMS(times []time.Duration) (out []float64) {
	for _, t := range times {
		out = append(out, ms(t))
	}
	return out
}
