package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The runs that wait are a queue: the lease of a PENDING run is when it may be
// received.

// EnqueueRun makes a run that waits ready to be received, from then on.
func (db *DB) EnqueueRun(ctx context.Context, id uuid.UUID, from time.Time) error {
	_, err := db.exec(ctx, `UPDATE keyway.runs SET lease_until = @from WHERE run_id = @run_id AND status = 'PENDING'`,
		pgx.NamedArgs{"run_id": id, "from": from})
	if err != nil {
		return fmt.Errorf("enqueue run %s: %w", id, kindOf(err))
	}
	return nil
}

// ReceiveRuns gives at most limit of the runs that wait; until then nobody else is
// given them.
func (db *DB) ReceiveRuns(ctx context.Context, limit int, now, until time.Time) ([]uuid.UUID, error) {
	rows, err := db.pool.Query(ctx, db.text(`
		UPDATE keyway.runs SET lease_until = @until WHERE run_id IN (
			SELECT run_id FROM keyway.runs WHERE status = 'PENDING' AND lease_until <= @now
			ORDER BY seq LIMIT @limit FOR UPDATE SKIP LOCKED
		) RETURNING run_id`),
		pgx.NamedArgs{"limit": limit, "now": now, "until": until})
	if err != nil {
		return nil, fmt.Errorf("receive runs: %w", kindOf(err))
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("receive runs: %w", kindOf(err))
	}
	return ids, nil
}

// AcknowledgeRun takes a run out of the queue that was received until then. One that
// still waits comes back when nobody has taken it for long.
func (db *DB) AcknowledgeRun(ctx context.Context, id uuid.UUID, until time.Time) error {
	_, err := db.exec(ctx, `UPDATE keyway.runs SET lease_until = @later WHERE run_id = @run_id AND status = 'PENDING' AND lease_until = @until`,
		pgx.NamedArgs{"run_id": id, "until": until, "later": until.Add(forgotten)})
	if err != nil {
		return fmt.Errorf("acknowledge run %s: %w", id, kindOf(err))
	}
	return nil
}
