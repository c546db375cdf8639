package store_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// expect checks the error of a statement: its text, and whether a caller should try again.
func expect(t *testing.T, what string, err error, text string, again bool) {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind != fault.Unavailable || !strings.Contains(f.Detail, text) || f.RetryAfter > 0 != again {
		t.Errorf("%s: %v; want %q, again %t", what, err, text, again)
	}
}

// with returns the address with changes.
func with(t *testing.T, address string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

// login creates another user and returns its address.
func login(t *testing.T, address, attributes string) string {
	t.Helper()
	return with(t, address, func(u *url.URL) {
		name := "login_" + strings.TrimPrefix(u.Path, "/")
		sql(t, address, "CREATE ROLE "+name+" LOGIN PASSWORD 'p' "+attributes)
		t.Cleanup(func() { sql(t, address, "DROP ROLE "+name) })
		u.User = url.UserPassword(name, "p")
	})
}

const (
	rejects     = "rejects this server's user, password or database name"
	unavailable = "not available, try again"
	unproven    = "TLS verification of the database server failed"
)

// The driver joins the errors of the attempts with and without TLS. The server of the tests has no TLS, unless another
// test enables it, so the modes that require it are those of the next test.
func TestTheErrorIsTheServersWhateverSSLModeSays(t *testing.T) {
	t.Parallel()
	address := storetest.URL(t)
	full := login(t, address, "CONNECTION LIMIT 0")
	for _, mode := range []string{"", "disable", "allow", "prefer"} {
		open := func(address string) error {
			return read(t, storetest.Open(t, store.Options{URL: with(t, address, func(u *url.URL) {
				u.RawQuery = ""
				if mode != "" {
					u.RawQuery = "sslmode=" + mode
				}
			})}))
		}
		wrong := with(t, address, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "wrong") })
		missing := with(t, address, func(u *url.URL) { u.Path += "_missing" })
		closed := with(t, address, func(u *url.URL) { u.Host = "127.0.0.1:1" })
		expect(t, mode+": no connection left", open(full), unavailable, true)
		expect(t, mode+": a wrong password", open(wrong), rejects, false)
		expect(t, mode+": no such database", open(missing), rejects, false)
		expect(t, mode+": nobody listens", open(closed), unavailable, true)
	}
}

func TestAServerWithoutTLSIsRefusedIfTheURLRequiresIt(t *testing.T) {
	t.Parallel()
	pooler := storetest.PgBouncer(t, storetest.URL(t)) // It has no TLS.
	for _, mode := range []string{"require", "verify-ca", "verify-full"} {
		db := storetest.Open(t, store.Options{URL: pooler.URL + "?sslmode=" + mode})
		expect(t, mode, read(t, db), unproven, false)
	}
}

// A parameter that the driver does not know is sent to the server: those of other drivers, and settings.
func TestARefusedParameterOfTheURLIsNamed(t *testing.T) {
	t.Parallel()
	address := storetest.URL(t)
	pooler := storetest.PgBouncer(t, address)
	for _, parameter := range []string{
		"pgbouncer=true", "prepareThreshold=0", "statement_cache_size=0", "connection_limit=5", "schema=public",
	} {
		name, _, _ := strings.Cut(parameter, "=")
		for _, at := range []string{address + "&" + parameter, pooler.URL + "?" + parameter} {
			err := read(t, storetest.Open(t, store.Options{URL: at}))
			expect(t, at, err, "refuses the parameter "+name+" of database.url", false)
		}
	}
	for _, parameter := range []string{
		"search_path=keyway", "statement_timeout=5000", "options=-c%20statement_timeout%3D5000",
	} {
		name, _, _ := strings.Cut(parameter, "=")
		if err := read(t, storetest.Open(t, store.Options{URL: address + "&" + parameter})); err != nil {
			t.Errorf("%s, without a pooler: %v", parameter, err)
		}
		err := read(t, storetest.Open(t, store.Options{URL: pooler.URL + "?" + parameter}))
		expect(t, parameter, err, "refuses the parameter "+name+" of database.url", false)
	}
	// PostgreSQL knows the name, and refuses the value.
	err := read(t, storetest.Open(t, store.Options{URL: address + "&statement_timeout=soon"}))
	expect(t, "a wrong value", err, "refuses the parameter statement_timeout", false)
}

// PgBouncer has one code for all these errors.
func TestAPoolersErrorsAreDistinguishedByTheirTexts(t *testing.T) {
	t.Parallel()
	address := storetest.URL(t)
	pooler := storetest.PgBouncer(t, address)
	db := func(address string) *store.DB { return storetest.Open(t, store.Options{URL: address}) }
	wrong := with(t, pooler.URL, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "wrong") })
	start := time.Now()
	expect(t, "a wrong password", read(t, db(wrong)), rejects, false)
	expect(t, "no such user", read(t, db(with(t, pooler.URL, func(u *url.URL) {
		u.User = url.UserPassword("nobody", "x")
	}))), rejects, false)
	expect(t, "no such database", read(t, db(pooler.URL+"_missing")), rejects, false)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("errors that will not change took %s", took)
	}
	full := storetest.PgBouncer(t, address, "max_client_conn = 1")
	first := db(full.URL)
	if err := read(t, first); err != nil {
		t.Fatal(err)
	}
	expect(t, "max_client_conn", read(t, db(full.URL)), unavailable, true)
	// The pooler is frozen, with a connection and without one.
	frozen := storetest.PgBouncer(t, address)
	db1, db2 := db(frozen.URL), db(frozen.URL)
	if err := read(t, db1); err != nil {
		t.Fatal(err)
	}
	if err := frozen.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	unavailableWithin(t, "a frozen pooler", 5*time.Second, func() error { return read(t, db1) })
	unavailableWithin(t, "a frozen pooler, to connect", 3*time.Second, func() error { return read(t, db2) })
	if err := frozen.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(read(t, db1), read(t, db2)); err != nil {
		t.Errorf("after the pooler answers again: %v", err)
	}
	// The database behind the pooler is away.
	lost := storetest.PgBouncer(t, with(t, address, func(u *url.URL) { u.Host = "127.0.0.1:1" }))
	for i := range 2 {
		expect(t, fmt.Sprint("server_login_retry ", i), read(t, db(lost.URL)), unavailable, true)
	}
}
