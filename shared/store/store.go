// Package store keeps sessions, runs, events and memories in PostgreSQL. Every query takes a Viewer or an owner and
// has it in its WHERE clause, so that data of other owners looks exactly like missing data.
// The package decides what a viewer can see, not whether the caller is allowed to send the request. It knows nothing
// about HTTP, models or tokens.
package store

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/owner"
)

// SchemaVersion is the number of the migration that the queries of this package are written for.
const SchemaVersion = 23

// MaxSessionID is the maximum length of a session id, in bytes.
const MaxSessionID = 255

// DB executes the statements of this package in one schema. It connects when it is first used, and the next statement
// replaces a broken connection. It is safe for concurrent use.
//
// Each statement has a deadline: 5 or 6 seconds, or 20 for those that may read or delete much, or that of its
// context if that is earlier. A statement is repeated for a few seconds if its connection was lost or refused, and
// if it conflicted with another one. After that the error is fault.Unavailable with a RetryAfter.
type DB struct {
	executor          // for the statements that read and write little
	pages    executor // for the pages of lists, on the same connections
	bulk     executor // for the statements that may read or delete much, on the same connections
	leases   executor // for the leases of runs; see Options.LeaseConns
	totals   totals
	// owners is what Check has read last.
	owners atomic.Pointer[owner.Record]
}

// Options configure a DB.
type Options struct {
	// URL is the address of the database, postgres://user:password@host:port/database. Required, unless Address is set.
	URL string
	// Schema is the schema that package migrations made. Required.
	Schema string
	// MaxConns is the maximum number of connections, without those of LeaseConns. Defaults to the URL's pool_max_conns,
	// or else to 16. PostgreSQL allows 100 connections by default, so five servers can share it.
	MaxConns int32
	// LeaseConns is the maximum number of further connections, which only the leases of runs use. With them, a lease is
	// renewed also while other statements wait for the database. Defaults to 0: leases use the same connections.
	LeaseConns int32
	// ConnectTimeout is how long a statement waits for a connection. Defaults to the URL's connect_timeout, or else to
	// 3 seconds.
	ConnectTimeout time.Duration
	// Address returns the URL for each new connection, for an address that is kept elsewhere and may change, such as a
	// secret. Defaults to the value of URL.
	Address func(context.Context) (string, error)
	// Password returns the password of a new connection as user to endpoint (host:port), for passwords that expire.
	// Defaults to the password in the URL.
	Password func(ctx context.Context, endpoint, user string) (string, error)
	// Secure may change the TLS configuration of a new connection, or reject the connection with an error. It is called
	// before Password, so that no password is made for a rejected connection. Defaults to what the URL says.
	Secure func(*pgx.ConnConfig) error
	// Unnamed sends each statement without a name, in one round trip, and leaves no state with the connection. Then a
	// proxy such as RDS Proxy can give the connection to another client between two statements. Defaults to false: a
	// statement is prepared, in a round trip of its own, when a connection first executes it, until Probe or an error
	// shows that names do not work. See docs/adr/0008 and 0013.
	Unnamed bool
	// Log gets a line when names turn out not to work. Defaults to no log.
	Log *slog.Logger
}

// Open prepares a pool. It does not connect yet. A URL that cannot be parsed is fault.Invalid, and the error does not
// contain the URL, which may hold a password.
func Open(o Options) (*DB, error) {
	c, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, ErrURL
	}
	if o.MaxConns > 0 {
		c.MaxConns = o.MaxConns
	} else if !namesPoolSize(o.URL) {
		c.MaxConns = 16
	}
	l := defaultLimits
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, c.ConnConfig.ConnectTimeout, l.acquire)
	l.acquire = o.ConnectTimeout
	c.MaxConnIdleTime = 5 * time.Minute
	unnamed := new(atomic.Bool)
	unnamed.Store(o.Unnamed)
	c.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
		defer func() {
			c.DefaultQueryExecMode = modeOf(c, unnamed.Load())
			dropUnusedCaches(c)
		}()
		return o.beforeConnect(ctx, c)
	}
	c.AfterConnect = registerTypes
	c.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false } // acquire pings.
	shared := &pool{
		schema: o.Schema, limits: &l, unnamed: unnamed, setIsolation: new(atomic.Bool),
		log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)),
	}
	main, err := newPool(c, shared)
	if err != nil {
		return nil, err
	}
	leases := main
	if o.LeaseConns > 0 {
		c.MaxConns = o.LeaseConns
		if leases, err = newPool(c, shared); err != nil {
			return nil, err
		}
	}
	short := func(l *limits) time.Duration { return l.statement }
	page := func(l *limits) time.Duration { return l.page }
	long := func(l *limits) time.Duration { return l.bulk }
	return &DB{
		executor: executor{pool: main, limit: short, trust: time.Second},
		pages:    executor{pool: main, limit: page, trust: time.Second},
		bulk:     executor{pool: main, limit: long}, // A ping costs less than to wait 20 seconds for a frozen database.
		leases:   executor{pool: leases, limit: short, trust: time.Second},
	}, nil
}

// newPool opens a pool with what like has.
func newPool(c *pgxpool.Config, like *pool) (*pool, error) {
	p, err := pgxpool.NewWithConfig(context.Background(), c.Copy())
	if err != nil {
		return nil, fmt.Errorf("database pool: %w", err)
	}
	return &pool{
		Pool: p, schema: like.schema, limits: like.limits, unnamed: like.unnamed, setIsolation: like.setIsolation,
		log: like.log,
	}, nil
}

// namesPoolSize reports whether a database URL has the parameter pool_max_conns.
func namesPoolSize(url string) bool {
	c, err := pgx.ParseConfig(url)
	return err == nil && c.RuntimeParams["pool_max_conns"] != ""
}

// ErrURL is the error of a database URL that cannot be parsed. It does not contain the URL, which may hold a password.
var ErrURL = fault.Public(fault.Invalid,
	"the database URL can't be parsed; it looks like postgres://user:password@host:5432/database", nil)

// registerTypes registers the PostgreSQL type of a list of ids. A statement that is not prepared does not learn the
// types of its arguments from the server; then pgx knows only the Go type, and [][16]byte would be ambiguous.
func registerTypes(_ context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterDefaultPgType([]uuid.UUID(nil), "_uuid")
	return nil
}

// beforeConnect is called for each new connection, so a rotated secret or an expired password needs no restart. It
// applies Address, Secure and Password to a new connection, in this order.
func (o Options) beforeConnect(ctx context.Context, c *pgx.ConnConfig) error {
	if o.Address != nil {
		url, err := o.Address(ctx)
		if err != nil {
			return err
		}
		parsed, err := pgx.ParseConfig(url)
		if err != nil {
			return ErrURL
		}
		*c = *parsed
	}
	c.ConnectTimeout = o.ConnectTimeout // It limits also the attempts that no statement waits for any more.
	if o.Secure != nil {
		if err := o.Secure(c); err != nil {
			return err
		}
	}
	if o.Password == nil {
		return nil
	}
	password, err := o.Password(ctx, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.User)
	c.Password = password
	return err
}

// Connections returns how many connections execute statements now, and how many there can be.
func (db *DB) Connections() (used, most int) {
	pools := []*pool{db.pool}
	if db.leases.pool != db.pool {
		pools = append(pools, db.leases.pool)
	}
	for _, p := range pools {
		s := p.Stat()
		used, most = used+int(s.AcquiredConns()), most+int(s.MaxConns())
	}
	return used, most
}

// Close closes the connections.
func (db *DB) Close() {
	db.pool.Close()
	db.leases.pool.Close() // Closing the same pool twice does no harm.
}

// Check reports whether the queries of this package fit the schema, and reads what Owners returns. If they do not fit,
// or if the schema cannot be read, the error is fault.Unavailable with the remedy. A schema that a newer Keyway
// migrated fits as long as its migrations say so in the column oldest.
func (db *DB) Check(ctx context.Context) error {
	var version, oldest int
	var owners *owner.Record
	// The query is executed once, so it is not worth a round trip to prepare it.
	err := db.queryRow(ctx, schemaVersion, pgx.QueryExecModeExec).Scan(&version, &oldest, &owners)
	if err != nil {
		return fmt.Errorf("schema version: %w", kindOf(err))
	}
	return db.fits(version, oldest, owners)
}

// schemaVersion is the query of Check. The columns oldest and owners do not exist before migrations 6 and 11, hence
// the detour through jsonb.
const schemaVersion = `SELECT version, coalesce((to_jsonb(v) ->> 'oldest')::int, 0),
	(SELECT nullif(to_jsonb(o) -> 'owners', 'null') FROM keyway.os o) FROM keyway.schema_version v`

// fits returns the error of Check for what the database holds, or keeps what Owners returns.
func (db *DB) fits(version, oldest int, owners *owner.Record) error {
	switch {
	case version < SchemaVersion:
		text := "the database schema is at version %d, this Keyway needs %d; run keyway migrate"
		return fault.Public(fault.Unavailable, fmt.Sprintf(text, version, SchemaVersion), nil)
	case oldest > SchemaVersion:
		text := "the database schema is at version %d, which needs a Keyway for version %d or later, and this one is " +
			"for version %d; run the newer Keyway"
		return fault.Public(fault.Unavailable, fmt.Sprintf(text, version, oldest, SchemaVersion), nil)
	case owners == nil:
		return fault.Public(fault.Unavailable, "it is not recorded whose data the database holds; run keyway migrate", nil)
	}
	db.owners.Store(owners)
	return nil
}

// Owners returns what the database records about the names of owners. It is nil before the first Check that succeeded.
// It must not be changed.
func (db *DB) Owners() *owner.Record { return db.owners.Load() }
