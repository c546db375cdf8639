package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// open opens a store as keyway serve does, whatever KEYWAY_STORE says.
func open(t *testing.T, o store.Options) *store.DB {
	t.Helper()
	o.Schema, o.LeaseConns = storetest.Schema, 2
	db, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// work begins and ends n runs at the same time, and reads their session.
func work(t *testing.T, what string, db *store.DB, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { finish(t, db, begin(t, db, "bob", "s", i)) })
	}
	wg.Wait()
	if s := session(t, db, store.Viewer{Owner: "bob"}, "s"); len(s.Usage) != 1 || s.Usage[0].Total != n*15 {
		t.Errorf("%s: %+v", what, s.Usage)
	}
}

func TestTheStoreFindsOutWhatStandsAtItsAddress(t *testing.T) {
	t.Parallel()
	for mode, settings := range map[string][]string{
		"no pooler":                   nil,
		"session":                     {"pool_mode = session", "default_pool_size = 40"},
		"transaction":                 {"pool_mode = transaction"},
		"transaction, one connection": {"pool_mode = transaction", "default_pool_size = 1"},
		"statement":                   {"pool_mode = statement"},
	} {
		address, pooled := storetest.URL(t), settings != nil
		if pooled {
			address = storetest.PgBouncer(t, address, settings...).URL
		}
		db := open(t, store.Options{URL: address})
		f, err := db.Probe(t.Context())
		if err != nil || f.Pooler != pooled || f.Named == pooled || f.Exposed || f.Version < 140_000 {
			t.Errorf("%s: %+v %v", mode, f, err)
		}
		work(t, mode, db, 20)
		other := open(t, store.Options{URL: address}) // another process
		if _, err := other.Probe(t.Context()); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		for _, c := range allCalls() {
			if err := c.do(t.Context(), other); err != nil {
				t.Errorf("%s: %s: %v", mode, c.method, err)
			}
		}
	}
}

// The pooler was put before the database later, or it hides well: nobody has probed. The first client meets no error;
// the names of the second one exist already, or are missing.
func TestNamesThatDoNotWorkAreGivenUp(t *testing.T) {
	t.Parallel()
	pooler := storetest.PgBouncer(t, storetest.URL(t), "default_pool_size = 4")
	var log bytes.Buffer
	var wg sync.WaitGroup
	for i := range 2 {
		o := store.Options{URL: pooler.URL}
		if i == 1 {
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
		}
		db := open(t, o)
		for n := range 25 {
			wg.Go(func() { finish(t, db, begin(t, db, fmt.Sprint("user", i), "s", n)) })
		}
	}
	wg.Wait()
	if text := log.String(); strings.Count(text, "prepared statements do not work") > 1 {
		t.Errorf("the log is %q", text)
	}
}

func TestADatabaseThatAcceptsNoWritesIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	address := storetest.URL(t)
	sql(t, address, `DO $$ BEGIN
		EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`)
	_, err := open(t, store.Options{URL: address}).Probe(t.Context())
	expect(t, "a read-only database", err, "target_session_attrs=read-write", false)
}

func TestADatabaseForOneConnectionIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	_, err := open(t, store.Options{URL: login(t, storetest.URL(t), "CONNECTION LIMIT 1")}).Probe(t.Context())
	expect(t, "one connection", err, "not a second one at the same time", false)
}

// Without names, dates are sent as text.
func TestAnotherDateStyleIsRefusedOnlyBehindAPooler(t *testing.T) {
	t.Parallel()
	address := storetest.URL(t)
	sql(t, address, `DO $$ BEGIN
		EXECUTE format('ALTER DATABASE %I SET DateStyle = German', current_database()); END $$`)
	db := open(t, store.Options{URL: address})
	if _, err := db.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	work(t, "no pooler", db, 2)
	_, err := open(t, store.Options{URL: storetest.PgBouncer(t, address).URL}).Probe(t.Context())
	expect(t, "a pooler", err, "ALTER DATABASE … SET DateStyle = 'ISO'", false)
}

func TestTheErrorsOfTheProbeAreThoseOfAStart(t *testing.T) {
	t.Parallel()
	_, err := open(t, store.Options{URL: "postgres://u:sesame@127.0.0.1:1/x"}).Probe(t.Context())
	expect(t, "nobody listens", err, "the database can't be reached; check database.url", false)
	if strings.Contains(err.Error(), "sesame") {
		t.Error(err)
	}
	_, err = open(t, store.Options{URL: storetest.URL(t) + "&pgbouncer=true"}).Probe(t.Context())
	expect(t, "a parameter of another driver", err, "the parameter pgbouncer of database.url", false)
}

// describe_exec gives wrong rows behind a pooler, and pgx itself rejects a capacity of 0.
func TestWaysToSendStatementsThatTheURLNames(t *testing.T) {
	t.Parallel()
	for _, parameter := range []string{
		"default_query_exec_mode=describe_exec", "default_query_exec_mode=exec", "default_query_exec_mode=simple_protocol",
		"default_query_exec_mode=cache_describe", "default_query_exec_mode=cache_statement", "statement_cache_capacity=0",
	} {
		pooler := storetest.PgBouncer(t, storetest.URL(t), "default_pool_size = 3")
		db := open(t, store.Options{URL: pooler.URL + "?" + parameter})
		if f, err := db.Probe(t.Context()); err != nil || f.Named {
			t.Errorf("%s: %+v %v", parameter, f, err)
		}
		work(t, parameter, db, 20)
	}
}

func TestAConnectionIsExposedIfItLeavesTheMachineInClearTextUnasked(t *testing.T) {
	t.Parallel()
	far, near := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, &net.TCPAddr{IP: net.IPv6loopback}
	for _, c := range []struct {
		to   net.Addr
		mode string
		want bool
	}{
		{far, "", true}, {far, "?sslmode=prefer", true}, {far, "?sslmode=allow", true}, {far, "?sslmode=disable", false},
		{near, "", false}, {&net.UnixAddr{Name: "/run/postgresql"}, "", false},
	} {
		if got, err := store.Exposed(c.to, "postgres://u@db.example/x"+c.mode); err != nil || got != c.want {
			t.Errorf("%v %q: %t %v", c.to, c.mode, got, err)
		}
	}
}

// Pgpool-II begins a transaction of its own for the first write of a connection, and rolls it back later.
func TestATransactionOfAProxyIsCommitted(t *testing.T) {
	t.Parallel()
	address := storetest.URL(t)
	db := open(t, store.Options{URL: address})
	err := store.Execute(t.Context(), db, `BEGIN; INSERT INTO keyway.sessions (owner, session_id, created_at, updated_at)
		VALUES ('ann', 'kept', now(), now())`)
	db.Close()
	if err != nil {
		t.Fatal(err)
	}
	_, err = open(t, store.Options{URL: address}).Session(t.Context(), ann, "kept", "")
	if errors.Is(err, fault.NotFound) {
		t.Error("the acknowledged write is gone")
	}
}

func TestAConnectionHasNoCacheThatItsModeDoesNotUse(t *testing.T) {
	t.Parallel()
	for mode, want := range map[pgx.QueryExecMode][2]int{
		pgx.QueryExecModeCacheStatement: {512, 0}, pgx.QueryExecModeCacheDescribe: {0, 512}, pgx.QueryExecModeExec: {0, 0},
	} {
		c := &pgx.ConnConfig{DefaultQueryExecMode: mode, StatementCacheCapacity: 512, DescriptionCacheCapacity: 512}
		store.DropUnusedCaches(c)
		if got := [2]int{c.StatementCacheCapacity, c.DescriptionCacheCapacity}; got != want {
			t.Errorf("%v: %v, want %v", mode, got, want)
		}
	}
}
