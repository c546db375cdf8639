package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// fill gives each subject one session that grows and many of one run, and tells
// what the growing cost at its beginning and at its end. Neither part is bounded
// by time: both subjects do the same.
func (b *bench) fill(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.lab.pg.URL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for i, s := range b.subjects {
		say("one session of %d runs: %s", grown, s.name)
		if err := b.grow(ctx, i, conn); err != nil {
			return err
		}
		say("%d sessions: %s", listed, s.name)
		many := cell{"a run, not streamed", 8, func(ctx context.Context, s *subject) error { return s.run(ctx, b.lab.model.fast.text) }}
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

// grow runs into one session. What its first runs cost is told beside what its
// last cost. WAL holds whole-page images
// after each checkpoint, so a lone high figure says little.
func (b *bench) grow(ctx context.Context, i int, conn *pgx.Conn) error {
	s, n := b.subjects[i], 0
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
		var wal float64
		if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&to); err != nil {
			return err
		}
		if err := conn.QueryRow(ctx, "SELECT ($1::pg_lsn - $2::pg_lsn)::float8", to, from).Scan(&wal); err != nil {
			return err
		}
		after, err := s.usage()
		b.report.add(i, fmt.Sprintf("CPU of runs %s of one session, with history, ms", name), ms(after.cpu-before.cpu)/float64(runs))
		b.report.add(i, fmt.Sprintf("WAL of runs %s of one session, with history, bytes", name), wal/float64(runs))
		return err
	}
	err := share("", 5) // to warm up
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
