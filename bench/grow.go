package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// fill gives each subject one session of many runs, and many sessions of one run. It
// measures whether a run costs more the longer its session is: a server that stores a
// session as one document would write the whole document again with each run.
//
// Both parts end after a number of runs and not after a time, so that all subjects store
// the same. The cells that list sessions later would otherwise read more rows from the
// faster subject.
func (b *bench) fill(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.lab.pg.URL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	// One subject after the other: the WAL belongs to the whole PostgreSQL server, so it
	// would contain the writes of both.
	for i, s := range b.subjects {
		if b.wanted("one session") || b.wanted(fmt.Sprintf("GET /sessions/{id} of %d runs", grown)) {
			say("one session of %d runs: %s", grown, s.name)
			if err := b.grow(ctx, i, conn); err != nil {
				return err
			}
		}
		if !b.wanted(listCell) {
			continue
		}
		say("%d sessions: %s", listed, s.name)
		many := cell{"a run, not streamed", 8, func(ctx context.Context, s *subject) error {
			return s.run(ctx, b.lab.model.fast.text)
		}}
		for done := 0; done < listed; {
			right := s.load(ctx, many, time.Second)
			if err := ctx.Err(); err != nil || right == 0 {
				return cmp.Or(err, fmt.Errorf("%s gave no right answer: %s", s.name, many))
			}
			done += right
		}
	}
	return nil
}

// grow starts runs one after the other in one session, and reports the CPU and the WAL
// (PostgreSQL's write-ahead log) of its first runs and of its last ones.
//
// Nothing else writes to this PostgreSQL at the time, so nearly all bytes between two
// positions of the WAL come from the subject's runs. After each checkpoint PostgreSQL
// writes whole pages to the WAL (full_page_writes), so a single high figure may be due to
// a checkpoint and not to the session's length.
func (b *bench) grow(ctx context.Context, i int, conn *pgx.Conn) error {
	s, n := b.subjects[i], 0
	// share starts this number of runs. If name is not empty, it reports their average cost
	// under that name.
	share := func(name string, runs int) error {
		before, err := s.usage()
		var from, to string
		if err == nil {
			err = conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&from)
		}
		for range runs {
			if err == nil {
				n++
				err = s.runIn(ctx, agentHistory, grownSession, b.lab.model.fast.text)
			}
		}
		if err != nil || name == "" {
			return err
		}
		// The difference between two positions in the WAL is the number of bytes written.
		var wal float64
		if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&to); err != nil {
			return err
		}
		if err := conn.QueryRow(ctx, "SELECT ($1::pg_lsn - $2::pg_lsn)::float8", to, from).Scan(&wal); err != nil {
			return err
		}
		after, err := s.usage()
		b.report.add(i, fmt.Sprintf("CPU of runs %s of one session, with history, ms", name),
			ms(after.cpu-before.cpu)/float64(runs))
		b.report.add(i, fmt.Sprintf("WAL of runs %s of one session, with history, bytes", name), wal/float64(runs))
		return err
	}
	// The first five runs are not measured: they open connections and prepare statements, and
	// the history of the first three is shorter than that of all later runs.
	err := share("", 5)
	if err == nil {
		err = share(fmt.Sprintf("%d to %d", n+1, n+growthShare), growthShare)
	}
	if err == nil {
		err = share("", grown-n-growthShare)
	}
	if err == nil {
		err = share(fmt.Sprintf("%d to %d", n+1, n+growthShare), growthShare)
	}
	return err
}
