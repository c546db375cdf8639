package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// lease is how long a run counts as alive after its runner's last sign of life.
const lease = time.Minute

// Pulse renews the leases of runs that this process carries and tells which of
// them somebody asked to cancel.
func (db *DB) Pulse(ctx context.Context, runs []uuid.UUID, now time.Time, renew bool) (cancel []uuid.UUID, err error) {
	sql := `SELECT run_id FROM keyway.runs WHERE run_id = ANY(@runs) AND cancel_requested AND finished_at IS NULL`
	if renew {
		sql = `
			WITH renewed AS (
				UPDATE keyway.runs SET lease_until = @lease_until
				WHERE run_id = ANY(@runs) AND status IN ('RUNNING', 'PENDING')
				RETURNING run_id, cancel_requested
			)
			SELECT run_id FROM renewed WHERE cancel_requested`
	}
	rows, err := db.pool.Query(ctx, db.text(sql), pgx.NamedArgs{"runs": runs, "lease_until": now.Add(lease)})
	if err != nil {
		return nil, fmt.Errorf("pulse: %w", kindOf(err))
	}
	if cancel, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
		return nil, fmt.Errorf("pulse: %w", kindOf(err))
	}
	return cancel, nil
}

// EndAbandoned closes the runs whose process died: their lease is over. It
// returns how many there were.
func (db *DB) EndAbandoned(ctx context.Context, now time.Time) (int64, error) {
	n, err := db.exec(ctx, `
		UPDATE keyway.runs SET status = 'ERROR', content = 'The server stopped while this run was in progress',
			lease_until = NULL, finished_at = @now
		WHERE status IN ('PENDING', 'RUNNING') AND lease_until < @now`,
		pgx.NamedArgs{"now": now})
	if err != nil {
		return 0, fmt.Errorf("abandoned runs: %w", kindOf(err))
	}
	return n, nil
}
