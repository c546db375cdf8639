package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// tap opens a proxy to the database until the end of the test.
func tap(t *testing.T, url string) *wiretap.Tap {
	t.Helper()
	w, err := wiretap.Open(context.WithoutCancel(t.Context()), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// read executes a statement that reads a little. It fails only if the database does not answer as it should.
func read(t *testing.T, db *store.DB) error {
	t.Helper()
	_, err := db.Session(t.Context(), ann, "missing", "")
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// write executes a statement that writes a little.
func write(t *testing.T, db *store.DB, session string) error {
	t.Helper()
	return db.CreateSession(t.Context(), store.Session{Owner: "ann", SessionID: session, SessionType: "agent",
		CreatedAt: day})
}

// unavailableWithin checks that the error of do is fault.Unavailable with a RetryAfter, and that it comes in time.
func unavailableWithin(t *testing.T, what string, limit time.Duration, do func() error) {
	t.Helper()
	start := time.Now()
	err := do()
	took := time.Since(start)
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind != fault.Unavailable || f.RetryAfter == 0 || !store.Transient(err) {
		t.Errorf("%s: %v", what, err)
	}
	// A statement that is repeated would need the time at least once more.
	if took > limit+limit/2+time.Second {
		t.Errorf("%s: the error came after %s, not %s", what, took, limit)
	}
}

func TestAFrozenDatabaseIsUnavailableWithinSeconds(t *testing.T) {
	t.Parallel()
	w := tap(t, storetest.URL(t))
	db, later := storetest.Open(t, store.Options{URL: w.URL}), storetest.Open(t, store.Options{URL: w.URL})
	if err := read(t, db); err != nil {
		t.Fatal(err)
	}
	w.Freeze()
	var wg sync.WaitGroup
	wg.Go(func() { unavailableWithin(t, "to connect", 3*time.Second, func() error { return read(t, later) }) })
	unavailableWithin(t, "a statement", 5*time.Second, func() error { return read(t, db) })
	unavailableWithin(t, "the next statement", 3*time.Second, func() error { return read(t, db) })
	wg.Wait()
	w.Thaw()
	if err := errors.Join(read(t, db), read(t, later)); err != nil {
		t.Errorf("after the database answers again: %v", err)
	}
}

// The times of docs/store.md, each measured. The test lasts as long as the longest statement may take: 20 seconds.
func TestTheTimesOfTheStoreAreThoseOfTheDocuments(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	w := tap(t, url)
	frozen, later := storetest.Open(t, store.Options{URL: w.URL}), storetest.Open(t, store.Options{URL: w.URL})
	listing := storetest.Open(t, store.Options{URL: w.URL})
	list := func() error {
		_, _, err := listing.Sessions(t.Context(), ann, store.SessionQuery{Limit: 20, Page: 1})
		return err
	}
	locked := storetest.Open(t, store.Options{URL: url})
	var attempts atomic.Int32
	refused := storetest.Open(t, store.Options{Address: func(context.Context) (string, error) {
		attempts.Add(1)
		return "postgres://u@127.0.0.1:1/x", nil // No server listens there.
	}})
	if err := errors.Join(read(t, frozen), list(), write(t, locked, "s")); err != nil {
		t.Fatal(err)
	}
	defer block(t, url, "SELECT FROM keyway.sessions FOR UPDATE")()
	w.Freeze()
	defer w.Thaw()
	const milli = time.Millisecond
	var all sync.WaitGroup
	for what, c := range map[string]struct {
		do          func() error
		least, most time.Duration
	}{
		"to get a connection":           {func() error { return read(t, later) }, 2900 * milli, 4000 * milli},
		"a statement":                   {func() error { return read(t, frozen) }, 4900 * milli, 6000 * milli},
		"a page of sessions":            {list, 5900 * milli, 7000 * milli},
		"a statement that deletes much": {func() error { return erase(t, locked) }, 19_000 * milli, 22_000 * milli},
		"to repeat one":                 {func() error { return read(t, refused) }, 3000 * milli, 4500 * milli},
	} {
		all.Go(func() {
			began := time.Now()
			err := c.do()
			if took := time.Since(began); err == nil || took < c.least || took > c.most {
				t.Errorf("%s: %v after %s, want %s to %s", what, err, took, c.least, c.most)
			}
		})
	}
	all.Wait()
	if n := attempts.Load(); n < 8 || n > 20 {
		t.Errorf("%d attempts in 4 seconds", n)
	}
	// The idle connection is checked, and not used: 2 seconds. A new one is not made in the third.
	began := time.Now()
	if err := read(t, frozen); err == nil || time.Since(began) > 4*time.Second {
		t.Errorf("the next statement: %v after %s", err, time.Since(began))
	}
}

// erase executes a statement that may delete much.
func erase(t *testing.T, db *store.DB) error {
	t.Helper()
	_, _, err := db.EraseUser(t.Context(), "ann", 1)
	return err
}

func TestNoCallOfTheStoreWaitsForAFrozenDatabase(t *testing.T) {
	t.Parallel()
	w := tap(t, storetest.URL(t))
	// Each call has a connection of its own. PostgreSQL has 100, and other tests need some of them.
	for calls := range slices.Chunk(allCalls(), 20) {
		t.Run(calls[0].method+" and others", func(t *testing.T) { callsOfAFrozenDatabase(t, w, calls) })
	}
}

func callsOfAFrozenDatabase(t *testing.T, w *wiretap.Tap, calls []call) {
	t.Helper()
	dbs := make([]*store.DB, len(calls))
	for i := range calls {
		dbs[i] = storetest.Open(t, store.Options{URL: w.URL, MaxConns: 1})
		store.Hurry(dbs[i])
		if err := read(t, dbs[i]); err != nil {
			t.Fatal(err)
		}
	}
	w.Freeze()
	var wg sync.WaitGroup
	for i, c := range calls {
		wg.Go(func() {
			do := func() error { return c.do(t.Context(), dbs[i]) }
			unavailableWithin(t, c.method, 3*time.Second, do)
			unavailableWithin(t, c.method+" once more", 3*time.Second, do)
		})
	}
	wg.Wait()
	w.Thaw()
	for i, c := range calls {
		if err := read(t, dbs[i]); err != nil {
			t.Errorf("after the database answers again, following %s: %v", c.method, err)
		}
	}
}

func TestTheDeadlineOfTheCallerEndsAStatement(t *testing.T) {
	t.Parallel()
	w := tap(t, storetest.URL(t))
	db := storetest.Open(t, store.Options{URL: w.URL})
	if err := read(t, db); err != nil {
		t.Fatal(err)
	}
	w.Freeze()
	defer w.Thaw()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	unavailableWithin(t, "a statement", 100*time.Millisecond, func() error {
		_, err := db.Session(ctx, ann, "s", "")
		return err
	})
}

// With Hurry a small statement ends after half a second.
func TestALargeStatementHasMoreTime(t *testing.T) {
	t.Parallel()
	w := tap(t, storetest.URL(t))
	db := storetest.Open(t, store.Options{URL: w.URL})
	store.Hurry(db)
	if err := read(t, db); err != nil {
		t.Fatal(err)
	}
	w.Freeze()
	defer w.Thaw()
	start := time.Now()
	unavailableWithin(t, "a statement of a megabyte", 2*time.Second, func() error {
		return db.CreateSession(t.Context(), store.Session{Owner: "ann", SessionID: "s", SessionType: "agent",
			Metadata: json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`), CreatedAt: day})
	})
	if took := time.Since(start); took < time.Second {
		t.Errorf("it ended after %s", took)
	}
}

// block locks the rows of a query until release is called.
func block(t *testing.T, url, query string) (release func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(ctx) })
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, query+" FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(ctx); err != nil {
			t.Error(err)
		}
	}
}

// blocked waits until n statements wait for a lock in the database.
func blocked(t *testing.T, url string, n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for waiting := 0; waiting < n; {
		err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLeasesDoNotWaitForOtherStatements(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url, MaxConns: 1, LeaseConns: 1})
	if err := write(t, db, "s"); err != nil {
		t.Fatal(err)
	}
	release := block(t, url, "SELECT FROM keyway.sessions")
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := db.ChangeSession(t.Context(), store.Session{Owner: "ann", SessionID: "s"}, store.SessionChange{},
			day); err != nil {
			t.Error(err)
		}
	})
	blocked(t, url, 1) // The only connection for other statements is in use now.
	calls := allCalls()
	pulse := calls[slices.IndexFunc(calls, func(c call) bool { return c.method == "Pulse" })]
	start := time.Now()
	// There is no such run, so nothing is found; but the database has answered.
	if err := pulse.do(t.Context(), db); store.Transient(err) || time.Since(start) > 2*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	release()
	wg.Wait()
}

func TestTheSizeOfThePool(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	more := func(parameter string) string {
		return url + map[bool]string{true: "&", false: "?"}[strings.Contains(url,
			"?")] + parameter
	}
	for name, c := range map[string]struct {
		o    store.Options
		want int64
	}{
		"by default":             {store.Options{URL: url}, 16},
		"of the URL":             {store.Options{URL: more("pool_max_conns=3")}, 3},
		"of the options":         {store.Options{URL: more("pool_max_conns=3"), MaxConns: 2}, 2},
		"with leases, of others": {store.Options{URL: url, LeaseConns: 2}, 16},
	} {
		w := tap(t, c.o.URL)
		c.o.URL = w.URL
		db := storetest.Open(t, c.o)
		w.Freeze()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { _ = read(t, db) })
		}
		for end := time.Now().Add(time.Minute); w.Opened.Load() < c.want && time.Now().Before(end); {
		}
		w.Thaw()
		wg.Wait()
		if got := w.Opened.Load(); got != c.want {
			t.Errorf("%s: %d connections, want %d", name, got, c.want)
		}
	}
}

func TestALostConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	for i := range 5 {
		if err := write(t, db, fmt.Sprint("s", i)); err != nil {
			t.Fatal(err)
		}
		sql(t, url, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	}
}

func TestARefusedConnectionIsTriedAgain(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	var attempts atomic.Int32
	db := storetest.Open(t, store.Options{Address: func(context.Context) (string, error) {
		if attempts.Add(1) < 4 {
			return "postgres://u@127.0.0.1:1/x", nil // No server listens there.
		}
		return url, nil
	}})
	if err := read(t, db); err != nil || attempts.Load() != 4 {
		t.Errorf("after %d attempts: %v", attempts.Load(), err)
	}
}

// After a failover of Aurora, the connections of a pool stay with the server that is a replica now.
func TestAReadOnlyConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	sql(t, url, `DO $$ BEGIN
		EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`)
	db := storetest.Open(t, store.Options{URL: url})
	var wg sync.WaitGroup
	for range 8 { // so that the pool has several connections
		wg.Go(func() {
			if err := read(t, db); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	sql(t, url, `SET transaction_read_only = off; DO $$ BEGIN
		EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database()); END $$`)
	for i := range 8 {
		if err := write(t, db, fmt.Sprint("s", i)); err != nil {
			t.Error(err)
		}
	}
}

// An operator may have made another isolation than READ COMMITTED the default of the database. Then statements that
// change one session at the same time conflict, and PostgreSQL ends all but one of them with 40001.
func TestConcurrentRunsOfASessionDoNotConflict(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	sql(t, url, `DO $$ BEGIN
		EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''', current_database());
		END $$`)
	db := storetest.Open(t, store.Options{URL: url})
	const n = 30
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { finish(t, db, begin(t, db, "ann", "s", i)) })
	}
	wg.Wait()
	if s := session(t, db, ann, "s"); len(s.Usage) != 1 || s.Usage[0].Total != n*15 {
		t.Errorf("%+v", s.Usage)
	}
}

func TestAStatementThatAMigrationChangedIsPreparedAgain(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	if err := write(t, db, "s"); err != nil {
		t.Fatal(err)
	}
	session(t, db, ann, "s")
	sql(t, url, `ALTER TABLE keyway.sessions ALTER COLUMN name TYPE varchar(300)`)
	session(t, db, ann, "s")
}

// The driver's text for a server without TLS must not hide the cause: with sslmode=prefer that server is allowed.
func TestAServerWithoutTLSHidesNoOtherError(t *testing.T) {
	t.Parallel()
	url, _, _ := strings.Cut(storetest.URL(t), "?")
	db := storetest.Open(t, store.Options{URL: url + "_missing?sslmode=prefer"})
	if err := read(t, db); !strings.Contains(fault.Detail(err), "database name") {
		t.Errorf("%q", fault.Detail(err))
	}
}

// rowsOf returns the rows of all tables as JSON, without what depends on the time and on the number of attempts.
func rowsOf(t *testing.T, url string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var out []string
	tables, _ := conn.Query(t.Context(), `SELECT tablename FROM pg_tables WHERE schemaname = 'keyway' ORDER BY 1`)
	names, err := pgx.CollectRows(tables, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		var rows json.RawMessage
		err := conn.QueryRow(t.Context(), `SELECT COALESCE(jsonb_agg(row ORDER BY row::text), '[]') FROM (
			SELECT to_jsonb(t) - ARRAY['lease_until', 'seq', 'minute', 'minute_runs', 'id', 'next_at'] AS row
			FROM keyway.`+name+` t) AS rows`).Scan(&rows)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, name+": "+string(rows))
	}
	return strings.Join(out, "\n")
}

// Each call loses its first answer: the statement was executed, and is executed again. The call must have the same
// result, and the tables the same rows, as without.
func TestALostAnswerChangesNothing(t *testing.T) {
	t.Parallel()
	url, plainURL := storetest.URL(t), storetest.URL(t)
	w := tap(t, url)
	losing, plain := storetest.Open(t, store.Options{URL: w.URL}), storetest.Open(t, store.Options{URL: plainURL})
	for _, c := range allCalls() {
		if err := c.do(t.Context(), plain); err != nil {
			t.Fatalf("%s: %v", c.method, err)
		}
		before := w.Opened.Load()
		w.LoseAnswer()
		if err := c.do(t.Context(), losing); err != nil {
			t.Errorf("%s, its answer lost: %v", c.method, err)
		}
		if w.Opened.Load() == before {
			t.Errorf("%s: no answer was lost", c.method)
		}
		if want, got := rowsOf(t, plainURL), rowsOf(t, url); want != got {
			t.Fatalf("%s, its answer lost, leaves\n%s\nwant\n%s", c.method, got, want)
		}
	}
}
