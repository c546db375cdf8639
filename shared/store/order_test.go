package store_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// whileHeld executes a statement while another transaction holds a lock. When the statement waits for it, check is
// executed in that transaction, which must then be able to lock what the statement locks later.
func whileHeld(t *testing.T, url, hold string, statement func(), check string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, hold); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); statement() }()
	for waiting := false; !waiting; {
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks
			WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))`).Scan(&waiting)
		if err != nil {
			t.Fatalf("the statement does not wait for %s: %v", hold, err)
		}
	}
	if _, err := tx.Exec(ctx, check); err != nil {
		t.Errorf("%s fails while the statement waits for %s: %v", check, hold, err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// A repeated request and the deletion of a session lock the session first and then the run. The statement that ends a
// run must not lock them in the other order, or the two could wait for each other.
func TestTheEndOfARunLocksTheSessionFirst(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	r := begin(t, db, "ann", "s", 0)
	whileHeld(t, url, "SELECT FROM keyway.sessions FOR UPDATE", func() { finish(t, db, r) },
		"SELECT FROM keyway.runs FOR UPDATE NOWAIT")
	if got, err := db.Run(t.Context(), ann, store.RunQuery{RunID: r.RunID.String()}); err != nil ||
		got.Status != "COMPLETED" {
		t.Errorf("%+v %v", got, err)
	}
}

// A statement that waits for the first of several rows has locked none of the others. So two statements that lock the
// same rows never wait for each other. The rows are stored in the reverse order, which a sequential scan follows.
func TestRowsOfOneTableAreLockedInOneOrder(t *testing.T) {
	t.Parallel()
	const n = 8
	ids := make([]uuid.UUID, n)
	texts := make([]string, n) // of the same order
	for i := range ids {
		ids[i] = uuid.New()
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return -cmp.Compare(a.String(), b.String()) })
	for i, id := range ids {
		texts[i] = id.String()
	}
	first := "'" + texts[n-1] + "'"
	others := func(table, column, as string) (hold, check string) {
		rows := "SELECT FROM keyway." + table + " WHERE " + column
		return rows + " = " + as + " FOR UPDATE", rows + " <> " + as + " FOR UPDATE NOWAIT"
	}
	type test struct {
		prepare   func(*testing.T, *store.DB)
		hold      [2]string // the statement that holds the first row, and that which locks the others
		statement func(context.Context, *store.DB) error
	}
	pair := func(hold, check string) [2]string { return [2]string{hold, check} }
	runs := func(t *testing.T, db *store.DB) {
		for i, id := range ids {
			r := newRun("RUNNING")
			r.RunID, r.SessionID = id, texts[i]
			if err := start(t.Context(), db, r, allLimits("ann", 99)); err != nil {
				t.Fatal(err)
			}
		}
	}
	memories := func(t *testing.T, db *store.DB) {
		for _, id := range ids {
			m := store.Memory{MemoryID: id, Owner: "ann", Memory: "m", Topics: []string{}, CreatedAt: day}
			if err := db.AddMemory(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	deleteSessions := func(ctx context.Context, db *store.DB) error {
		_, err := db.DeleteSessions(ctx, ann, texts, "")
		return err
	}
	row := newRun("COMPLETED")
	row.RunID, row.SessionID, row.Attempt, row.Metrics = ids[0], texts[0], 1, json.RawMessage("{}")
	for name, c := range map[string]test{
		"sessions that are deleted":        {runs, pair(others("sessions", "session_id", first)), deleteSessions},
		"runs whose sessions are deleted":  {runs, pair(others("runs", "run_id", first)), deleteSessions},
		"runs that are cancelled together": {runs, pair(others("runs", "run_id", first)), cancelAll},
		"memories that are deleted":        {memories, pair(others("memories", "memory_id", first)), deleteMemories(texts)},
		"memories of a user who is erased": {memories, pair(others("memories", "memory_id", first)), eraseAnn},
		"accounts of a run that ends": {runs, pair(others("spending", "whose", "'agent'")),
			func(ctx context.Context, db *store.DB) error {
				_, err := db.FinishRun(ctx, leg(row), row, nil, store.Usage{ModelID: "m", Total: 1}, day)
				return err
			}},
		"accounts of a run that begins": {runs, pair(others("spending", "whose", "'agent'")),
			func(ctx context.Context, db *store.DB) error {
				return start(ctx, db, newRun("RUNNING"), allLimits("ann", 99))
			}},
		"accounts of a run that is claimed the next day": {yesterday(ids[0]), [2]string{
			"INSERT INTO keyway.spending (whose, key, day) SELECT 'agent', 'a', (now() AT TIME ZONE 'UTC')::date",
			`SET LOCAL lock_timeout = '2s'; INSERT INTO keyway.spending (whose, key, day)
				SELECT s.whose, s.key, (now() AT TIME ZONE 'UTC')::date
				FROM (VALUES ('caller', 'ann'), ('os', '')) s (whose, key)`},
			func(ctx context.Context, db *store.DB) error {
				_, claimed, err := db.ClaimRun(ctx, ids[0], uuid.New(), store.Places{})
				return want(claimed, err)
			}},
		"events of several runs": {runs, [2]string{
			"INSERT INTO keyway.run_events (run_id, attempt, first_index, count, frames) VALUES (" + first + ", 1, 0, 1, 'f')",
			`SET LOCAL lock_timeout = '2s'; INSERT INTO keyway.run_events (run_id, attempt, first_index, count, frames)
				SELECT run_id, 1, 0, 1, 'f' FROM keyway.runs WHERE run_id <> ` + first},
			func(ctx context.Context, db *store.DB) error {
				var list []store.Events
				for _, id := range ids {
					list = append(list, store.Events{RunID: id, Attempt: 1, Count: 1, Frames: "f\n\n"})
				}
				_, err := db.AddEvents(ctx, list)
				return err
			}},
	} {
		for _, plan := range []string{"", "nestloop", "hashjoin"} {
			t.Run(name+" "+plan, func(t *testing.T) {
				t.Parallel()
				url := storetest.URL(t)
				if plan != "" {
					onlyJoins(t, url, plan)
				}
				db := storetest.Open(t, store.Options{URL: url})
				c.prepare(t, db)
				// The account of the agent becomes the last row of its table.
				sql(t, url, `UPDATE keyway.spending SET runs = runs WHERE whose = 'agent'; ANALYZE`)
				whileHeld(t, url, c.hold[0], func() {
					if err := c.statement(t.Context(), db); err != nil {
						t.Error(err)
					}
				}, c.hold[1])
			})
		}
	}
}

// onlyJoins makes PostgreSQL join tables in one way, if another one is not the only way.
func onlyJoins(t *testing.T, url, way string) {
	t.Helper()
	settings := []string{"jit"} // The cost of a way that is off would make PostgreSQL compile each query.
	for _, other := range []string{"nestloop", "hashjoin", "mergejoin"} {
		if other != way {
			settings = append(settings, "enable_"+other)
		}
	}
	for _, name := range settings {
		sql(t, url, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET `+name+` = off', current_database()); END $$`)
	}
}

func cancelAll(ctx context.Context, db *store.DB) error {
	_, _, err := db.RequestCancelAll(ctx, ann, store.ActiveQuery{})
	return err
}

func eraseAnn(ctx context.Context, db *store.DB) error {
	_, _, err := db.EraseUser(ctx, "ann", 2)
	return err
}

func deleteMemories(ids []string) func(context.Context, *store.DB) error {
	return func(ctx context.Context, db *store.DB) error {
		_, err := db.DeleteMemories(ctx, ann, ids, "")
		return err
	}
}

// yesterday begins a run that waits since yesterday.
func yesterday(id uuid.UUID) func(*testing.T, *store.DB) {
	return func(t *testing.T, db *store.DB) {
		r := newRun("PENDING")
		r.RunID = id
		if err := start(t.Context(), db, r, allLimits("ann", 99)); err != nil {
			t.Fatal(err)
		}
		for _, change := range []string{"spending SET day = day - 1", "runs SET spend_day = spend_day - 1"} {
			if err := store.Execute(t.Context(), db, "UPDATE keyway."+change); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Two requests may delete the same sessions in different orders, while their runs end and their leases are renewed.
func TestStatementsAboutManyRunsDoNotDeadlock(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	const sessions, runs, rounds = 4, 10, 5
	for range rounds {
		var ids []string
		var started []store.Run
		for i := range sessions {
			ids = append(ids, uuid.NewString())
			for range runs {
				started = append(started, begin(t, db, "ann", ids[i], 0))
			}
		}
		var legs []store.Leg
		var events []store.Events
		for _, r := range started {
			legs = append(legs, leg(r))
			events = append(events, store.Events{RunID: r.RunID, Attempt: 1, Count: 1, Frames: "f\n\n"})
		}
		backwards := slices.Clone(ids)
		slices.Reverse(backwards)
		var wg sync.WaitGroup
		do := func(what string, statement func() error) {
			wg.Go(func() {
				if err := statement(); err != nil && !errors.Is(err, fault.Conflict) {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		for _, list := range [][]string{ids, backwards} {
			do("delete", func() error { _, err := db.DeleteSessions(t.Context(), ann, list, ""); return err })
		}
		for _, r := range started[:len(started)/2] {
			r.Status, r.Metrics = "COMPLETED", json.RawMessage("{}")
			do("finish", func() error {
				_, err := db.FinishRun(t.Context(), leg(r), r, nil, store.Usage{ModelID: "m", Total: 1}, day)
				return err
			})
		}
		for range 4 {
			do("pulse", func() error { _, err := db.Pulse(t.Context(), legs, true); return err })
			do("events", func() error { _, err := db.AddEvents(t.Context(), events); return err })
		}
		wg.Wait()
	}
	db.Close()
	wantNoDeadlocks(t, url)
	if left := scalar[int](t, url, "SELECT count(*) FROM keyway.runs"); left > 0 {
		t.Errorf("%d runs are left", left)
	}
}

// wantNoDeadlocks checks that no deadlock has happened in a database whose stores are closed. A deadlock is repeated,
// so no call returned one; the connections report them at their end. Those of connection are none of them.
func wantNoDeadlocks(t *testing.T, url string) {
	t.Helper()
	const others = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
		AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name <> 'test'`
	for scalar[int](t, url, others) > 0 {
	}
	n := scalar[int](t, url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
	if n > 0 {
		_, log, _ := strings.Cut(storetest.Log(t), "deadlock detected") // It is that of all tests.
		t.Errorf("%d deadlocks:%s", n, log[:min(len(log), 4<<10)])
	}
}

// A statement that locks rows and then writes them starts from the row versions of its snapshot. If a row has changed
// since and somebody holds a share of its old version, PostgreSQL makes the write queue for the old version, where the
// deletion of the session may be first, which waits for the lock on the new version.
//
// The statement is stopped twice: before it locks the second of two runs, which then changes, and before it writes it.
func TestAStatementDoesNotQueueForARowThatItHasLocked(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]func(context.Context, *store.DB, []store.Leg) error{
		"pulse": func(ctx context.Context, db *store.DB, legs []store.Leg) error {
			p, err := db.Pulse(ctx, legs, true)
			if err == nil && (!p[0].Renewed || p[1].Renewed) {
				err = fmt.Errorf("want the first run renewed, and not the one that changes: %+v", p)
			}
			return err
		},
		"cancel": func(ctx context.Context, db *store.DB, _ []store.Leg) error { return cancelAll(ctx, db) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := storetest.URL(t)
			db := storetest.Open(t, store.Options{URL: url})
			runs := []store.Run{begin(t, db, "ann", "1", 0), begin(t, db, "ann", "2", 0)}
			slices.SortFunc(runs, func(a, b store.Run) int { return cmp.Compare(a.RunID.String(), b.RunID.String()) })
			db.Close()
			legs := []store.Leg{leg(runs[0]), leg(runs[1])}
			second := " FROM keyway.runs WHERE run_id = '" + runs[1].RunID.String() + "'"
			if name == "cancel" { // It asks for the time only for a paused run.
				sql(t, url, "UPDATE keyway.runs SET status = 'PAUSED', lease_until = NULL")
			}
			onlyJoins(t, url, "nestloop") // The first run is written before the second one is locked.
			sql(t, url, `ANALYZE;
				CREATE SCHEMA gates; CREATE SEQUENCE gates.calls;
				CREATE FUNCTION gates.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN
					PERFORM pg_advisory_xact_lock_shared(nextval('gates.calls'));
					RETURN pg_catalog.now();
				END $$;
				DO $$ BEGIN
					EXECUTE format('ALTER DATABASE %I SET search_path = gates, pg_catalog', current_database());
				END $$`)
			gate, share, other := connection(t, url), connection(t, url), connection(t, url)
			gate("SELECT pg_advisory_lock(1), pg_advisory_lock(2)")
			var all sync.WaitGroup
			first := stopped(t, &all, url, "first", func(db *store.DB) error { return statement(t.Context(), db, legs) })
			share("BEGIN; SELECT" + second + " FOR UPDATE NOWAIT; ROLLBACK") // The statement has not locked it.
			share("BEGIN; SELECT" + second + " FOR KEY SHARE")
			other("BEGIN; SELECT FROM keyway.sessions WHERE session_id = '" + runs[1].SessionID + "' FOR UPDATE")
			deletes := stopped(t, &all, url, "deletes", func(db *store.DB) error {
				_, err := db.DeleteSessions(t.Context(), ann, []string{runs[1].SessionID}, "")
				return err
			})
			sql(t, url, "UPDATE keyway.runs SET losses = 1 WHERE run_id = '"+runs[1].RunID.String()+"'")
			gate("SELECT pg_advisory_unlock(1)")
			first()
			other("ROLLBACK")
			deletes()
			gate("SELECT pg_advisory_unlock(2)")
			first()
			share("COMMIT")
			all.Wait()
			wantNoDeadlocks(t, url)
		})
	}
}

// connection returns a function that executes SQL on a connection of its own.
func connection(t *testing.T, url string) func(sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), named(t, url, "test"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// named returns a database's address for connections of this name.
func named(t *testing.T, address, name string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("application_name", name)
	u.RawQuery = q.Encode()
	return u.String()
}

// stopped executes a statement in the background on a store whose connections have the name. It returns when the
// statement waits for a lock, and so does the function that it returns, also if the statement has ended.
func stopped(t *testing.T, all *sync.WaitGroup, url, name string, statement func(*store.DB) error) (again func()) {
	t.Helper()
	const waiting = `SELECT EXISTS (SELECT FROM pg_stat_activity JOIN pg_locks USING (pid)
		WHERE datname = current_database() AND application_name = '%s' AND NOT granted)`
	db := storetest.Open(t, store.Options{URL: named(t, url, name)})
	ended := make(chan struct{})
	all.Go(func() {
		defer close(ended)
		if err := statement(db); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		db.Close()
	})
	again = func() {
		t.Helper()
		for !scalar[bool](t, url, fmt.Sprintf(waiting, name)) {
			select {
			case <-ended:
				return
			default:
			}
		}
	}
	again()
	return again
}
