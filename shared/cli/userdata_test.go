package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// The second batch of an erasure waits for a lock, and then the command is interrupted, as by ctrl-C.
func TestAnInterruptedErasureReportsItsPartAndIsRepeated(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
		return conn
	}
	holder, watcher := connect(), connect()
	if _, err := holder.Exec(t.Context(), `INSERT INTO keyway.sessions (owner, session_id, created_at, updated_at)
		SELECT 'ann', 's' || to_char(n, '000'), now(), now() FROM generate_series(1, 120) n`); err != nil {
		t.Fatal(err)
	}
	tx, err := holder.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), `SELECT FROM keyway.sessions WHERE session_id = 's 060' FOR UPDATE`)
	}
	if err != nil {
		t.Fatal(err)
	}
	file := writeConfig(t, "id: test-os\nagents: [{id: a, model: 'demo:x'}]\nauth: {keys: ['${A}']}\n")
	erase := func(ctx context.Context) (code int, printed string) {
		var out, complaints bytes.Buffer
		e := testEnv(map[string]string{"DATABASE_URL": url, "A": strings.Repeat("secret", 8)})
		e.out, e.err = &out, &complaints
		code = execute(ctx, []string{"--config", file, "erase", "--sub", "ann", "--apply"}, e)
		return code, out.String() + complaints.String()
	}
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		defer interrupt()
		for waits := 0; waits == 0; {
			if err := watcher.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waits); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	code, printed := erase(ctx)
	const part = "erased so far: 50 sessions, 0 runs, 0 memories\nnot all is erased; repeat the command\n"
	if code != 1 || !strings.Contains(printed, part) || !strings.Contains(printed, "keyway: ") {
		t.Errorf("exit status %d, %s", code, printed)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	code, printed = erase(t.Context())
	if code != 0 || !strings.HasPrefix(printed, "erased: 70 sessions, 0 runs, 0 memories\n") {
		t.Errorf("exit status %d, %s", code, printed)
	}
}
