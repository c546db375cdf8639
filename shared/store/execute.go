package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The rule of this package: every statement can be executed twice with the same arguments, and the second time has the
// same result as the first. A connection that breaks may have lost the answer of a statement that was executed, and
// the client cannot know which of the two happened. Only with this rule may do repeat a statement.

// limits are the times that bound a statement.
type limits struct {
	// acquire is how long a statement waits for a connection: until one is idle, pinged or newly made.
	acquire time.Duration
	// ping is how long a connection may take to answer a ping. A peer that has vanished sends no answer at all.
	ping time.Duration
	// statement is how long a statement may take on its connection, page is the same for a page of a list, and bulk for
	// the statements that may read or delete much, or carry much.
	statement, page, bulk time.Duration
	// patience is for how long a statement is repeated, from its start.
	patience time.Duration
}

// defaultLimits bound the statements of every DB. Options.ConnectTimeout changes acquire.
var defaultLimits = limits{
	acquire: 3 * time.Second, ping: 2 * time.Second, statement: 5 * time.Second, page: 6 * time.Second,
	bulk: 20 * time.Second, patience: 4 * time.Second,
}

// doubtFor is for how long each connection is checked before its use, after a statement got no answer in time.
const doubtFor = 30 * time.Second

// pool is a pool of connections to one schema.
type pool struct {
	*pgxpool.Pool
	schema string
	sql    sync.Map // a query as written → the same query for this schema; see text
	parsed sync.Map // a query for this schema → parsed
	limits *limits
	// unnamed is whether new connections send statements without names. All pools of a DB share it.
	unnamed *atomic.Bool
	// setIsolation is whether a transaction that counts sets its isolation level; see locked. All pools of a DB share it.
	setIsolation *atomic.Bool
	log          *slog.Logger
	// doubtUntil is the time, in nanoseconds of Unix time, until which every connection is pinged before it is used.
	doubtUntil atomic.Int64
}

// executor executes statements on the connections of a pool, each within a limit of its own.
type executor struct {
	pool *pool
	// limit returns the time that a statement may take on its connection.
	limit func(*limits) time.Duration
	// trust is for how long after its last use a connection is used without a ping.
	trust time.Duration
	// more is added to limit, for the size of the arguments.
	more time.Duration
	// ready is called by batches; see withReady. Nil for most.
	ready func()
}

// carrying returns an executor whose statements may take longer, up to limits.bulk, if their arguments are large: a
// second for each megabyte. The end of a run may carry a hundred of them.
func (e executor) carrying(args ...any) executor {
	e.more = time.Duration(sizeOf(args)) * time.Second >> 20
	return e
}

// sizeOf returns about how many bytes arguments have.
func sizeOf(args []any) (n int) {
	for _, a := range args {
		named, ok := a.(pgx.NamedArgs)
		if !ok {
			n += sizeOfOne(a)
			continue
		}
		for _, value := range named {
			n += sizeOfOne(value)
		}
	}
	return n
}

func sizeOfOne(arg any) (n int) {
	switch a := arg.(type) {
	case string:
		return len(a)
	case *string:
		if a != nil {
			return len(*a)
		}
	case []byte:
		return len(a)
	case json.RawMessage:
		return len(a)
	case []string:
		for _, text := range a {
			n += len(text)
		}
	}
	return n
}

// do acquires a connection and calls statement with it. If the statement failed in a way that may not happen again, do
// calls it once more, with another connection or the same one. statement must start anew with each call.
//
// A statement that has run into its limit is not repeated: the database does not answer at present, and the caller
// should learn that soon.
func (e executor) do(ctx context.Context, statement func(context.Context, *pgx.Conn) error) error {
	const first, longest = 25 * time.Millisecond, 500 * time.Millisecond
	end := time.Now().Add(e.pool.limits.patience)
	for delay := first; ; delay = min(2*delay, longest) {
		again, err := e.once(ctx, statement)
		wait := delay/2 + rand.N(delay) // #nosec G404 -- it only spreads the repetitions of several callers
		if !again || ctx.Err() != nil || time.Now().Add(wait).After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// once executes a statement once. again reports whether it may succeed if it is repeated.
func (e executor) once(
	ctx context.Context, statement func(context.Context, *pgx.Conn) error,
) (again bool, err error) {
	conn, err := e.pool.acquire(ctx, e.trust)
	if err != nil {
		return connectAgain(err), err
	}
	limit := e.limit(e.pool.limits)
	limit = max(limit, min(limit+e.more, e.pool.limits.bulk))
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err = statement(limited, conn.Conn()); err == nil {
		err = commit(limited, conn.Conn())
	}
	if err == nil {
		conn.Release()
		return false, nil
	}
	if errors.Is(limited.Err(), context.DeadlineExceeded) {
		// If the database is frozen, the other connections do not answer either. A ping finds that out sooner.
		e.pool.doubtUntil.Store(time.Now().Add(doubtFor).UnixNano())
		discard(conn)
		return false, fmt.Errorf("no answer within %s: %w", limit, err)
	}
	again, other := statementAgain(err)
	e.pool.considerNames(conn.Conn(), err)
	// pgx closes a connection that is lost.
	again = again || conn.Conn().IsClosed()
	if other {
		_ = conn.Conn().Close(limited) // The pool replaces a connection that is closed.
	}
	conn.Release()
	return again, err
}

// commit ends a transaction that this package did not begin. Pgpool-II 4.3 with backend_clustering_mode 'raw' begins
// one for the first write of a connection, and would roll it back when the connection is closed, although the client
// has the answer. Without such a transaction, commit costs nothing.
func commit(ctx context.Context, conn *pgx.Conn) error {
	if conn.PgConn().TxStatus() != 'T' {
		return nil
	}
	_, err := conn.Exec(ctx, "COMMIT")
	return err
}

// acquire returns a connection that is likely to work. A connection that was used within the last trust needs no ping.
//
// The pool would ping too. But it waits up to 15 seconds for the answer of a dead connection before it makes another
// one. discard waits for nothing, so a pool whose connections are all dead works again after one ping.
func (p *pool) acquire(ctx context.Context, trust time.Duration) (*pgxpool.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, p.limits.acquire)
	defer cancel()
	for {
		conn, err := p.Acquire(limited)
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			return nil, fmt.Errorf("no connection within %s: %w", p.limits.acquire, err)
		}
		if err != nil || !p.doubtful(conn.Conn(), trust) || p.ping(limited, conn) {
			return conn, err
		}
		discard(conn)
	}
}

// ping reports whether a connection answers.
func (p *pool) ping(ctx context.Context, conn *pgxpool.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, p.limits.ping)
	defer cancel()
	return conn.Ping(ctx) == nil
}

// doubtful reports whether a connection must be pinged before it is used: its last use is longer ago than trust, or a
// statement has run into its limit lately. Lambda freezes a process between two invocations, and the connection may be
// closed meanwhile. The pool itself measures idle time with the monotonic clock, which stands still while the process
// is frozen; the time of day does not.
//
// The time counts from the start of the last use. Recording its end, in AfterRelease, would make the pool return the
// connection a moment later, and the next query could open a second connection.
func (p *pool) doubtful(conn *pgx.Conn, trust time.Duration) bool {
	const lastUsed = "keyway.used"
	now, data := time.Now().Round(0), conn.PgConn().CustomData()
	last, ok := data[lastUsed].(time.Time)
	data[lastUsed] = now
	idle := ok && now.Sub(last).Abs() > trust // A clock may also be set back.
	return idle || now.UnixNano() < p.doubtUntil.Load()
}

// discard removes a connection that does not answer from its pool, and closes it. Its place in the pool is free at
// once; to close it can take 15 seconds.
func discard(conn *pgxpool.Conn) {
	dead := conn.Hijack()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		_ = dead.Close(ctx)
	}()
}

// connectAgain reports whether a connection may be possible a moment later, after this error of acquire. A server that
// does not answer, or that is not the right one, is not worth another attempt.
func connectAgain(err error) bool {
	if again, _ := statementAgain(err); again {
		return true
	}
	_, refused := errors.AsType[*pgconn.ConnectError](err)
	_, answered := errors.AsType[*pgconn.PgError](err)
	return refused && !answered && !isUnverified(err) && !errors.Is(err, context.DeadlineExceeded)
}

// statementAgain reports whether a statement may succeed if it is repeated after this error. other means that it needs
// another connection for that.
func statementAgain(err error) (again, other bool) {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return pgconn.SafeToRetry(err), false
	}
	if refusal(err) != "" {
		return false, false
	}
	switch pg.Code {
	case "40001", "40P01": // serialization failure, deadlock
		return true, false
	case "57P01", "57P02", "57P03", "53300": // the server stops or starts, or has too many connections
		return true, true
	case "25006": // read-only: after a failover, connections stay with a server that became a replica
		return true, true
	case "26000", "42P05": // a prepared statement is missing or exists already: a proxy changed the server's connection
		return true, true
	case "0A000": // Other statements of this class are never possible.
		stale := pg.Routine == "RevalidateCachedQuery" // A migration changed what a prepared statement returns.
		return stale, stale
	}
	exception := class(pg) == "08" // connection exceptions; PgBouncer's errors have such a code too
	return exception, exception
}
