//go:build unix

package storetest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Pooler is a running PgBouncer.
type Pooler struct {
	// URL is the database behind the pooler, without any parameter.
	URL string
	// Process is the pooler's process, for a test that stops it for a while.
	Process *os.Process
}

// PgBouncer starts the installed PgBouncer, or the one that the variable KEYWAY_PGBOUNCER names, as StartPgBouncer
// does. Without PgBouncer, the test is skipped; in CI it fails.
func PgBouncer(t testing.TB, address string, settings ...string) Pooler {
	t.Helper()
	program := pgbouncer()
	if program == "" {
		const remedy = "PgBouncer is missing: make pgbouncer"
		if os.Getenv("CI") != "" {
			t.Fatal(remedy)
		}
		t.Skip(remedy)
	}
	return StartPgBouncer(t, program, address, settings...)
}

// StartPgBouncer starts a PgBouncer before the database at the address, until the end of the test. settings are lines
// of its section [pgbouncer], which replace those of the same name here: pool_mode=transaction among them.
func StartPgBouncer(t testing.TB, program, address string, settings ...string) Pooler {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	dir, err := os.MkdirTemp("", "keyway-pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	port := freePort(t)
	ini, users := filepath.Join(dir, "pgbouncer.ini"), filepath.Join(dir, "users.txt")
	text := fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
max_client_conn = 1000
default_pool_size = 20
%s
`, u.Hostname(), u.Port(), port, users, strings.Join(settings, "\n"))
	for name, text := range map[string]string{
		ini: text, users: fmt.Sprintf("%q %q\n", u.User.Username(), password),
	} {
		// PgBouncer may run as another user. The password is that of a database of a test.
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil { // #nosec G306
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302
		t.Fatal(err)
	}
	args := []string{"-q", ini}
	if os.Geteuid() == 0 { // PgBouncer refuses to run as root.
		args = append(args, "-u", "nobody")
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...) // #nosec G204
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	u.Host, u.RawQuery = fmt.Sprintf("127.0.0.1:%d", port), ""
	for end := time.Now().Add(20 * time.Second); ; {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", u.Host)
		if err == nil {
			_ = conn.Close()
			return Pooler{URL: u.String(), Process: cmd.Process}
		}
		if time.Now().After(end) {
			t.Fatalf("PgBouncer does not answer: %v", err)
		}
	}
}

// pgbouncer returns the path of the program, or "". Debian keeps it out of the PATH of ordinary users.
func pgbouncer() string {
	for _, name := range []string{os.Getenv("KEYWAY_PGBOUNCER"), "pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// freePort returns a port that was free a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
