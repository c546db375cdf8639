package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Servers that share a database need no other queue: the pending runs are one. A pending run has no lease, so its
// lease_until is used as the visibility deadline: the run may be received from then on. A separate table of messages
// would have to be kept consistent with the runs.

// EnqueueRun makes a pending run visible at the given time. A run that is not PENDING is left alone: it has a process,
// is paused or has ended.
func (db *DB) EnqueueRun(ctx context.Context, id uuid.UUID, from time.Time) error {
	_, err := db.exec(ctx,
		`UPDATE keyway.runs SET lease_until = @from WHERE run_id = @run_id AND status = 'PENDING'`,
		pgx.NamedArgs{"run_id": id, "from": from})
	if err != nil {
		return fmt.Errorf("enqueue run %s: %w", id, kindOf(err))
	}
	return nil
}

// ReceiveRuns returns at most limit visible runs, oldest first, and makes them invisible until the visibility
// deadline until. SKIP LOCKED gives each run to only one of several receivers, and lets none of them wait.
func (db *DB) ReceiveRuns(ctx context.Context, limit int, now, until time.Time) (ids []uuid.UUID, err error) {
	// If the answer of the first attempt is lost, the next one recognizes by their deadline the runs that the first one has
	// received. Another process may have received runs with the same deadline; then two processes try to claim a run, and
	// one of them does.
	args := pgx.NamedArgs{"limit": limit, "now": now, "until": until, "repeated": false}
	err = db.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, _ := conn.Query(ctx, db.text(`
			UPDATE keyway.runs SET lease_until = @until WHERE run_id IN (
				SELECT run_id FROM keyway.runs
				WHERE status = 'PENDING' AND (lease_until <= @now OR @repeated AND lease_until = @until)
				ORDER BY lease_until = @until DESC, seq LIMIT @limit FOR UPDATE SKIP LOCKED
			) RETURNING run_id`), args) // CollectRows returns its error.
		ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		args["repeated"] = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("receive runs: %w", kindOf(err))
	}
	return ids, nil
}

// AcknowledgeRun removes the message that was received with that visibility deadline. If the run is still PENDING, it
// becomes visible again after requeueAfter. If it was received again meanwhile, its deadline is another one and
// nothing changes.
func (db *DB) AcknowledgeRun(ctx context.Context, id uuid.UUID, until time.Time) error {
	_, err := db.exec(ctx, `UPDATE keyway.runs SET lease_until = @later
		WHERE run_id = @run_id AND status = 'PENDING' AND lease_until = @until`,
		pgx.NamedArgs{"run_id": id, "until": until, "later": until.Add(requeueAfter)})
	if err != nil {
		return fmt.Errorf("acknowledge run %s: %w", id, kindOf(err))
	}
	return nil
}
