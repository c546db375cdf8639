package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// The sizes between which growth is measured: sessions in all, and runs of the one long session.
var (
	smallData = [2]int{1_000, 1_000}
	largeData = [2]int{1_000_000, 10_000}
)

// growthRequests is how many requests of each kind are sent at each size.
const growthRequests = 60

// measureGrowth measures what a list, a page of a session and a run of it cost in a small and in a large database.
// The time of one caller is measured, since most of the cost would be PostgreSQL's. The rows are copied in SQL:
// through the API a million sessions would take a day. So it works for Keyway's own tables only.
func (b *bench) measureGrowth(ctx context.Context) error {
	for i, server := range b.servers(keywayConfig) {
		b.subjects[i].stop() // The servers and databases of the other figures must not disturb.
		s, err := b.lab.subject(ctx, server.name+"_growth", server.command)
		if err != nil {
			return err
		}
		defer s.stop()
		if err := b.measureGrowthOf(ctx, i, s); err != nil {
			return fmt.Errorf("%s: %w", server.name, err)
		}
		b.subjects[i].failed += s.failed
		b.subjects[i].examples = append(b.subjects[i].examples, s.examples...)
		s.stop()
	}
	return nil
}

// measureGrowthOf measures one server, with an empty database.
func (b *bench) measureGrowthOf(ctx context.Context, i int, s *subject) error {
	if _, err := s.start(ctx); err != nil {
		return err
	}
	if err := s.runIn(ctx, agentHistory, grownSession, b.lab.model.fast.text); err != nil {
		return err
	}
	have, small := [2]int{1, 1}, map[string]float64{}
	for _, size := range [...][2]int{smallData, largeData} {
		say("filling %d sessions, %d runs of one: %s", size[0], size[1], s.name)
		if err := s.fillTo(ctx, have, size); err != nil {
			return err
		}
		have = size
		for _, kind := range b.growthKinds() {
			took, err := s.typical(ctx, kind.ask)
			if err != nil {
				return err
			}
			b.report.add(i, fmt.Sprintf("%s, at %d sessions and %d runs in one, ms", kind.name, size[0], size[1]), took)
			if before, ok := small[kind.name]; ok {
				b.report.add(i, kind.name+", large / small", took/before)
			}
			small[kind.name] = took
		}
	}
	return nil
}

// growthKind is a kind of request whose time is measured.
type growthKind struct {
	name string
	ask  func(context.Context, *subject) error
}

func (b *bench) growthKinds() []growthKind {
	text := b.lab.model.fast.text
	get := func(path string) func(context.Context, *subject) error {
		return func(ctx context.Context, s *subject) error {
			body, err := s.get(ctx, path, s.bearer())
			if n := bytes.Count(body, []byte(`"created_at"`)); err == nil && n < 20 {
				err = fmt.Errorf("GET %s shows %d of 20", path, n)
			}
			return err
		}
	}
	return []growthKind{
		{"GET /sessions?limit=20", get("/sessions?type=agent&limit=20")},
		{"a page of 20 runs of a session", get("/sessions/" + grownSession + "/runs?type=agent&limit=20")},
		{"a run of the long session, with history", func(ctx context.Context, s *subject) error {
			return s.runIn(ctx, agentHistory, grownSession, text)
		}},
	}
}

// typical returns the median time of a request, in milliseconds. The first requests are left out: they prepare
// statements, and read pages that nobody has read since they were filled.
func (s *subject) typical(ctx context.Context, ask func(context.Context, *subject) error) (float64, error) {
	var times []time.Duration
	for n := range growthRequests + growthRequests/4 {
		begin := time.Now()
		if err := ask(ctx, s); err != nil {
			s.wrong(err)
		} else if n >= growthRequests/4 {
			times = append(times, time.Since(begin))
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	return median(inMS(times)), nil
}

// fillTo copies the first session and its first run until there are so many sessions, and so many runs of the first.
func (s *subject) fillTo(ctx context.Context, have, want [2]int) error {
	conn, err := pgx.Connect(ctx, s.database())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	// Each column but those that the database fills or that must differ.
	columns := func(table, without string) (list string, err error) {
		err = conn.QueryRow(ctx, `SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns
			WHERE table_schema = 'keyway' AND table_name = $1 AND is_generated = 'NEVER'
				AND column_name <> ALL(string_to_array($2, ' '))`,
			table, without).Scan(&list)
		return list, err
	}
	sessions, err := columns("sessions", "session_id created_at updated_at")
	runs, err2 := columns("runs", "run_id seq")
	if err := cmp.Or(err, err2); err != nil {
		return err
	}
	for _, statement := range []string{
		fmt.Sprintf(`INSERT INTO keyway.sessions (session_id, created_at, updated_at, %s)
			SELECT 'filled-' || n, created_at - n * interval '1 second', updated_at - n * interval '1 second', %[1]s
			FROM keyway.sessions, generate_series(%d, %d) n WHERE session_id = '%s'`,
			sessions, have[0]+1, want[0], grownSession),
		fmt.Sprintf(`INSERT INTO keyway.runs (run_id, %s)
			SELECT gen_random_uuid(), %[1]s
			FROM (SELECT * FROM keyway.runs WHERE session_id = '%s' ORDER BY seq LIMIT 1) r, generate_series(%d, %d)`,
			runs, grownSession, have[1]+1, want[1]),
		// As autovacuum does a minute later.
		"VACUUM ANALYZE keyway.sessions, keyway.runs",
		"CHECKPOINT",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}
