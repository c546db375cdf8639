// Package migrations brings a database schema to the version that package store needs, and assigns it to one OS. It
// keeps the record of who owns what there. The migrations are embedded. They only go forward, and each one is a
// transaction. They run at deployment and when `keyway serve` starts, never in a function that answers requests:
// those have no right to change the schema.
package migrations

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/store"
)

// files are the migrations. Their names begin with their numbers, 0001 and up, so the order of names is their order.
//
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
	// Owners are the issuers of keyway.yaml, which decide under which names data is stored. The zero value is a file
	// without keys, as --dev accepts it.
	Owners owner.File
	// Role is a role that gets the right to read and write the rows, and nothing more. It is created if it does not
	// exist. Defaults to none: only the user of URL can use the schema.
	Role string
	// Secure has the same meaning as in store.Options.
	Secure func(*pgx.ConnConfig) error
	// Progress is called with a short line before an existing schema is migrated, and before Run waits for another
	// program. Defaults to no reports.
	Progress func(line string)

	// patience is how long Run waits for other programs. Defaults to two minutes.
	patience time.Duration
}

// Result is what Run did.
type Result struct {
	// From and To are the versions of the schema before and after.
	From, To int32
	// Newer means that a newer Keyway has migrated the schema and that this one works with it. Nothing was done.
	Newer bool
}

// Run migrates the schema, and creates it if it does not exist. Several calls at the same time wait for each other, up
// to two minutes. It is fault.Conflict if the schema belongs to another OS, if a newer Keyway migrated the schema and
// this one does not work with it, if the role has more rights than it should get, or if the issuers of keyway.yaml
// could change who owns what (see owner.Record.Adopt). It is fault.Unavailable if the database cannot be reached,
// if it accepts no writes, or if another program keeps its lock.
//
// Run needs no session: each transaction may be executed on another connection of a pooler.
func Run(ctx context.Context, t Target) (r Result, err error) {
	conn, err := t.connect(ctx)
	if err != nil {
		return Result{}, store.AtStart(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	list, err := t.load()
	if err != nil {
		return Result{}, fmt.Errorf("migrations: %w", err)
	}
	r.To = int32(len(list)) // #nosec G115 -- a few files
	now, err := t.state(ctx, conn)
	if err == nil {
		r.From = now.version
		r, err = t.migrate(ctx, conn, list, now, r)
	}
	if err == nil {
		err = t.adopt(ctx, conn, now.owners)
	}
	if _, public := errors.AsType[*fault.Error](err); err == nil || public { // It names the schema, or the role.
		return r, err
	}
	return r, fmt.Errorf("schema %s: %w", t.Schema, store.AtStart(err))
}

// migrate brings the schema from the state now to the version r.To.
func (t Target) migrate(ctx context.Context, conn *pgx.Conn, list []string, now state, r Result) (Result, error) {
	if err := t.checkOwner(now.owner); err != nil { // The schema of another OS must not be changed at all.
		return r, err
	}
	if now.version > r.To {
		return t.newerSchema(now, r)
	}
	if now.version > 0 && now.version < r.To { // A new schema takes a moment only.
		t.report("migrating the schema %s from version %d to %d", t.Schema, now.version, r.To)
	}
	for now.version < r.To || now.owner == "" {
		err := t.locked(ctx, conn, func(tx pgx.Tx) (err error) {
			now, err = t.next(ctx, tx, list)
			return err
		})
		if err != nil {
			return r, err
		}
		if now.version > r.To {
			return r, fault.Public(fault.Conflict, "a newer Keyway migrates this schema at the same time; start again", nil)
		}
	}
	if t.Role == "" {
		return r, nil
	}
	return r, t.locked(ctx, conn, func(tx pgx.Tx) error { return grantRole(ctx, tx, t) })
}

// load returns the texts of the migrations for the schema, in their order.
func (t Target) load() (list []string, err error) {
	names, err := fs.Glob(files, "*.sql")
	for i, name := range names {
		if !strings.HasPrefix(name, fmt.Sprintf("%04d_", i+1)) {
			return nil, fmt.Errorf("%s has not the number %d", name, i+1)
		}
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		list = append(list, strings.ReplaceAll(string(text), "{{.schema}}", t.Schema))
	}
	return list, err
}

// connectTimeout is how long Run waits for a connection if the URL names no connect_timeout. A paused Aurora needs 15
// seconds.
const connectTimeout = 30 * time.Second

// connect opens one connection. Its statements have no names, so that a pooler may execute each on another connection.
func (t Target) connect(ctx context.Context) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(t.URL)
	if err == nil && t.Secure != nil {
		err = t.Secure(c)
	}
	if err != nil {
		return nil, err
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	c.StatementCacheCapacity, c.DescriptionCacheCapacity = 0, 0 // pgx would allocate 54 KB for each
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, connectTimeout)
	return pgx.ConnectConfig(ctx, c)
}

// state is what the tables say about the schema.
type state struct {
	// version is the last migration, 0 for a schema that does not exist.
	version int32
	// oldest is the version of the oldest program that works with the schema.
	oldest int32
	// owner is the OS that the schema belongs to, "" for none yet.
	owner string
	// owners is the record of the names of owners, nil for none yet.
	owners *owner.Record
}

// stateTimeout bounds the first statement. A database may accept a connection and never answer.
const stateTimeout = 20 * time.Second

// state reads the state of the schema without a lock. In most starts nothing is to be done, and this is all.
func (t Target) state(ctx context.Context, conn *pgx.Conn) (s state, err error) {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	// The columns oldest and owners do not exist before migrations 6 and 11, hence the detour through jsonb.
	err = conn.QueryRow(ctx, `SELECT version, COALESCE((to_jsonb(v) ->> 'oldest')::int, 0),
		COALESCE((SELECT id FROM `+t.table("os")+`), ''),
		(SELECT NULLIF(to_jsonb(o) -> 'owners', 'null') FROM `+t.table("os")+` o)
		FROM `+t.table("schema_version")+` v`).Scan(&s.version, &s.oldest, &s.owner, &s.owners)
	if code(err) == undefinedTable || code(err) == invalidSchemaName || errors.Is(err, pgx.ErrNoRows) {
		return state{}, nil
	}
	return s, err
}

// table returns the name of a table of the schema for a statement.
func (t Target) table(name string) string { return pgx.Identifier{t.Schema, name}.Sanitize() }

// PostgreSQL's error codes for a table and a schema that do not exist, for a lock that was not free in time, for a role
// that exists, and for one that another transaction has just created.
const (
	undefinedTable, invalidSchemaName = "42P01", "3F000"
	lockNotAvailable                  = "55P03"
	duplicateObject, uniqueViolation  = "42710", "23505"
)

// code returns PostgreSQL's code of an error, "" for another error.
func code(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// newerSchema decides whether this program, which knows version r.To, works with the schema, which is at a higher
// version. The column oldest says which programs do.
func (t Target) newerSchema(now state, r Result) (Result, error) {
	if now.oldest > r.To {
		text := "the schema %s is at version %d, which needs a Keyway for version %d or later, and this one is for " +
			"version %d; run the newer Keyway, or restore the database from a backup before the migration"
		return r, fault.Public(fault.Conflict, fmt.Sprintf(text, t.Schema, now.version, now.oldest, r.To), nil)
	}
	return Result{From: now.version, To: now.version, Newer: true}, nil
}

// next executes the next migration of the list, and assigns a new schema to the OS. It returns the state after that.
func (t Target) next(ctx context.Context, tx pgx.Tx, list []string) (now state, err error) {
	if err := t.createTable(ctx, tx); err != nil {
		return now, err
	}
	version := t.table("schema_version")
	if err := tx.QueryRow(ctx, "SELECT version FROM "+version).Scan(&now.version); err != nil {
		return now, fmt.Errorf("version: %w", err)
	}
	if now.version > 0 { // Another process may have made it meanwhile, for another OS.
		if now.owner, err = t.ensureOwner(ctx, tx); err != nil {
			return now, err
		}
	}
	if int(now.version) >= len(list) {
		return now, nil
	}
	// Without arguments pgx uses the simple protocol, in which one text can hold several statements.
	if _, err := tx.Exec(ctx, list[now.version]); err != nil {
		return now, fmt.Errorf("migration %d: %w", now.version+1, err)
	}
	now.version++
	if _, err := tx.Exec(ctx, "UPDATE "+version+" SET version = $1", now.version); err != nil {
		return now, fmt.Errorf("version: %w", err)
	}
	now.owner, err = t.ensureOwner(ctx, tx)
	return now, err
}

func (t Target) report(format string, args ...any) {
	if t.Progress != nil {
		t.Progress(fmt.Sprintf(format, args...))
	}
}

// createTable creates the schema and the table of its version if they do not exist. CREATE … IF NOT EXISTS needs the
// right to create also if there is nothing to do, so it is not executed then. Keyway 0.1 made the table with the
// migration tool tern, in the same form.
func (t Target) createTable(ctx context.Context, tx pgx.Tx) error {
	var schema, table bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1), EXISTS (SELECT FROM pg_tables
		WHERE schemaname = $1 AND tablename = 'schema_version')`, t.Schema).Scan(&schema, &table)
	if err == nil && !schema {
		_, err = tx.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{t.Schema}.Sanitize())
	}
	if err == nil && !table {
		_, err = tx.Exec(ctx, `CREATE TABLE `+t.table("schema_version")+` (version int4 NOT NULL);
			INSERT INTO `+t.table("schema_version")+` VALUES (0)`)
	}
	return err
}

// ensureOwner assigns a new schema to the OS and returns the schema's owner. It is fault.Conflict if the schema belongs
// to another OS.
func (t Target) ensureOwner(ctx context.Context, tx pgx.Tx) (owner string, err error) {
	err = tx.QueryRow(ctx, "SELECT id FROM "+t.table("os")).Scan(&owner)
	if errors.Is(err, pgx.ErrNoRows) {
		owner = t.OSID
		_, err = tx.Exec(ctx, "INSERT INTO "+t.table("os")+" (id) VALUES ($1)", owner)
	}
	if err != nil {
		return "", fmt.Errorf("owner: %w", err)
	}
	return owner, t.checkOwner(owner)
}

// checkOwner returns fault.Conflict if the schema belongs to another OS.
func (t Target) checkOwner(owner string) error {
	if owner == "" || owner == t.OSID {
		return nil
	}
	text := "the database schema %q belongs to the OS %q, not to %q; set database.schema to a name of its own, " +
		"or id to %q"
	return fault.Public(fault.Conflict, fmt.Sprintf(text, t.Schema, owner, t.OSID, owner), nil)
}
