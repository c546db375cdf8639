package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// openStreams is how many streams are open at the same time when their memory is measured.
	openStreams = 1000
	// openPatience is how long these streams may take, from the first request to the last answer.
	openPatience = 3 * time.Minute
	// settleTime is how long the streams stay open before the memory is read. By then the server has stored the first
	// events, and a peer has logged what it logs.
	settleTime = 3 * time.Second
	// walRuns is how many runs a round writes to the WAL, and walWarm how many come before them.
	walRuns, walWarm = 100, 30
)

// measureOpenStreams measures the memory of a stream that is open and waits for its model: what 1,000 of them add to a
// server that has just been started and has answered a few. Each server is started anew, because one that was under
// load has memory left for new streams.
func (b *bench) measureOpenStreams(ctx context.Context) error {
	name := fmt.Sprintf("memory per open stream, of %d, KiB", openStreams)
	if !b.wanted(name) {
		return nil
	}
	m := b.lab.model
	defer func() { m.now.Store(m.fast); m.pause.Store(nil) }()
	for range b.rounds {
		for i, s := range b.subjects {
			say("%d open streams: %s", openStreams, s.name)
			m.now.Store(m.fast)
			s.stop()
			if _, err := s.start(ctx); err != nil {
				return err
			}
			for range 20 {
				if _, err := s.stream(ctx, m.fast.text); err != nil {
					s.wrong(err)
				}
			}
			if err := b.openStreams(ctx, i, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// openStreams opens the streams of one subject, reads the memory, and expects the whole answer of each.
func (b *bench) openStreams(ctx context.Context, i int, name string) error {
	s, m := b.subjects[i], b.lab.model
	before, err := s.usage()
	if err != nil {
		return err
	}
	few := s.client
	defer func() { s.client = few }()
	s.client = &http.Client{Timeout: openPatience, Transport: &http.Transport{DisableCompression: true}}
	defer s.client.CloseIdleConnections()
	p := &pause{reached: make(chan struct{}, openStreams), release: make(chan struct{})}
	m.pause.Store(p)
	m.now.Store(m.held)
	var all sync.WaitGroup
	done := make(chan struct{}, openStreams)
	for range openStreams {
		all.Go(func() {
			if _, err := s.stream(ctx, m.held.text); err != nil {
				s.wrong(err)
				done <- struct{}{}
			}
		})
		select { // The model has sent the first text, or the request has failed.
		case <-p.reached:
		case <-done:
		case <-ctx.Done():
		}
	}
	select {
	case <-time.After(settleTime):
	case <-ctx.Done():
	}
	after, err := s.usage()
	close(p.release)
	all.Wait()
	if err := cmp.Or(ctx.Err(), err); err != nil {
		return err
	}
	b.report.add(i, name, float64(after.resident-before.resident)/openStreams/1024)
	return nil
}

// measureWAL measures how many bytes of write-ahead log PostgreSQL writes for a run of one caller, each in a new
// session. A checkpoint comes first, and some runs that are not counted: the first change of a page after a checkpoint
// writes the whole page, and these are the pages that every run changes.
func (b *bench) measureWAL(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.lab.pg.URL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	text := b.lab.model.fast.text
	for _, kind := range []struct {
		name string
		ask  func(*subject) error
	}{
		{"WAL of a run, not streamed, bytes", func(s *subject) error { return s.run(ctx, text) }},
		{fmt.Sprintf("WAL of a streamed run of %d tokens, bytes", b.tokens), func(s *subject) error {
			_, err := s.stream(ctx, text)
			return err
		}},
	} {
		if !b.wanted(kind.name) {
			continue
		}
		say("%s", kind.name)
		for range b.rounds {
			for i, s := range b.subjects {
				wal, err := walOf(ctx, conn, func() error { return kind.ask(s) })
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				b.report.add(i, kind.name, wal)
			}
		}
	}
	return nil
}

// walOf returns the average number of bytes that a call of write adds to the WAL. Only one subject may be at work.
func walOf(ctx context.Context, conn *pgx.Conn, write func() error) (bytes float64, err error) {
	if _, err := conn.Exec(ctx, "CHECKPOINT"); err != nil {
		return 0, err
	}
	var from, to float64
	const position = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8"
	for n := range walWarm + walRuns {
		if n == walWarm {
			if err := conn.QueryRow(ctx, position).Scan(&from); err != nil {
				return 0, err
			}
		}
		if err := write(); err != nil {
			return 0, err
		}
	}
	err = conn.QueryRow(ctx, position).Scan(&to)
	return (to - from) / walRuns, err
}
