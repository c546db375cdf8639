package migrations

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The lock belongs to a transaction and not to a session. A pooler that gives each transaction another connection would
// give two programs the lock of one session, and keep it after both have ended.
//
// A program that does not get the lock ends its transaction and tries again later, so that it keeps no connection of
// the pooler while it waits.

// lockNumber is the key of the advisory lock. It is the number that the tool tern locks, with which Keyway 0.1
// migrates: a lock of a session and one of a transaction exclude each other.
const lockNumber = int64(9628173550095224)

const (
	// defaultPatience is how long a program waits for others. Most migrations take less than a second.
	defaultPatience = 2 * time.Minute
	// lockPause is the time between two tries to get the lock.
	lockPause = 100 * time.Millisecond
	// tableTimeout is how long a statement of a migration waits for a table. Other statements on that table wait behind
	// it, so it must not wait long.
	tableTimeout = "3s"
)

// locked executes do in a transaction that has the lock. While another process has the lock, or a transaction of
// another program keeps a table that do needs, locked reports that and tries again, until the patience ends.
func (t Target) locked(ctx context.Context, conn *pgx.Conn, do func(pgx.Tx) error) error {
	patience := cmp.Or(t.patience, defaultPatience)
	end := time.Now().Add(patience)
	for reported := false; ; reported = true {
		mine := false
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			const sql = `SELECT pg_try_advisory_xact_lock($1), set_config('lock_timeout', $2, true)`
			err := tx.QueryRow(ctx, sql, lockNumber, tableTimeout).Scan(&mine, nil)
			if err != nil || !mine {
				return err
			}
			return do(tx)
		})
		waits := code(err) == lockNotAvailable
		if err != nil && !waits || err == nil && mine {
			return err
		}
		if time.Now().After(end) {
			return t.lockError(ctx, conn, patience, err)
		}
		switch {
		case reported:
		case waits:
			t.report("a transaction of another program keeps a table of the schema %s; waiting for it", t.Schema)
		default:
			t.report("another process migrates this database; waiting for it")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for another process that migrates this database: %w", context.Cause(ctx))
		case <-time.After(lockPause):
		}
	}
}

// lockError is the error after the patience. It names the sessions that have the lock. After a crash of Keyway 0.1,
// that can be a connection of a pooler, which keeps the lock although nobody migrates.
func (t Target) lockError(ctx context.Context, conn *pgx.Conn, patience time.Duration, err error) error {
	if err != nil {
		text := "a transaction of another program kept a table of the schema %s for %s; end it, or migrate at another time"
		return fault.Public(fault.Unavailable, fmt.Sprintf(text, t.Schema, patience), err)
	}
	var holders string
	err = conn.QueryRow(ctx, `SELECT COALESCE(string_agg(pid::text, ', '), '') FROM pg_locks
		WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid::bigint << 32 | objid::bigint = $1
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, lockNumber).Scan(&holders)
	text := "another process has migrated this database for %s; wait until it ends. If none runs, a session of " +
		"PostgreSQL has kept the lock: end it with SELECT pg_terminate_backend(PID), PID being %s"
	return fault.Public(fault.Unavailable, fmt.Sprintf(text, patience, cmp.Or(holders, "in pg_locks")), err)
}
