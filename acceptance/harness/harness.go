//go:build unix

// Package harness has what the harnesses of acceptance share: a PostgreSQL of their own, the programs that they
// test, and waiting. A harness decides what is tested and what must hold.
package harness

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store/devpg"
)

// Postgres is a PostgreSQL server of a harness.
type Postgres struct{ *devpg.Server }

// OpenPostgres starts PostgreSQL below dir.
func OpenPostgres(ctx context.Context, dir string) (Postgres, error) {
	// PostgreSQL may run as another user, which must be able to enter.
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302
		return Postgres{}, err
	}
	server, err := devpg.Start(ctx, devpg.Options{Dir: dir})
	return Postgres{server}, err
}

// Close stops PostgreSQL and removes its files.
func (p Postgres) Close() error {
	return errors.Join(p.Server.Close(), os.RemoveAll(p.Dir))
}

// Database creates an empty database and returns its URL.
func (p Postgres) Database(ctx context.Context, name string) (*url.URL, error) {
	conn, err := pgx.Connect(ctx, p.URL)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return nil, err
	}
	u, err := url.Parse(p.URL)
	if err == nil {
		u.Path = "/" + name
	}
	return u, err
}

// Root returns the root of this repository.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("run it within the repository: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Build builds a package of this repository into the file program. flags are those of go build.
func Build(ctx context.Context, root, pkg, program string, flags ...string) error {
	args := append(append([]string{"build", "-trimpath"}, flags...), "-o", program, "./"+pkg)
	cmd := exec.CommandContext(ctx, "go", args...) // #nosec G204 -- files of this repository
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// Wait waits for d or for the end of ctx.
func Wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
