package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Found is what Probe has found out about the database.
type Found struct {
	// Version is PostgreSQL's version as its server_version_num, 150018 for 15.18.
	Version int
	// TLS is the version of TLS that the connections use, such as "TLS 1.3", or "" for none.
	TLS string
	// Exposed reports that the connections lead to another machine without TLS, and that the URL did not choose that: it
	// has no sslmode=disable.
	Exposed bool
	// Pooler reports that another program stands before PostgreSQL and may share its sessions: PgBouncer, Odyssey, RDS
	// Proxy.
	Pooler bool
	// Named reports that statements are prepared under names.
	Named bool
}

// Probe opens two connections at the same time, one of each pool, and finds out what stands there. Behind a pooler it
// makes the store send statements without names. If the store cannot work there, the error is fault.Unavailable with
// the remedy. Probe takes one round trip more than the two connections, which the pools keep.
//
// A pooler is recognized by the id of the process. PostgreSQL sends it when a connection begins, for cancellations. A
// pooler must send an id of its own, because the process changes. Programs that pass the id on, and share one session
// all the same, have the same process for both connections.
//
// Probe does not try whether names work behind a pooler. Whether a second client gets a session in which a name of the
// first exists depends on what other clients do at that moment, and on a setting that can change later. Names would
// save a fraction of a millisecond; see docs/adr/0013.
func (db *DB) Probe(ctx context.Context) (Found, error) {
	pools := []*pool{db.pool}
	if db.leases.pool != db.pool {
		pools = append(pools, db.leases.pool)
	}
	seen, errs := lookAt(ctx, pools)
	if err := oneOnly(ctx, pools, errs); err != nil {
		return Found{}, err
	}
	if err := errors.Join(errs...); err != nil {
		return Found{}, AtStart(err)
	}
	first, last := seen[0], seen[len(seen)-1]
	shared := first.key != first.pid || len(seen) > 1 && first.pid == last.pid
	if shared && !db.pool.unnamed.Swap(true) {
		for _, p := range pools {
			p.Reset() // The next connections send no names.
		}
	}
	f := first.Found
	f.Pooler, f.Named = shared, !db.pool.unnamed.Load()
	return f, first.fault(f.Named)
}

// lookAt opens a connection of each pool, all at the same time.
func lookAt(ctx context.Context, pools []*pool) ([]seen, []error) {
	list, errs := make([]seen, len(pools)), make([]error, len(pools))
	var asked, done sync.WaitGroup
	asked.Add(len(pools))
	for i, p := range pools {
		done.Go(func() { list[i], errs[i] = p.look(ctx, &asked) })
	}
	done.Wait()
	return list, errs
}

// oneOnly returns an error if the database accepts one connection and refuses a second one. If both were refused, they
// may have been in each other's way, or in that of a connection just closed, so it tries one alone.
func oneOnly(ctx context.Context, pools []*pool, errs []error) error {
	failed := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if failed < 0 || refusal(errs[failed]) != "" || errors.Is(errs[failed], syscall.ECONNREFUSED) ||
		errors.Is(errs[failed], context.DeadlineExceeded) {
		return nil
	}
	alone := slices.Contains(errs, nil)
	for range 5 {
		if alone || len(pools) < 2 {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
		_, again := lookAt(ctx, pools[:1])
		alone = again[0] == nil
	}
	if !alone {
		return nil
	}
	return fault.Public(fault.Unavailable, "the database accepts one connection and not a second one at the same time; "+
		"Keyway needs several, at most 18 unless pool_max_conns in database.url says otherwise; allow more (for "+
		"pglite-socket: --max-connections=20)", errs[failed])
}

// seen is what a connection shows.
type seen struct {
	Found
	// key is the id of the process that the server sent when the connection began, and pid is the id of the process that
	// executed a statement.
	key, pid  uint32
	readOnly  bool
	dateStyle string
}

// look opens a connection of the pool and asks what Probe must know. It keeps the connection until all have asked, so
// that there are several at the same time.
func (p *pool) look(ctx context.Context, asked *sync.WaitGroup) (s seen, err error) {
	conn, err := p.acquire(ctx, 0)
	if err != nil {
		asked.Done()
		return s, err
	}
	defer conn.Release()
	ctx, cancel := context.WithTimeout(ctx, p.limits.statement)
	defer cancel()
	const sql = `SELECT pg_backend_pid(), current_setting('transaction_read_only') = 'on', current_setting('DateStyle'),
		current_setting('server_version_num')::int`
	err = conn.QueryRow(ctx, sql, pgx.QueryExecModeExec).Scan(&s.pid, &s.readOnly, &s.dateStyle, &s.Version)
	asked.Done()
	asked.Wait()
	s.key = conn.Conn().PgConn().PID()
	wire, c := conn.Conn().PgConn().Conn(), conn.Conn().Config()
	if secure, ok := wire.(*tls.Conn); ok {
		s.TLS = tls.VersionName(secure.ConnectionState().Version)
	}
	s.Exposed = s.TLS == "" && exposed(wire.RemoteAddr(), &c.Config)
	return s, err
}

// fault returns the error with the remedy if the store cannot work with this database.
func (s seen) fault(named bool) error {
	switch {
	case s.readOnly:
		return readOnly(nil)
	case !named && !strings.HasPrefix(s.dateStyle, "ISO"):
		// A value of a statement without a name is sent as text.
		return fault.Public(fault.Unavailable, fmt.Sprintf("the database writes dates in the style %q, and behind a pooler "+
			"Keyway reads only ISO; execute ALTER ROLE … RESET DateStyle, or ALTER DATABASE … SET DateStyle = 'ISO'",
			s.dateStyle), nil)
	}
	return nil
}

// exposed reports whether a connection without TLS leads to another machine although an attempt was made with TLS.
func exposed(to net.Addr, c *pgconn.Config) bool {
	tcp, ok := to.(*net.TCPAddr)
	local := !ok || tcp.IP.IsLoopback() // otherwise it is a socket in a directory
	return !local && (c.TLSConfig != nil || slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool {
		return f.TLSConfig != nil
	}))
}

// modeOf returns how a connection sends statements. Without names, that is the extended protocol: arguments are sent
// apart from the text, and PostgreSQL finds their types. describe_exec is never used: it takes two round trips, and a
// pooler that sends the second one to another session gives wrong rows without an error.
func modeOf(c *pgx.ConnConfig, unnamed bool) pgx.QueryExecMode {
	mode := c.DefaultQueryExecMode
	switch {
	case unnamed && mode == pgx.QueryExecModeCacheStatement, mode == pgx.QueryExecModeDescribeExec,
		mode == pgx.QueryExecModeCacheStatement && c.StatementCacheCapacity == 0:
		return pgx.QueryExecModeExec
	}
	return mode
}

// dropUnusedCaches keeps a connection from allocating the caches that its mode does not use. pgx makes both for each
// connection, with room for all entries: 54 KB each.
func dropUnusedCaches(c *pgx.ConnConfig) {
	if c.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		c.StatementCacheCapacity = 0
	}
	if c.DefaultQueryExecMode != pgx.QueryExecModeCacheDescribe {
		c.DescriptionCacheCapacity = 0
	}
}

// considerNames sends statements without names from now on if this error shows that names do not work: a pooler has
// given the connection another session, in which the name is missing or another client has used it. A name is a hash of
// its statement, so it never stands for another one. The pooler may be new; Probe has not seen it then.
func (p *pool) considerNames(conn *pgx.Conn, err error) {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pg.Code != "26000" && pg.Code != "42P05" ||
		conn.Config().DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		return
	}
	if !p.unnamed.Swap(true) {
		p.log.Warn("prepared statements do not work on these connections, a pooler shares them; statements have no names "+
			"from now on", "code", pg.Code)
	}
	p.Reset()
}
