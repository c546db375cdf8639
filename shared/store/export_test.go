package store

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Hurry gives the statements of db a tenth of their time, so that a test needs not wait for all of it.
func Hurry(db *DB) {
	l := db.pool.limits
	l.statement, l.page, l.bulk = defaultLimits.statement/10, defaultLimits.page/10, defaultLimits.bulk/10
}

// KeepTotals keeps every total that is not 0.
func KeepTotals(db *DB) { db.totals.many, db.totals.slow = 1, time.Nanosecond }

// RenewTotals makes the kept totals valid for another hour.
func RenewTotals(db *DB) { setUntil(db, time.Now().Add(time.Hour)) }

// ForgetTotals makes the kept totals too old.
func ForgetTotals(db *DB) { setUntil(db, time.Time{}) }

func setUntil(db *DB, until time.Time) {
	for key, kept := range db.totals.known {
		db.totals.known[key] = keptTotal{kept.n, until}
	}
}

// Exposed is exposed, for a URL.
func Exposed(to net.Addr, url string) (bool, error) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return false, err
	}
	return exposed(to, &c.Config), nil
}

// Execute executes a statement as the calls do.
func Execute(ctx context.Context, db *DB, sql string) error {
	_, err := db.exec(ctx, sql)
	return err
}

// EventsAfter returns the stored events of a run's present attempt, in order, from the row that holds the first event
// with an index above after. That row may begin with earlier events. Events of attempts that lost the run are never
// returned.
func (db *DB) EventsAfter(ctx context.Context, id uuid.UUID, after int) ([]Events, error) {
	list, err := collect[Events](ctx, db.bulk, `
		SELECT run_id, attempt, first_index AS first, count, frames FROM keyway.run_events
		WHERE run_id = @run_id AND attempt = (SELECT attempt FROM keyway.runs WHERE run_id = @run_id)
			AND first_index + count - 1 > @after ORDER BY first_index`,
		pgx.NamedArgs{"run_id": id, "after": after})
	if err != nil {
		return nil, fmt.Errorf("events of run %s: %w", id, kindOf(err))
	}
	return list, nil
}

// CountEvents counts the stored events of a run's present attempt, which EventsAfter returns. It is 0 for a run
// without events and for a missing run.
func (db *DB) CountEvents(ctx context.Context, id uuid.UUID) (n int, err error) {
	err = db.queryRow(ctx, `
		SELECT COALESCE(sum(count), 0) FROM keyway.run_events
		WHERE run_id = @run_id AND attempt = (SELECT attempt FROM keyway.runs WHERE run_id = @run_id)`,
		pgx.NamedArgs{"run_id": id}).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count events of run %s: %w", id, kindOf(err))
	}
	return n, nil
}

// ReceiveQuery is receiveQuery for the schema keyway.
var ReceiveQuery = receiveQuery

// RequestCancelSome is RequestCancelAll with another bound.
var RequestCancelSome = (*DB).requestCancel

// MetricsQuery is the statement of MetricsByDay, for a connection of its own.
func MetricsQuery(db *DB, v Viewer, q UsageQuery) (string, pgx.NamedArgs) {
	sql, args := metricsQuery(v, q)
	return db.text(sql), args
}

// DropUnusedCaches is dropUnusedCaches.
var DropUnusedCaches = dropUnusedCaches
