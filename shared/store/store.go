// Package store remembers sessions, runs and memories in PostgreSQL. Every query takes a
// Viewer or an owner and has it in its WHERE clause, so that somebody else's
// data looks exactly like no data.
// It decides who sees what is asked for, not who may ask; it knows no HTTP, no
// model and no token.
package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/pgvalue"
)

// SchemaVersion is the migration that the queries here are written for.
const SchemaVersion = 6

// MaxSessionID bounds session ids, in bytes.
const MaxSessionID = 255

// DB is a pool of connections to one schema. It connects when first used, and a
// broken connection is replaced by the next query.
type DB struct {
	pool   *pgxpool.Pool
	schema string
	sql    sync.Map // query as written → for this schema
}

// Options of a DB. Schema is required, and URL or Address.
type Options struct {
	URL      string
	Schema   string
	MaxConns int32 // 0: pgx's own choice
	// Address tells the URL for each connection, where it is kept elsewhere; it may change.
	Address func(context.Context) (string, error)
	// Password makes the password of a connection to endpoint, host:port; nil: the URL's.
	Password func(ctx context.Context, endpoint, user string) (string, error)
	// Secure may change how a connection is secured, or refuse it, before there is a
	// password; nil: as the URL says.
	Secure func(*pgx.ConnConfig) error
	// Unnamed sends each statement anew, in one round trip, and leaves nothing of it with
	// the connection, which a proxy may then give to somebody else between two statements.
	// Otherwise a statement is prepared when a connection first needs it, and kept.
	Unnamed bool
}

// Open prepares a pool; it doesn't connect yet. A URL that can't be read is
// fault.Invalid, and the error doesn't repeat it.
func Open(o Options) (*DB, error) {
	c, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, ErrURL
	}
	if o.MaxConns > 0 {
		c.MaxConns = o.MaxConns
	}
	c.MaxConnIdleTime = 5 * time.Minute
	c.BeforeConnect, c.AfterConnect = o.beforeConnect, knowLists
	asleep(c)
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		return nil, fmt.Errorf("database pool: %w", err)
	}
	return &DB{pool: pool, schema: o.Schema}, nil
}

// ErrURL is the error of a database URL that can't be parsed. It doesn't repeat the URL,
// which may contain a password.
var ErrURL = fault.Public(fault.Invalid, "the database URL can't be read; it looks like postgres://user:password@host:5432/database", nil)

// knowLists tells pgx what a list of ids is. Where statements are not prepared, it
// has nothing but the Go type to go by.
func knowLists(_ context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterDefaultPgType([]uuid.UUID(nil), "_uuid")
	return nil
}

// beforeConnect finds out where to and how, if the URL doesn't say.
func (o Options) beforeConnect(ctx context.Context, c *pgx.ConnConfig) error {
	if o.Address != nil {
		url, err := o.Address(ctx)
		if err != nil {
			return err
		}
		kept, err := pgx.ParseConfig(url)
		if err != nil {
			return ErrURL
		}
		*c = *kept
	}
	if o.Secure != nil {
		if err := o.Secure(c); err != nil {
			return err
		}
	}
	if o.Unnamed {
		c.DefaultQueryExecMode = pgx.QueryExecModeExec // the extended protocol, with arguments apart from the text
	}
	if o.Password == nil {
		return nil
	}
	password, err := o.Password(ctx, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.User)
	c.Password = password
	return err
}

// asleep makes the pool try a connection before its use when the process may have
// been frozen meanwhile. The pool itself goes by a clock that stands still with the
// process; the time of day doesn't. It counts from the beginning of the last use: to note
// the end (AfterRelease), the pool would give the connection back a moment later, and the
// next query would open a second one.
func asleep(c *pgxpool.Config) {
	const used = "keyway.used"
	c.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool {
		now, kept := time.Now().Round(0), p.Conn.PgConn().CustomData()
		last, ok := kept[used].(time.Time)
		kept[used] = now
		return ok && now.Sub(last).Abs() > time.Second // a clock may be set back
	}
	c.PingTimeout = 2 * time.Second // nobody may be there to say that a connection is gone
}

// Close releases the connections.
func (db *DB) Close() { db.pool.Close() }

// Check reports whether the queries here fit the schema: fault.Unavailable, with the
// remedy, when they don't or the schema can't be asked. A newer one fits as long as its
// migrations say so.
func (db *DB) Check(ctx context.Context) error {
	var version, oldest int
	const sql = `SELECT version, coalesce((to_jsonb(v) ->> 'oldest')::int, 0) FROM keyway.schema_version v` // before migration 6 it had no such column
	err := db.queryRow(ctx, sql, pgx.QueryExecModeExec).Scan(&version, &oldest)                             // once: not worth a round trip to prepare it
	switch {
	case err != nil:
		return fmt.Errorf("schema version: %w", kindOf(err))
	case version < SchemaVersion:
		return fault.Public(fault.Unavailable, fmt.Sprintf("the database schema is at version %d, this Keyway needs %d; run keyway migrate", version, SchemaVersion), nil)
	case oldest > SchemaVersion:
		return fault.Public(fault.Unavailable, fmt.Sprintf("the database schema is at version %d, which a Keyway for version %d or later works with, and this one is for %d; run the newer Keyway", version, oldest, SchemaVersion), nil)
	}
	return nil
}

// Queries are written for the default schema, so that they can be pasted into
// psql; text names the same query in the configured one.
func (db *DB) text(sql string) string {
	if t, ok := db.sql.Load(sql); ok {
		return t.(string)
	}
	t := strings.ReplaceAll(sql, "keyway.", pgx.Identifier{db.schema}.Sanitize()+".")
	db.sql.Store(sql, t)
	return t
}

func (db *DB) queryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return db.pool.QueryRow(ctx, db.text(sql), args...)
}

func (db *DB) exec(ctx context.Context, sql string, args ...any) (int64, error) {
	tag, err := db.pool.Exec(ctx, db.text(sql), args...)
	return tag.RowsAffected(), err
}

// collect runs a query and reads every row into T by column name.
func collect[T any](ctx context.Context, db *DB, sql string, args pgx.NamedArgs) ([]T, error) {
	rows, err := db.pool.Query(ctx, db.text(sql), args)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[T])
}

// listing is one page of a list.
type listing struct {
	columns, from, order string
	limit, page          int // both ≥ 1
}

// paged reads one page and counts all rows, in one round trip.
func paged[T any](ctx context.Context, db *DB, l listing, args pgx.NamedArgs) (page []T, total int, err error) {
	args["limit"], args["offset"] = l.limit, int64(l.page-1)*int64(l.limit)
	var b pgx.Batch
	b.Queue(db.text(`SELECT `+l.columns+` FROM `+l.from+` ORDER BY `+l.order+` LIMIT @limit OFFSET @offset`), args)
	b.Queue(db.text(`SELECT count(*) FROM `+l.from), args)
	answers := db.pool.SendBatch(ctx, &b)
	defer func() { err = cmp.Or(err, answers.Close()) }()
	rows, _ := answers.Query() // CollectRows gives its error
	if page, err = pgx.CollectRows(rows, pgx.RowToStructByName[T]); err != nil {
		return nil, 0, err
	}
	err = answers.QueryRow().Scan(&total)
	return page, total, err
}

func direction(ascending bool) string {
	if ascending {
		return " ASC"
	}
	return " DESC"
}

// Viewer is on whose behalf data is read: one owner, or everyone for an
// administrator. The zero Viewer sees nothing.
type Viewer struct {
	Owner string
	All   bool
}

// where is the condition on an owner column that keeps others' rows out. It
// reads the named argument @viewer.
func (v Viewer) where(column string) string {
	switch {
	case v.All:
		return "true"
	case v.Owner == "":
		return "false"
	}
	return column + " = @viewer"
}

// filter is the condition of a list: what the viewer may see, narrowed.
type filter struct {
	sql  string
	args pgx.NamedArgs
}

func (v Viewer) filter(owner string) filter {
	return filter{v.where(owner), pgx.NamedArgs{"viewer": v.Owner}}
}

// and narrows the filter by a condition that reads the named argument.
func (f *filter) and(condition, name string, value any) {
	f.sql += " AND " + condition
	f.args[name] = value
}

// ifAsked is and, unless the value is empty: then it wasn't asked for.
func (f *filter) ifAsked(condition, name, value string) {
	if value != "" {
		f.and(condition, name, value)
	}
}

// ValidID reports whether text can be an id here: not empty, at most max bytes,
// and pgvalue.ValidText. What can't be an id doesn't exist.
func ValidID(text string, max int) bool {
	return text != "" && len(text) <= max && pgvalue.ValidText(text)
}

// kindOf gives a database error its kind. Its text stays for the log; callers
// see the kind's own.
func kindOf(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.NotFound
	}
	if unproven(err) {
		return fault.Public(fault.Unavailable, "The database doesn't prove that it is the one of database.url (or DATABASE_URL; on AWS see the template's parameter Database)", err)
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok { // never reached the server, or lost it
		return unavailable(err)
	}
	switch pg.Code[:2] {
	case "08", "53", "57", "40", "25": // connection, resources, operator, serialization, read-only
		return unavailable(err)
	case "22": // text or numbers that PostgreSQL can't hold
		return fault.Public(fault.Invalid, "The request holds text or numbers that can't be stored", err)
	case "54": // a limit of PostgreSQL, such as 256 MB of jsonb
		return fault.Public(fault.TooLarge, "The request holds more than can be stored", err)
	}
	if pg.Code[:2] == "28" || pg.Code == "3D000" { // the user, the password, the database's name
		return fault.Public(fault.Unavailable, "The database refuses this server; check database.url (or DATABASE_URL)", err)
	}
	if pg.Code == "42P01" || pg.Code == "3F000" { // no such table, no such schema
		return fault.Public(fault.Unavailable, "The database schema is missing; run keyway migrate", err)
	}
	return fmt.Errorf("%w: %w", fault.Internal, err)
}

// unproven reports whether the server has no certificate, another's, or one of a CA that
// isn't trusted here.
func unproven(err error) bool {
	_, bad := errors.AsType[*tls.CertificateVerificationError](err)
	return bad || strings.Contains(err.Error(), "server refused TLS connection") // pgconn has no name for it
}

func unavailable(err error) error {
	e := fault.Public(fault.Unavailable, "The database is not available, try again", err)
	e.RetryAfter = 2 * time.Second
	return e
}
