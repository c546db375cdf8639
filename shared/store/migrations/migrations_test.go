package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

// connect opens a connection until the end of the test.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, text string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), text, args...); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// progress collects the lines that Run reports.
type progress struct {
	mu    sync.Mutex
	lines []string
	first chan struct{} // closed with the first line that has the text of until
	until string
}

func waitFor(text string) *progress { return &progress{first: make(chan struct{}), until: text} }

func (p *progress) add(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.Contains(line, p.until) && !slices.ContainsFunc(p.lines, func(s string) bool {
		return strings.Contains(s, p.until)
	}) {
		close(p.first)
	}
	p.lines = append(p.lines, line)
}

func target(url string) migrations.Target {
	return migrations.Target{URL: url, Schema: "k", OSID: "os"}
}

// locks returns the number of advisory locks that sessions have in the database.
func locks(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSixMigrateAtTheSameTimeThroughAPoolerThatSharesSessions(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string][]string{
		"a pool of 20": nil,
		"a pool of 2":  {"default_pool_size = 2"},
		"a pool of 1":  {"default_pool_size = 1"},
	} {
		url := storetest.EmptyURL(t)
		pooler := storetest.PgBouncer(t, url, settings...)
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				at := target(pooler.URL)
				if i%2 == 0 {
					at.Role = "role_behind_a_pooler"
				}
				if r, err := migrations.Run(t.Context(), at); err != nil || r.To != store.SchemaVersion {
					t.Errorf("%s: %+v %v", name, r, err)
				}
			})
		}
		wg.Wait()
		if n := locks(t, connect(t, url)); n != 0 {
			t.Errorf("%s: %d locks are left", name, n)
		}
		if r, err := migrations.Run(t.Context(), target(pooler.URL)); err != nil || r.From != store.SchemaVersion {
			t.Errorf("%s: %+v %v", name, r, err)
		}
	}
}

// asTern makes a schema as the tool tern left it after the first migrations.
func asTern(t *testing.T, conn *pgx.Conn, version int) {
	t.Helper()
	exec(t, conn, `CREATE SCHEMA k; CREATE TABLE k.schema_version (version int4 NOT NULL);
		INSERT INTO k.schema_version VALUES (0)`)
	files, err := filepath.Glob("*.sql")
	if err != nil || len(files) != store.SchemaVersion {
		t.Fatalf("%q %v", files, err)
	}
	for i, name := range files[:version] {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		exec(t, conn, strings.ReplaceAll(string(text), "{{.schema}}", "k"))
		exec(t, conn, "UPDATE k.schema_version SET version = $1", i+1)
	}
	exec(t, conn, "INSERT INTO k.os (id) VALUES ('os')")
}

// Keyway 0.1 migrated with the tool tern: the same table, and a lock of the session with the same number.
func TestADatabaseThatTernMigratedIsMigratedFurther(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	conn := connect(t, url)
	const before = 5
	asTern(t, conn, before)
	exec(t, conn, "SELECT pg_advisory_lock($1)", migrations.LockNumber)
	p := waitFor("another process migrates")
	at := target(url)
	at.Progress = p.add
	done := make(chan error, 1)
	go func() {
		r, err := migrations.Run(t.Context(), at)
		if err == nil && (r.From != before || r.To != store.SchemaVersion) {
			err = fmt.Errorf("%+v", r)
		}
		done <- err
	}()
	select {
	case <-p.first:
	case err := <-done:
		t.Fatalf("it did not wait for tern's lock: %v", err)
	}
	exec(t, conn, "SELECT pg_advisory_unlock($1)", migrations.LockNumber)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(p.lines) != 2 || !strings.Contains(p.lines[0], "from version 5 to") {
		t.Errorf("%q", p.lines)
	}
}

// Keyway 0.1 left locks with the connections of a pooler.
func TestALockThatIsNeverGivenBackEndsTheWait(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	conn := connect(t, url)
	exec(t, conn, "SELECT pg_advisory_lock($1)", migrations.LockNumber)
	_, err := migrations.Run(t.Context(), target(url).Hurry(300*time.Millisecond))
	want := fmt.Sprintf("PID being %d", conn.PgConn().PID())
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(fault.Detail(err), want) ||
		!strings.Contains(fault.Detail(err), "pg_terminate_backend") {
		t.Errorf("%v; want %q", err, want)
	}
	// Nothing is due in a migrated schema, so nobody waits.
	migrated := storetest.URL(t)
	exec(t, connect(t, migrated), "SELECT pg_advisory_lock($1)", migrations.LockNumber)
	at := migrations.Target{URL: migrated, Schema: storetest.Schema, OSID: storetest.OSID}
	if _, err := migrations.Run(t.Context(), at.Hurry(300*time.Millisecond)); err != nil {
		t.Error(err)
	}
}

// While a migration waits for a table, everybody else who needs the table waits behind it.
func TestAMigrationWaitsOnlyAWhileForATable(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	conn := connect(t, url)
	asTern(t, conn, 6)
	exec(t, conn, "BEGIN; LOCK TABLE k.runs IN ACCESS SHARE MODE")
	at, p := target(url), waitFor("keeps a table")
	at.Progress = p.add
	done, began := make(chan error, 1), time.Now()
	go func() { _, err := migrations.Run(t.Context(), at); done <- err }()
	select {
	case <-p.first:
		if took := time.Since(began); took < 2900*time.Millisecond || took > 6*time.Second {
			t.Errorf("it waited %s for a table, want three seconds", took)
		}
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	}
	exec(t, conn, "COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAReadOnlyDatabaseIsNotMigratedAndTheErrorHasTheRemedy(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	exec(t, connect(t, url), `DO $$ BEGIN
		EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`)
	_, err := migrations.Run(t.Context(), target(url))
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(fault.Detail(err), "target_session_attrs=read-write") {
		t.Errorf("%v", err)
	}
}

func TestAPoolerInStatementModeIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	pooler := storetest.PgBouncer(t, storetest.EmptyURL(t), "pool_mode = statement")
	_, err := migrations.Run(t.Context(), target(pooler.URL))
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(fault.Detail(err), "pool_mode=transaction") {
		t.Errorf("%v", err)
	}
}

func TestAFrozenDatabaseEndsTheStart(t *testing.T) {
	t.Parallel()
	w, err := wiretap.Open(context.WithoutCancel(t.Context()), storetest.URL(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	w.Freeze()
	at := migrations.Target{URL: w.URL + "&connect_timeout=1", Schema: storetest.Schema, OSID: storetest.OSID}
	if _, err := migrations.Run(t.Context(), at); !errors.Is(err, fault.Unavailable) ||
		!strings.Contains(fault.Detail(err), "can't be reached") {
		t.Errorf("%v", err)
	}
}
