// Package migrations brings a database schema to the version that package store needs, and assigns it to one OS. The
// migrations are embedded. They only go forward, and each one is a transaction. They run at deployment and when
// `keyway serve` starts, never in a function that answers requests: those have no right to change the schema.
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

// Target is what Run migrates.
type Target struct {
	// URL is the address of the database, with a user who is allowed to create the schema. Required.
	URL string
	// Schema is the schema to migrate. It must be a plain identifier, which package config checks. Required.
	Schema string
	// OSID is the id of the OS that owns the schema. Required.
	OSID string
	// Role is a role that gets the right to read and write the rows, and nothing more. It is created if it does not
	// exist. Defaults to none: only the user of URL can use the schema.
	Role string
	// Secure has the same meaning as in store.Options.
	Secure func(*pgx.ConnConfig) error
}

// Result is what Run did.
type Result struct {
	// From and To are the versions of the schema before and after.
	From, To int32
	// Newer means that a newer Keyway has migrated the schema and that this one works with it. Nothing was done.
	Newer bool
}

// Run migrates the schema, and creates it if it does not exist. Several calls at the same time wait for each other. It
// is fault.Conflict if the schema belongs to another OS, if a newer Keyway migrated the schema and this one does not
// work with it, or if the role has more rights than it should get. It is fault.Unavailable if the database cannot be
// reached.
func Run(ctx context.Context, t Target) (Result, error) {
	conn, err := t.connect(ctx)
	if err != nil {
		const text = "the database can't be reached; check database.url (or DATABASE_URL)"
		return Result{}, fault.Public(fault.Unavailable, text, err)
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
	if r.From > 0 { // The schema of another OS must not be changed at all.
		if err := ensureOwner(ctx, conn, t); err != nil {
			return r, err
		}
	}
	if r.From > r.To {
		return newerSchema(ctx, conn, t, r)
	}
	if r.From < r.To {
		if err := m.Migrate(ctx); err != nil {
			return r, fmt.Errorf("schema %s: migrate: %w", t.Schema, err)
		}
	}
	err = ensureOwner(ctx, conn, t)
	if err == nil && t.Role != "" {
		err = grantRole(ctx, conn, t)
	}
	return r, err
}

// connect opens one connection. Migrations need no pool, and an advisory lock belongs to a session.
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

// newerSchema decides whether this program, which knows version r.To, works with the schema, which is at the higher
// version r.From. The column oldest says which programs do.
func newerSchema(ctx context.Context, conn *pgx.Conn, t Target, r Result) (Result, error) {
	var oldest int32
	table := pgx.Identifier{t.Schema, "schema_version"}.Sanitize()
	if err := conn.QueryRow(ctx, "SELECT oldest FROM "+table).Scan(&oldest); err != nil {
		return r, fmt.Errorf("schema %s: version: %w", t.Schema, err)
	}
	if oldest > r.To {
		text := "the schema %s is at version %d, which needs a Keyway for version %d or later, and this one is for " +
			"version %d; run the newer Keyway, or restore the database from a backup before the migration"
		return r, fault.Public(fault.Conflict, fmt.Sprintf(text, t.Schema, r.From, oldest, r.To), nil)
	}
	return Result{From: r.From, To: r.From, Newer: true}, nil
}

// createSchema creates the schema if it does not exist. It takes a transaction lock, because of two CREATE SCHEMA IF
// NOT EXISTS at the same time one fails with a unique violation.
func createSchema(ctx context.Context, conn *pgx.Conn, schema string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var exists bool
		row := tx.QueryRow(ctx, `SELECT pg_advisory_xact_lock(hashtext('keyway.schema')) IS NULL
			OR EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, schema)
		if err := row.Scan(&exists); err != nil || exists {
			return err
		}
		_, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{schema}.Sanitize())
		return err
	})
}

// ensureOwner assigns a new schema to the OS, and returns fault.Conflict if the schema belongs to another one.
func ensureOwner(ctx context.Context, conn *pgx.Conn, t Target) error {
	table := pgx.Identifier{t.Schema, "os"}.Sanitize()
	var owner string
	err := conn.QueryRow(ctx, "SELECT id FROM "+table).Scan(&owner)
	// Two processes may assign a new schema at the same time. The table accepts one row, so the second insert does
	// nothing, and the second read finds the winner.
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err = conn.Exec(ctx, "INSERT INTO "+table+" (id) VALUES ($1) ON CONFLICT DO NOTHING", t.OSID); err == nil {
			err = conn.QueryRow(ctx, "SELECT id FROM "+table).Scan(&owner)
		}
	}
	if err != nil {
		return fmt.Errorf("schema %s: owner: %w", t.Schema, err)
	}
	if owner != t.OSID {
		text := "the database schema %q belongs to the OS %q, not to %q; set database.schema to a name of its own, " +
			"or id to %q"
		return fault.Public(fault.Conflict, fmt.Sprintf(text, t.Schema, owner, t.OSID, owner), nil)
	}
	return nil
}
