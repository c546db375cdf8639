package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Notice is a pause or an end of a run that the operator's webhook has not accepted yet. FinishRun makes it if
// Run.Notify is set.
type Notice struct {
	ID        uuid.UUID
	RunID     uuid.UUID
	Owner     string
	SessionID string
	AgentID   string
	// Status is that of the run at that time.
	Status string
	MadeAt time.Time
	// Tries is how often it was claimed, this time included.
	Tries int
}

// leaveNotice is the part of FinishRun that makes a Notice. If the statement is repeated, it finds no run to end.
const leaveNotice = `, notice AS (
			INSERT INTO keyway.notices (run_id, status, made_at) SELECT @run_id, @status, @now FROM run
		)`

// ClaimNotices returns at most limit notices that are due, the oldest first, and makes each due again after again[n],
// where n is how often it was claimed before; the last element counts for all further ones. So a notice that its
// process does not report, because it crashes, is claimed again. A notice is claimed by one process at a time.
func (db *DB) ClaimNotices(ctx context.Context, limit int, again []time.Duration) ([]Notice, error) {
	seconds := make([]float64, len(again))
	for i, d := range again {
		seconds[i] = d.Seconds()
	}
	notices, err := collect[Notice](ctx, db, `
		WITH due AS MATERIALIZED (
			SELECT id FROM keyway.notices WHERE next_at <= now() ORDER BY next_at LIMIT @limit FOR UPDATE SKIP LOCKED
		), claimed AS (
			UPDATE keyway.notices n SET tries = tries + 1, next_at = now() + make_interval(secs =>
				(@again::float8[])[LEAST(tries + 1, cardinality(@again::float8[]))])
			FROM due WHERE n.id = due.id RETURNING n.*
		)
		SELECT c.id, c.run_id, r.owner, r.session_id, r.agent_id, c.status, c.made_at, c.tries
		FROM claimed c JOIN keyway.runs r USING (run_id) ORDER BY c.made_at`,
		pgx.NamedArgs{"limit": limit, "again": seconds})
	if err != nil {
		return nil, fmt.Errorf("claim notices: %w", kindOf(err))
	}
	return notices, nil
}

// DropNotice deletes a notice that was reported or is given up.
func (db *DB) DropNotice(ctx context.Context, id uuid.UUID) error {
	if _, err := db.exec(ctx, "DELETE FROM keyway.notices WHERE id = @id", pgx.NamedArgs{"id": id}); err != nil {
		return fmt.Errorf("delete a notice: %w", kindOf(err))
	}
	return nil
}
