// Package storetest gives each test a database of its own: a clone of one migrated template, on a PostgreSQL that lives
// as long as the test binary. It decides also how the tests open the store: with prepared statements, as a server does,
// or without, as a Lambda function does (KEYWAY_STORE=unnamed).
package storetest

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/migrations"
)

// OSID is the id of the OS that owns the migrated databases.
const OSID = "test-os"

// Schema is the name of their schema.
const Schema = "keyway"

var (
	dir     string
	running *devpg.Server
	once    sync.Once
	failure error
	number  atomic.Int64

	// Copying files takes half as long as PostgreSQL 15's default strategy, wal_log. PostgreSQL 14 copies files too, but
	// has no option for it.
	strategy = " STRATEGY file_copy"
)

// Main is the TestMain of a package: os.Exit(storetest.Main(m)). PostgreSQL starts when a test asks for the first
// database, and stops after the last test.
func Main(m *testing.M) int {
	// The holder of PostgreSQL is this program, started again; then it never returns from here.
	devpg.HoldIfAsked()
	if _, err := unnamed(); err != nil {
		fmt.Fprintln(os.Stderr, "storetest:", err)
		return 2
	}
	defer func() {
		if running != nil {
			if err := running.Close(); err != nil {
				fmt.Fprintln(os.Stderr, "storetest:", err)
			}
			_ = os.RemoveAll(dir)
		}
	}()
	return m.Run()
}

// unnamed reads KEYWAY_STORE, which chooses how Open opens stores: "unnamed" is store.Options.Unnamed, "named" or an
// empty value is the default.
func unnamed() (bool, error) {
	switch mode := os.Getenv("KEYWAY_STORE"); mode {
	case "", "named":
		return false, nil
	case "unnamed":
		return true, nil
	default:
		return false, fmt.Errorf("KEYWAY_STORE is %q; it must be named or unnamed", mode)
	}
}

// New opens a migrated database of the test's own. The database is dropped at the end of the test.
func New(t testing.TB) *store.DB { t.Helper(); return Open(t, store.Options{URL: URL(t)}) }

// Open opens a store until the end of the test. o.Schema defaults to Schema; KEYWAY_STORE decides o.Unnamed.
func Open(t testing.TB, o store.Options) *store.DB {
	t.Helper()
	var err error
	if o.Unnamed, err = unnamed(); err != nil {
		t.Fatal(err)
	}
	o.Schema = cmp.Or(o.Schema, Schema)
	db, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// URL returns the address of a migrated database of the test's own.
func URL(t testing.TB) string { t.Helper(); return create(t, "template_keyway") }

// EmptyURL returns the address of an empty database of the test's own.
func EmptyURL(t testing.TB) string { t.Helper(); return create(t, "template1") }

// create creates a database as a copy of the template. Copying a migrated template takes a fraction of the time of the
// migrations, so each test can have a database of its own and run in parallel.
func create(t testing.TB, template string) string {
	t.Helper()
	once.Do(start)
	if failure != nil {
		t.Fatal(failure)
	}
	name := fmt.Sprintf("test_%d", number.Add(1))
	admin(t, "CREATE DATABASE "+name+" TEMPLATE "+template+strategy)
	t.Cleanup(func() { admin(t, "DROP DATABASE "+name+" WITH (FORCE)") })
	return database(name)
}

// start starts PostgreSQL and migrates the template. Its error fails every test that needs a database.
func start() {
	var err error
	if dir, err = os.MkdirTemp("", "keyway-test-"); err == nil {
		err = os.Chmod(dir, 0o755) // #nosec G302 -- PostgreSQL may run as another user, which must be able to enter
	}
	if err == nil {
		running, err = devpg.Start(context.Background(), devpg.Options{Dir: dir})
	}
	if err == nil {
		err = execute("CREATE DATABASE template_keyway")
	}
	if err == nil && execute("DO $$ BEGIN ASSERT current_setting('server_version_num')::int >= 150000; END $$") != nil {
		strategy = ""
	}
	for _, setting := range []string{"log_error_verbosity = 'default'", "log_min_error_statement = 'error'"} {
		if err == nil { // An operator's own PostgreSQL logs more than the embedded one, and Log shows that.
			err = execute("ALTER ROLE CURRENT_USER SET " + setting)
		}
	}
	if err == nil {
		_, err = migrations.Run(context.Background(), migrations.Target{
			URL: database("template_keyway"), Schema: Schema, OSID: OSID,
		})
	}
	failure = err
}

// Log returns the log of PostgreSQL up to now, with everything that PostgreSQL logs by default. It holds what the other
// tests of the binary have caused too.
func Log(t testing.TB) string {
	t.Helper()
	// A process of PostgreSQL's own writes the file. When it has written the last line, it has written all.
	last := fmt.Sprintf("the log of test %d ends here", number.Add(1))
	admin(t, "DO $$ BEGIN RAISE LOG '"+last+"'; END $$")
	conn, err := pgx.Connect(t.Context(), running.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for {
		var log string
		if err := conn.QueryRow(t.Context(), "SELECT pg_read_file(pg_current_logfile())").Scan(&log); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(log, last) {
			return log
		}
		select {
		case <-t.Context().Done():
			t.Fatal("PostgreSQL doesn't write its log")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// creating serialises CREATE DATABASE, which fails while another session uses the template.
var creating sync.Mutex

// admin executes a statement of the administrator.
func admin(t testing.TB, sql string) {
	t.Helper()
	if err := execute(sql); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

// execute executes a statement on a connection of its own, so that no session stays in a template.
func execute(sql string) error {
	creating.Lock()
	defer creating.Unlock()
	conn, err := pgx.Connect(context.Background(), running.URL)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), sql)
	return err
}

// database returns the URL of a database.
func database(name string) string {
	u, err := url.Parse(running.URL)
	if err != nil {
		panic(err) // devpg made the URL.
	}
	u.Path = "/" + strings.TrimPrefix(name, "/")
	return u.String()
}
