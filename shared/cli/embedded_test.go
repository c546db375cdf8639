package cli

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/migrations"
)

// Without DATABASE_URL, a command uses the embedded database: that of a running server, or one that it starts.
func TestCommandsUseTheEmbeddedDatabase(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	file := writeConfig(t, "id: test-os\nagents: [{id: a, model: 'demo:x'}]\nauth: {keys: ['${A}']}\n"+
		"retention: {sessions: 1h}\n")
	run := func(args ...string) string {
		t.Helper()
		return command(t, map[string]string{"A": strings.Repeat("secret", 8)},
			append([]string{"--config", file, "--data", dir}, args...)...)
	}
	server, err := devpg.Start(t.Context(), devpg.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_, err = migrations.Run(t.Context(), migrations.Target{URL: server.URL, Schema: "keyway", OSID: "test-os"})
	if err == nil {
		err = fillEmbedded(t.Context(), server.URL)
	}
	if err != nil {
		t.Fatal(errors.Join(err, server.Close()))
	}
	commands := func() {
		t.Helper()
		if got := run("runs"); got != "" {
			t.Errorf("runs: %s", got)
		}
		if got := run("export", "--sub", "ann"); !strings.Contains(got, `"lines":{"session":2}`) {
			t.Errorf("export: %s", got)
		}
		if got := run("erase", "--sub", "ann"); !strings.HasPrefix(got, "would erase: 2 sessions") {
			t.Errorf("erase: %s", got)
		}
		if got := run("retention", "run", "--dry-run"); !strings.HasPrefix(got, "would delete: 1 session,") {
			t.Errorf("retention: %s", got)
		}
	}
	commands()
	// The commands have left it running.
	if err := errors.Join(fillEmbedded(t.Context(), server.URL), server.Close()); err != nil {
		t.Fatal(err)
	}
	commands()
}

// fillEmbedded gives ann an old session and a new one.
func fillEmbedded(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `INSERT INTO keyway.sessions (owner, session_id, created_at, updated_at)
		VALUES ('ann', 'old', now(), now() - interval '1 day'), ('ann', 'new', now(), now()) ON CONFLICT DO NOTHING`)
	return errors.Join(err, conn.Close(ctx))
}
