package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// LeaseDuration is how long a run counts as alive after its runner's last sign of life.
const LeaseDuration = time.Minute

// forgotten is how long a run that waits is left to the queue, before the queue is
// believed to have lost it.
const forgotten = 10 * time.Minute

// Attempt is a run that a process carries, and the attempt by which it does.
type Attempt struct {
	RunID  uuid.UUID
	Number int
}

// Pulse looks after runs that this process carries: it tells which of them somebody
// asked to cancel. With renew it also renews their leases, and tells which are lost:
// gone, ended, or another attempt's.
func (db *DB) Pulse(ctx context.Context, held []Attempt, now time.Time, renew bool) (cancel, lost []Attempt, err error) {
	sql := `
		SELECT r.run_id, r.attempt, true FROM keyway.runs r, held
		WHERE r.run_id = held.run_id AND r.attempt = held.attempt AND r.cancel_requested AND r.finished_at IS NULL`
	if renew {
		sql = `
			UPDATE keyway.runs r SET lease_until = @lease_until FROM held
			WHERE r.run_id = held.run_id AND r.attempt = held.attempt AND r.status = 'RUNNING'
			RETURNING r.run_id, r.attempt, r.cancel_requested`
	}
	runs, attempts := make([]uuid.UUID, len(held)), make([]int32, len(held))
	missing := map[Attempt]bool{}
	for i, h := range held {
		runs[i], attempts[i], missing[h] = h.RunID, int32(h.Number), renew
	}
	rows, err := db.pool.Query(ctx, db.text(`WITH held AS (SELECT * FROM unnest(@runs::uuid[], @attempts::integer[]) AS h (run_id, attempt)) `+sql),
		pgx.NamedArgs{"runs": runs, "attempts": attempts, "lease_until": now.Add(LeaseDuration)})
	if err != nil {
		return nil, nil, fmt.Errorf("pulse: %w", kindOf(err))
	}
	var h Attempt
	var asked bool
	_, err = pgx.ForEachRow(rows, []any{&h.RunID, &h.Number, &asked}, func() error {
		if missing[h] = false; asked {
			cancel = append(cancel, h)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("pulse: %w", kindOf(err))
	}
	for h, gone := range missing {
		if gone {
			lost = append(lost, h)
		}
	}
	return cancel, lost, nil
}

// LeaseOf tells until when somebody carries the run; carried is false when nobody does,
// or there is no such run.
func (db *DB) LeaseOf(ctx context.Context, id uuid.UUID) (until time.Time, carried bool, err error) {
	err = db.queryRow(ctx, `SELECT lease_until FROM keyway.runs WHERE run_id = @run_id AND status = 'RUNNING'`, pgx.NamedArgs{"run_id": id}).Scan(&until)
	if errors.Is(err, pgx.ErrNoRows) {
		return until, false, nil
	}
	if err != nil {
		return until, false, fmt.Errorf("lease of run %s: %w", id, kindOf(err))
	}
	return until, true, nil
}

// died counts the process that died of a run which is taken or requeued.
const died = `losses = losses + CASE WHEN status = 'RUNNING' THEN 1 ELSE 0 END`

// ClaimRun begins the next attempt at a run that waits (PENDING) or whose lease is over: of several who
// try, one succeeds. Of the events told so far those before the checkpoint are kept.
func (db *DB) ClaimRun(ctx context.Context, id uuid.UUID, now time.Time) (r Run, taken bool, err error) {
	list, err := collect[Run](ctx, db, `
		WITH run AS (
			UPDATE keyway.runs SET `+died+`, status = 'RUNNING', attempt = attempt + 1, lease_until = @lease_until
			WHERE run_id = @run_id AND (status = 'PENDING' OR status = 'RUNNING' AND lease_until < @now)
			RETURNING `+runColumns+`, kept_events
		), kept AS (
			UPDATE keyway.run_events e SET attempt = run.attempt FROM run
			WHERE e.run_id = @run_id AND e.attempt = run.attempt - 1 AND e.first_index < run.kept_events
		), lost AS (
			DELETE FROM keyway.run_events e USING run
			WHERE e.run_id = @run_id AND NOT (e.attempt = run.attempt - 1 AND e.first_index < run.kept_events)
		)
		SELECT `+runColumns+` FROM run`,
		pgx.NamedArgs{"run_id": id, "now": now, "lease_until": now.Add(LeaseDuration)})
	if err != nil {
		return Run{}, false, fmt.Errorf("take run %s: %w", id, kindOf(err))
	}
	if len(list) == 0 {
		return Run{}, false, nil
	}
	return list[0], true, nil
}

// Checkpoint is where a run stands between two steps.
type Checkpoint struct {
	Data   json.RawMessage
	Events Events // that are told by then and not stored yet
	Next   int    // the index of the next event
}

// Checkpoint records what the next attempt at a run would go on from, with the
// events told until then. A run that is lost is fault.Conflict.
func (db *DB) Checkpoint(ctx context.Context, h Attempt, c Checkpoint) error {
	var kept bool
	err := db.queryRow(ctx, `
		WITH run AS (
			UPDATE keyway.runs SET checkpoint = @checkpoint, kept_events = @next
			WHERE run_id = @run_id AND attempt = @attempt AND status = 'RUNNING'
			RETURNING run_id
		), events AS (
			INSERT INTO keyway.run_events (run_id, attempt, first_index, count, frames)
			SELECT @run_id, @attempt, @first::integer, @count::integer, @frames FROM run WHERE @count::integer > 0
		)
		SELECT true FROM run`,
		pgx.NamedArgs{
			"run_id": h.RunID, "attempt": h.Number, "checkpoint": c.Data, "next": c.Next,
			"first": c.Events.First, "count": c.Events.Count, "frames": c.Events.Frames,
		}).Scan(&kept)
	if errors.Is(err, pgx.ErrNoRows) {
		return errElsewhere
	}
	if err != nil {
		return fmt.Errorf("checkpoint of run %s: %w", h.RunID, kindOf(err))
	}
	return nil
}

// ReleaseRun lets a run wait for another process, from its last checkpoint on. A run that
// is lost is fault.Conflict.
func (db *DB) ReleaseRun(ctx context.Context, h Attempt, now time.Time) error {
	n, err := db.exec(ctx, `UPDATE keyway.runs SET status = 'PENDING', lease_until = @now WHERE run_id = @run_id AND attempt = @attempt AND status = 'RUNNING'`,
		pgx.NamedArgs{"run_id": h.RunID, "attempt": h.Number, "now": now})
	switch {
	case err != nil:
		return fmt.Errorf("release run %s: %w", h.RunID, kindOf(err))
	case n == 0:
		return errElsewhere
	}
	return nil
}

// RequeueExpired makes the runs whose process died wait for another one, and names
// them: their lease is over. Runs that wait, and that the queue seems to have lost,
// are named too. Of several who ask at once, one is given each. Each process that died of
// a run is counted.
func (db *DB) RequeueExpired(ctx context.Context, now time.Time) ([]uuid.UUID, error) {
	const most = 1000 // the next sweep finds the rest
	rows, err := db.pool.Query(ctx, db.text(`
		UPDATE keyway.runs SET `+died+`, status = 'PENDING', lease_until = @now
		WHERE run_id IN (
			SELECT run_id FROM keyway.runs
			WHERE status IN ('PENDING', 'RUNNING') AND lease_until < @now AND (status = 'RUNNING' OR lease_until < @forgotten)
			ORDER BY lease_until LIMIT @most FOR UPDATE SKIP LOCKED
		) RETURNING run_id`),
		pgx.NamedArgs{"now": now, "forgotten": now.Add(-forgotten), "most": most})
	if err != nil {
		return nil, fmt.Errorf("expired leases: %w", kindOf(err))
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("expired leases: %w", kindOf(err))
	}
	return ids, nil
}
