package main

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// silence is how long the model waits before each event while connections are counted. It
// is long enough for a server to store what it has received so far. A connection that is
// still busy at its end is therefore held for the whole stream, and not for one statement.
const silence = 200 * time.Millisecond

// counts counts the round trips to the database that a streamed run needs before it asks
// the model, and the connections that it has while the model streams. On AWS a round trip
// crosses the network and takes longer than here, so the number is more useful than a
// time. Lambda runs many processes of a function, and every connection of every process
// counts against PostgreSQL's limit (max_connections).
func (b *lambdaBench) counts(ctx context.Context) error {
	slow := newAnswer(pacedTokens, 0, silence)
	b.lab.model.now.Store(slow)
	defer b.lab.model.now.Store(b.lab.model.fast)
	defer b.lab.model.watch.Store(nil)
	conn, err := pgx.Connect(ctx, b.lab.pg.URL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for n := range b.rounds {
		say("database, round %d of %d", n+1, b.rounds)
		for i := range b.functions {
			if err := b.countRuns(ctx, i, conn, slow.text); err != nil {
				return err
			}
		}
	}
	return nil
}

// countRuns counts for the first and for the second run of a new process, which connects
// to the database through a proxy that counts.
func (b *lambdaBench) countRuns(ctx context.Context, i int, conn *pgx.Conn, text string) error {
	f := b.functions[i]
	w, err := wiretap.Open(ctx, f.database(), nil)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := f.launch(ctx, "runs", nil, "DATABASE_URL="+w.URL); err != nil {
		return err
	}
	defer f.end()
	var failed error // of the query in quiet
	for _, state := range []string{"cold", "warm"} {
		var trips, opened, busy, open int64
		// The proxy counts since it was opened: the second run's count is the difference.
		if state == "warm" {
			trips, opened = -w.Trips.Load(), -w.Opened.Load()
		}
		// asked is called when the model gets the run's request: everything that the proxy
		// counted until then came before it.
		b.lab.model.watch.Store(&watch{
			asked: func() { trips += w.Trips.Load(); opened += w.Opened.Load() },
			// pg_stat_activity lists the server's connections and not the benchmark's own,
			// which are to another database.
			quiet: func() {
				var nowBusy, nowOpen int64
				err := conn.QueryRow(ctx, `
					SELECT count(*) FILTER (WHERE state <> 'idle'), count(*) FROM pg_stat_activity
					WHERE datname = $1 AND backend_type = 'client backend'`, "bench_"+f.name).Scan(&nowBusy, &nowOpen)
				failed = cmp.Or(failed, err)
				busy, open = max(busy, nowBusy), max(open, nowOpen)
			},
		})
		if _, err := f.stream(ctx, text); err != nil {
			f.wrong(err)
			continue
		}
		b.add(i, "round trips to the database before the model is asked, "+state, float64(trips))
		b.add(i, "connections opened before the model is asked, "+state, float64(opened))
		b.add(i, "connections held while the model streams, "+state, float64(busy))
		b.add(i, "connections open while the model streams, "+state, float64(open))
	}
	return cmp.Or(ctx.Err(), failed)
}

// database returns DATABASE_URL of the subject's environment.
func (s *subject) database() (address string) {
	for _, pair := range s.env {
		if value, ok := strings.CutPrefix(pair, "DATABASE_URL="); ok {
			address = value // the last one counts
		}
	}
	return address
}
