package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

const (
	// stepsConfig is the configuration of the servers when steps are measured.
	stepsConfig = "bench/steps.yaml"
	// agentSteps is its agent with the tool.
	agentSteps = "bench-agent-steps"
	// runPatience is how long a run of many steps may take. It is the agent's time limit.
	runPatience = 15 * time.Minute
	// countedRuns is how many ordinary runs a round counts round trips of.
	countedRuns = 100
)

// stepsBench measures what runs cost in the database: ordinary ones, runs of many steps
// with large results, and clients that follow such a run. All bytes between a server and
// PostgreSQL go through a proxy that counts them.
type stepsBench struct {
	*bench
	// taps are the proxies of the subjects.
	taps []*tap
}

// tap observes a subject's database.
type tap struct {
	*wiretap.Tap
	// statements counts the statements that the subject has sent.
	statements atomic.Int64
	// conn is a connection of the benchmark's own, around the proxy.
	conn *pgx.Conn
}

// benchSteps measures runs of many steps and prints the figures.
func benchSteps(ctx context.Context, f flags) error {
	return measureServers(ctx, f, stepsConfig, (*bench).measureSteps)
}

// measureSteps measures every figure. The subjects take turns within each of them.
func (b *bench) measureSteps(ctx context.Context) error {
	tool, err := serveTool(ctx, b.resultKB<<10)
	if err != nil {
		return err
	}
	defer func() { _ = tool.close() }()
	m := stepsBench{bench: b}
	for _, s := range b.subjects {
		t, err := openTap(ctx, s.database())
		if err != nil {
			return err
		}
		defer t.Close()
		defer t.conn.Close(ctx)
		m.taps = append(m.taps, t)
		// The last value of a variable counts.
		s.env = append(s.env, "DATABASE_URL="+t.URL, "BENCH_TOOL_URL="+tool.url)
		s.client.Timeout = runPatience
		if _, err := s.start(ctx); err != nil {
			return err
		}
		// The first runs connect to the database and to the tool.
		if _, err := s.takeSteps(ctx, 1, b.lab.model.fast.text); err != nil {
			return fmt.Errorf("%s: %w; it wrote:\n%s", s.name, err, s.tail())
		}
	}
	for _, part := range []func(context.Context) error{
		m.ordinaryRuns, m.runsOfSteps, m.followedRuns, m.followersOfAWaitingRun,
	} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	for i, s := range b.subjects {
		u, err := s.usage()
		if err != nil {
			return err
		}
		b.report.add(i, "memory at its peak, MiB", mib(u.peak))
	}
	return nil
}

// openTap opens a proxy to the database at this address.
func openTap(ctx context.Context, address string) (_ *tap, err error) {
	t := &tap{}
	// A Query ('Q') and an Execute ('E') are the messages that make PostgreSQL execute.
	t.Tap, err = wiretap.Open(ctx, address, func(m wiretap.Message) {
		if m.Kind == 'Q' || m.Kind == 'E' {
			t.statements.Add(1)
		}
	})
	if err != nil {
		return nil, err
	}
	if t.conn, err = pgx.Connect(ctx, address); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// cost is what a subject has used since its start.
type cost struct {
	at                                time.Time
	cpu                               time.Duration
	sent, received, trips, statements int64
	// wal is the position in PostgreSQL's write-ahead log. It moves for all subjects, so only
	// one of them may be at work.
	wal float64
}

// cost reads what the i-th subject has used.
func (m *stepsBench) cost(ctx context.Context, i int) (c cost, err error) {
	u, err := m.subjects[i].usage()
	if err != nil {
		return c, err
	}
	t := m.taps[i]
	err = t.conn.QueryRow(ctx, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8").Scan(&c.wal)
	c.at, c.cpu = time.Now(), u.cpu
	c.sent, c.received = t.Sent.Load(), t.Received.Load()
	c.trips, c.statements = t.Trips.Load(), t.statements.Load()
	return c, err
}

// since returns the difference between two costs; at is then meaningless.
func (c cost) since(from cost) cost {
	return cost{
		cpu: c.cpu - from.cpu, sent: c.sent - from.sent, received: c.received - from.received,
		trips: c.trips - from.trips, statements: c.statements - from.statements, wal: c.wal - from.wal,
	}
}

// mb converts bytes to megabytes of 10⁶ bytes.
func mb[N int64 | float64](bytes N) float64 { return float64(bytes) / 1e6 }

// ordinaryRuns measures runs without tools. Their CPU is measured under load, as in the
// benchmark of the servers; their round trips are counted for one caller, because several
// runs at once may share a statement.
func (m *stepsBench) ordinaryRuns(ctx context.Context) error {
	text := m.lab.model.fast.text
	run := func(ctx context.Context, s *subject) error { return s.run(ctx, text) }
	stream := func(ctx context.Context, s *subject) error { _, err := s.stream(ctx, text); return err }
	for _, c := range []cell{
		{"a run, not streamed", 1, run}, {"a run, not streamed", 16, run},
		{fmt.Sprintf("a streamed run of %d tokens", m.tokens), 1, stream},
		{fmt.Sprintf("a streamed run of %d tokens", m.tokens), 16, stream},
	} {
		say("%s", c)
		for range m.rounds {
			for i := range m.subjects {
				if err := m.measureCell(ctx, i, c); err != nil {
					return err
				}
				if c.callers == 1 {
					if err := m.countTrips(ctx, i, c); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// countTrips counts the statements and bytes of ordinary runs, one after the other.
func (m *stepsBench) countTrips(ctx context.Context, i int, c cell) error {
	before, err := m.cost(ctx, i)
	if err != nil {
		return err
	}
	right := 0
	for range countedRuns {
		if err := c.ask(ctx, m.subjects[i]); err != nil {
			m.subjects[i].wrong(err)
			continue
		}
		right++
	}
	after, err := m.cost(ctx, i)
	if err := cmp.Or(ctx.Err(), err); err != nil || right == 0 {
		return err
	}
	d := after.since(before)
	m.report.add(i, c.name+": round trips", float64(d.trips)/float64(right))
	m.report.add(i, c.name+": statements", float64(d.statements)/float64(right))
	m.report.add(i, c.name+": to PostgreSQL, bytes", float64(d.sent)/float64(right))
	m.report.add(i, c.name+": from PostgreSQL, bytes", float64(d.received)/float64(right))
	m.report.add(i, c.name+": WAL, bytes", d.wal/float64(right))
	return nil
}

// lengths returns the numbers of steps that are measured: an eighth, a quarter, a half
// and all of them. They show whether the cost of a run grows with its length or faster.
func lengths(steps int) (out []int) {
	for n := steps; n > 0 && len(out) < 4; n /= 2 {
		out = append(out, n)
	}
	slices.Reverse(out)
	return out
}

// runsOfSteps measures runs whose model calls the tool once in each step, alone on the
// server.
func (m *stepsBench) runsOfSteps(ctx context.Context) error {
	for _, n := range lengths(m.steps) {
		name := fmt.Sprintf("a run of %d steps", n)
		say("%s", name)
		for range m.rounds {
			for i := range m.subjects {
				if err := m.runOfSteps(ctx, i, n, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// runOfSteps measures one run of n steps.
func (m *stepsBench) runOfSteps(ctx context.Context, i, n int, name string) error {
	s := m.subjects[i]
	before, err := m.cost(ctx, i)
	if err != nil {
		return err
	}
	id, err := s.takeSteps(ctx, n, m.lab.model.fast.text)
	if err != nil {
		s.wrong(err)
		return ctx.Err()
	}
	after, err := m.cost(ctx, i)
	if err != nil {
		return err
	}
	row, err := m.taps[i].rowSize(ctx, id)
	if err != nil {
		return err
	}
	d := after.since(before)
	m.report.add(i, name+": to PostgreSQL, MB", mb(d.sent))
	m.report.add(i, name+": floor (each result and the final row once), MB", mb(int64(n*m.resultKB<<10)+row))
	m.report.add(i, name+": from PostgreSQL, MB", mb(d.received))
	m.report.add(i, name+": statements", float64(d.statements))
	m.report.add(i, name+": round trips", float64(d.trips))
	m.report.add(i, name+": WAL, MB", mb(d.wal))
	m.report.add(i, name+": CPU, s", d.cpu.Seconds())
	m.report.add(i, name+": time, s", after.at.Sub(before.at).Seconds())
	return nil
}

// rowSize returns the length of a run's row as text. The checkpoint does not count: a run
// that has ended needs none.
func (t *tap) rowSize(ctx context.Context, id string) (size int64, err error) {
	err = t.conn.QueryRow(ctx, `
		SELECT octet_length((to_jsonb(r) - 'checkpoint')::text) FROM keyway.runs r WHERE run_id = $1`, id).Scan(&size)
	if err != nil {
		return 0, fmt.Errorf("row of run %s: %w", id, err)
	}
	return size, nil
}

// takeSteps starts a run of n steps that is not streamed, waits for its end, and returns
// its id. It expects the status COMPLETED and the model's whole text, which the model only
// gives if it has received each result once.
func (s *subject) takeSteps(ctx context.Context, n int, text string) (id string, err error) {
	body, err := s.post(ctx, agentSteps, strings.ToLower(rand.Text()), takeSteps(n), false)
	if err != nil {
		return "", err
	}
	defer body.Close()
	whole, err := io.ReadAll(body)
	if err != nil {
		return "", err
	}
	var out struct {
		RunID           string `json:"run_id"`
		Status, Content string
	}
	if err := json.Unmarshal(whole, &out); err != nil {
		return "", err
	}
	if out.Status != "COMPLETED" || out.Content != text {
		return "", fmt.Errorf("a run of %d steps ended as %s with %.80q", n, out.Status, out.Content)
	}
	return out.RunID, nil
}
