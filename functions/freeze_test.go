package functions_test

import (
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// freeze stops the process as Lambda does, closes its connections on the server, waits for more
// than a second, and continues the process.
func (f function) freeze(t *testing.T, database string) {
	t.Helper()
	f.Signal(syscall.SIGSTOP)
	defer f.Signal(syscall.SIGCONT)
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var closed int
	err = conn.QueryRow(t.Context(), `
		SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`).Scan(&closed)
	if err == nil {
		_, err = conn.Exec(t.Context(), "SELECT pg_sleep(1.1)")
	}
	if err != nil || closed == 0 {
		t.Fatalf("%d connections closed: %v", closed, err)
	}
}
