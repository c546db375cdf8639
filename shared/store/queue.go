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

// EnqueueRun makes a pending run visible after a delay. A run that is not PENDING is left alone: it has a process, is
// paused or has ended.
func (db *DB) EnqueueRun(ctx context.Context, id uuid.UUID, after time.Duration) error {
	_, err := db.exec(ctx, `UPDATE keyway.runs SET lease_until = now() + make_interval(secs => @after)
		WHERE run_id = @run_id AND status = 'PENDING'`,
		pgx.NamedArgs{"run_id": id, "after": after.Seconds()})
	if err != nil {
		return fmt.Errorf("enqueue run %s: %w", id, kindOf(err))
	}
	return nil
}

// Received is a pending run that a receiver got from the queue.
type Received struct {
	RunID uuid.UUID
	// LeaseUntil is the time until which no other receiver gets the run. It identifies this delivery.
	LeaseUntil time.Time
}

// ReceiveRuns returns at most limit visible runs, oldest first, and makes them invisible for a while. SKIP LOCKED gives
// each run to only one of several receivers, and lets none of them wait.
func (db *DB) ReceiveRuns(ctx context.Context, limit int, invisible time.Duration) (received []Received, err error) {
	// If the answer of the first attempt is lost, the next one also receives the runs that were received a moment ago,
	// by whichever process. A run that two processes receive is claimed by one of them.
	args := pgx.NamedArgs{"limit": limit, "invisible": invisible.Seconds(), "repeated": false}
	err = db.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, _ := conn.Query(ctx, db.text(`
			UPDATE keyway.runs SET lease_until = now() + make_interval(secs => @invisible) WHERE run_id IN (
				SELECT run_id FROM keyway.runs WHERE status = 'PENDING' AND (lease_until <= now()
					OR @repeated AND lease_until > now() + make_interval(secs => @invisible) - interval '10 seconds')
				ORDER BY seq LIMIT @limit FOR UPDATE SKIP LOCKED
			) RETURNING run_id, lease_until`), args) // CollectRows returns its error.
		received, err = pgx.CollectRows(rows, pgx.RowToStructByName[Received])
		args["repeated"] = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("receive runs: %w", kindOf(err))
	}
	return received, nil
}

// AcknowledgeRun removes the message that was received as m. If the run is still PENDING, it becomes visible again
// after requeueAfter. If it was received again meanwhile, its deadline is another one and nothing changes.
func (db *DB) AcknowledgeRun(ctx context.Context, m Received) error {
	_, err := db.exec(ctx, `UPDATE keyway.runs SET lease_until = lease_until + make_interval(secs => @later)
		WHERE run_id = @run_id AND status = 'PENDING' AND lease_until = @until`,
		pgx.NamedArgs{"run_id": m.RunID, "until": m.LeaseUntil, "later": requeueAfter.Seconds()})
	if err != nil {
		return fmt.Errorf("acknowledge run %s: %w", m.RunID, kindOf(err))
	}
	return nil
}
