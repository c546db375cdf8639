// Package storetest gives tests databases of their own: clones of one migrated
// template on a PostgreSQL that lives as long as the test binary.
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

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/migrations"
)

// OSID is the OS that the migrated databases belong to.
const OSID = "test-os"

// Schema is the schema that they have.
const Schema = "keyway"

var (
	dir     string
	running *devpg.Server
	once    sync.Once
	failure error
	number  atomic.Int64

	opened  atomic.Bool // a store, by a test
	unnamed bool        // how stores are opened now

	// Copying files is half as slow as PostgreSQL 15's default, the log; 14 knows
	// nothing else and no name for it.
	strategy = " STRATEGY file_copy"
)

// Main is a package's TestMain: os.Exit(storetest.Main(m)). PostgreSQL starts
// with the first database that a test asks for. Tests that open a store here run
// twice: as a server opens it, and as a function does, store.Options.Unnamed.
func Main(m *testing.M) int {
	devpg.HoldIfAsked()
	defer func() {
		if running != nil {
			if err := running.Close(); err != nil {
				fmt.Fprintln(os.Stderr, "storetest:", err)
			}
			_ = os.RemoveAll(dir)
		}
	}()
	code := m.Run()
	if opened.Load() {
		unnamed = true
		code = max(code, m.Run())
	}
	return code
}

// New opens a migrated database of the test's own, dropped at its end.
func New(t testing.TB) *store.DB { t.Helper(); return Open(t, store.Options{URL: URL(t)}) }

// Open opens a store until the test ends. Without a schema it is the one of Schema.
func Open(t testing.TB, o store.Options) *store.DB {
	t.Helper()
	opened.Store(true)
	if o.Unnamed = unnamed; unnamed {
		t.Log("statements have no names")
	}
	o.Schema = cmp.Or(o.Schema, Schema)
	db, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// URL names a migrated database of the test's own.
func URL(t testing.TB) string { t.Helper(); return create(t, "template_keyway") }

// EmptyURL names a database in which nothing is yet.
func EmptyURL(t testing.TB) string { t.Helper(); return create(t, "template1") }

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

func start() {
	var err error
	if dir, err = os.MkdirTemp("", "keyway-test-"); err == nil {
		err = os.Chmod(dir, 0o755) // #nosec G302 -- PostgreSQL may run as another user, who has to enter
	}
	if err == nil {
		running, err = devpg.Start(context.Background(), devpg.Options{Dir: dir})
	}
	if err == nil {
		err = exec("CREATE DATABASE template_keyway")
	}
	if err == nil && exec("DO $$ BEGIN ASSERT current_setting('server_version_num')::int >= 150000; END $$") != nil {
		strategy = ""
	}
	if err == nil {
		_, err = migrations.Run(context.Background(), migrations.Target{URL: database("template_keyway"), Schema: Schema, OSID: OSID})
	}
	failure = err
}

// creating serialises CREATE DATABASE, which refuses a template in use.
var creating sync.Mutex

func admin(t testing.TB, sql string) {
	t.Helper()
	if err := exec(sql); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

func exec(sql string) error {
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

func database(name string) string {
	u, err := url.Parse(running.URL)
	if err != nil {
		panic(err) // devpg made it
	}
	u.Path = "/" + strings.TrimPrefix(name, "/")
	return u.String()
}
