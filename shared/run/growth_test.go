package run_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// cost is what PostgreSQL did: the rows it read, and the bytes it wrote to its write-ahead log.
type cost struct{ rows, wal int64 }

// The 300th run of a session reads no more rows than the 10th, and writes as many bytes. PostgreSQL gets statistics
// only at the end, because without them it is most likely to choose a plan that reads the whole session. The test is
// not parallel, because the write-ahead log belongs to the whole server.
func TestARunInALongSessionCostsWhatItDidInAShortOne(t *testing.T) { //nolint:paralleltest // see above
	s := newLongSession(t)
	s.runs(9)
	tenth, early := s.measured(1), s.measured(20)
	s.runs(100)
	middle := s.measured(10)
	s.runs(139)
	late := s.measured(21)
	s.exec("ANALYZE")
	known := s.measured(11)
	t.Logf("early %v, in between %v, late %v, with statistics %v", early, middle, late, known)
	if n := len(s.model.requests()[299].Messages); n != 7 {
		t.Errorf("the last request has %d messages; three earlier runs and its own message are 7", n)
	}
	if most := max(early.rows, middle.rows, late.rows, known.rows); most > tenth.rows {
		t.Errorf("the tenth run read %d rows, another run read %d", tenth.rows, most)
	}
	// 5 % more is allowed: times have a digit more or less, and full index pages are cleaned up. A cost that grew with the
	// session would have grown tenfold.
	if most := early.wal + early.wal/20; late.wal > most || known.wal > most {
		t.Errorf("a run wrote %d bytes at first, %d later, and %d with statistics", early.wal, late.wal, known.wal)
	}
}

// One run is found by its primary key, however many runs its owner has. The test is not parallel, because it shares the
// helper that reads the counters, and its wait.
func TestOneRunIsFoundWithoutReadingTheOthers(t *testing.T) { //nolint:paralleltest // see above
	s := newLongSession(t)
	s.runs(60)
	for name, act := range map[string]func(*store.DB, store.RunQuery) error{
		"read": func(db *store.DB, q store.RunQuery) error { _, err := db.Run(t.Context(), ann, q); return err },
		"cancel": func(db *store.DB, q store.RunQuery) error {
			_, err := db.RequestCancel(t.Context(), ann, uuid.MustParse(q.RunID))
			return err
		},
	} {
		c := s.cost(func(db *store.DB) {
			if err := act(db, store.RunQuery{RunID: s.last, SessionID: "s"}); err != nil {
				t.Error(err)
			}
		})
		if c.rows != 1 {
			t.Errorf("%s: %d rows were read", name, c.rows)
		}
	}
}

// longSession is one growing session, in a database of its own.
type longSession struct {
	t     *testing.T
	url   string
	model *scripted
	last  string // the id of the last run
}

func newLongSession(t *testing.T) *longSession {
	t.Helper()
	s := &longSession{t: t, url: storetest.URL(t), model: &scripted{answers: []answer{replies("hello ", "world")}}}
	for _, table := range []string{"sessions", "session_usage", "runs", "run_events"} {
		s.exec("ALTER TABLE keyway." + table + " SET (autovacuum_enabled = false)")
	}
	return s
}

// runs executes n runs.
func (s *longSession) runs(n int) {
	s.t.Helper()
	db := open(s.t, s.url)
	defer db.Close()
	for range n {
		s.run(db)
	}
}

func (s *longSession) run(db *store.DB) {
	s.t.Helper()
	r := newRunner(db, config.Agent{AddHistoryToContext: true, NumHistoryRuns: 3}, s.model)
	for e, err := range r.Run(s.t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: "hi",
		Streamed: true}) {
		switch {
		case err != nil:
			s.t.Fatal(err)
		case e.Result != nil && e.Result.Status != "COMPLETED":
			s.t.Fatalf("%+v", e.Result)
		case e.Result != nil:
			s.last = e.Result.RunID
		}
	}
}

// measured executes n runs and returns the medians of what they read and wrote. Single values are higher for a run that
// lasts until the pulse, or that splits an index page.
func (s *longSession) measured(n int) cost {
	s.t.Helper()
	var rows, wal []int64
	for range n {
		c := s.cost(s.run)
		rows, wal = append(rows, c.rows), append(wal, c.wal)
	}
	slices.Sort(rows)
	slices.Sort(wal)
	return cost{rows[n/2], wal[n/2]}
}

// cost returns what act costs.
func (s *longSession) cost(act func(*store.DB)) cost {
	s.t.Helper()
	before := s.meter()
	db := open(s.t, s.url)
	act(db)
	db.Close()
	after := s.meter()
	return cost{after.rows - before.rows, after.wal - before.wal}
}

// meter reads the counters when no other connection is open. A connection reports its counts at the latest when it
// ends.
func (s *longSession) meter() (c cost) {
	s.t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(ctx)
	patience := time.Now().Add(time.Minute)
	for others := 1; others > 0; {
		err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`).Scan(&others)
		if err != nil || time.Now().After(patience) {
			s.t.Fatalf("%d connections are still open: %v", others, err)
		}
	}
	err = conn.QueryRow(ctx, `SELECT sum(seq_tup_read + COALESCE(idx_tup_fetch, 0)),
			pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')
		FROM pg_stat_user_tables`).Scan(&c.rows, &c.wal)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *longSession) exec(sql string) {
	s.t.Helper()
	conn, err := pgx.Connect(context.Background(), s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		s.t.Fatal(err)
	}
}
