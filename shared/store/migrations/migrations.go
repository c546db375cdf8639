// Package migrations brings a database schema to the version that package store
// expects, and ties it to one OS. Migrations are embedded, forward only, each in
// a transaction. It runs at deploy time and when `keyway serve` starts, never in
// a function.
package migrations

import (
	"context"
	"embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"

	"github.com/keyway-agents/keyway/shared/fault"
)

//go:embed *.sql
var files embed.FS

// Target names the schema to migrate and the OS that owns it. Schema must be a
// plain identifier (config checks it). Role is one that may then read and write its rows,
// made where it is missing; empty: nobody but who migrates. Secure is that of
// store.Options.
type Target struct {
	URL, Schema, OSID, Role string
	Secure                  func(*pgx.ConnConfig) error
}

// Result tells what Run did. Newer: a newer Keyway has migrated the schema, and says that
// this one works with it; nothing was done.
type Result struct {
	From, To int32
	Newer    bool
}

// Run migrates the schema, creating it when absent; several at once wait for
// each other. A schema that belongs to another OS is fault.Conflict, one that a newer
// Keyway migrated so that this one doesn't fit it is fault.Conflict, and so is a role that
// may do more; a database out of reach is fault.Unavailable.
func Run(ctx context.Context, t Target) (Result, error) {
	conn, err := t.connect(ctx)
	if err != nil {
		return Result{}, fault.Public(fault.Unavailable, "the database can't be reached; check database.url (or DATABASE_URL)", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := createSchema(ctx, conn, t.Schema); err != nil {
		return Result{}, fmt.Errorf("schema %s: %w", t.Schema, err)
	}
	m, err := migrate.NewMigrator(ctx, conn, t.Schema+".schema_version")
	if err != nil {
		return Result{}, fmt.Errorf("schema %s: version: %w", t.Schema, err)
	}
	m.Data = map[string]any{"schema": t.Schema}
	if err := m.LoadMigrations(files); err != nil {
		return Result{}, fmt.Errorf("migrations: %w", err)
	}
	r := Result{To: int32(len(m.Migrations))}
	if r.From, err = m.GetCurrentVersion(ctx); err != nil {
		return r, fmt.Errorf("schema %s: version: %w", t.Schema, err)
	}
	if r.From > 0 { // another OS's schema is not even brought up to date
		if err := claim(ctx, conn, t); err != nil {
			return r, err
		}
	}
	if r.From > r.To {
		return newer(ctx, conn, t, r)
	}
	if r.From < r.To {
		if err := m.Migrate(ctx); err != nil {
			return r, fmt.Errorf("schema %s: migrate: %w", t.Schema, err)
		}
	}
	err = claim(ctx, conn, t)
	if err == nil && t.Role != "" {
		err = admit(ctx, conn, t)
	}
	return r, err
}

func (t Target) connect(ctx context.Context) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(t.URL)
	if err == nil && t.Secure != nil {
		err = t.Secure(c)
	}
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, c)
}

// newer finds out whether this program, which knows r.To, works with the schema that it
// finds at r.From.
func newer(ctx context.Context, conn *pgx.Conn, t Target, r Result) (Result, error) {
	var oldest int32
	if err := conn.QueryRow(ctx, "SELECT oldest FROM "+pgx.Identifier{t.Schema, "schema_version"}.Sanitize()).Scan(&oldest); err != nil {
		return r, fmt.Errorf("schema %s: version: %w", t.Schema, err)
	}
	if oldest > r.To {
		text := "the schema %s is at version %d, which a Keyway for version %d or later works with, and this one is for %d; run the newer Keyway, or restore the database from before"
		return r, fault.Public(fault.Conflict, fmt.Sprintf(text, t.Schema, r.From, oldest, r.To), nil)
	}
	return Result{From: r.From, To: r.From, Newer: true}, nil
}

// createSchema serialises by a transaction lock, since two CREATE SCHEMA IF NOT
// EXISTS at once collide.
func createSchema(ctx context.Context, conn *pgx.Conn, schema string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var exists bool
		row := tx.QueryRow(ctx, `SELECT pg_advisory_xact_lock(hashtext('keyway.schema')) IS NULL OR EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, schema)
		if err := row.Scan(&exists); err != nil || exists {
			return err
		}
		_, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{schema}.Sanitize())
		return err
	})
}

// claim makes the schema this OS's own, or finds out whose it is.
func claim(ctx context.Context, conn *pgx.Conn, t Target) error {
	table := pgx.Identifier{t.Schema, "os"}.Sanitize()
	var owner string
	err := conn.QueryRow(ctx, "SELECT id FROM "+table).Scan(&owner)
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err = conn.Exec(ctx, "INSERT INTO "+table+" (id) VALUES ($1) ON CONFLICT DO NOTHING", t.OSID); err == nil {
			err = conn.QueryRow(ctx, "SELECT id FROM "+table).Scan(&owner)
		}
	}
	if err != nil {
		return fmt.Errorf("schema %s: owner: %w", t.Schema, err)
	}
	if owner != t.OSID {
		return fault.Public(fault.Conflict, fmt.Sprintf("the database schema %q belongs to the OS %q, not to %q; set database.schema to a name of its own, or id to %q", t.Schema, owner, t.OSID, owner), nil)
	}
	return nil
}
