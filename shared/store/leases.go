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

// A running run has a lease: until lease_until, no other process may claim it. The process that executes the run
// renews the lease. If the process crashes, the lease expires, and another process claims the run.
//
// A lease alone is not safe. A process that was suspended, or whose clock is slow, may still write after its lease
// expired and another process claimed the run. Therefore each claim increments the attempt number, and every write
// of a run names the attempt: a write of an earlier attempt matches no row. The number is a fencing token. The lease
// decides when a run is claimed again; the fencing token keeps the data correct however wrong the clocks are.

// LeaseDuration is how long a lease is valid after it was acquired or renewed. Lease times come from the clocks of the
// processes; clocks that differ by more than about half a minute make a run be claimed too early, which the fencing
// token makes harmless but which repeats a step.
const LeaseDuration = time.Minute

// requeueAfter is how long a pending run may stay unclaimed before its queue message is assumed lost. It is well above
// the time that a message waits while all workers are busy; a needless second message would be harmless.
const requeueAfter = 10 * time.Minute

// Attempt identifies one attempt at a run. Number is the fencing token; it is 1 for the attempt that starts the run.
type Attempt struct {
	RunID  uuid.UUID
	Number int
}

// Pulse is the statement that a process executes twice a second for all its runs together; run's registry describes
// it. It reads which of the attempts are to be cancelled. With renew it also renews their leases, and lost are the
// attempts whose lease could not be renewed: the run is deleted, has ended or belongs to another attempt.
func (db *DB) Pulse(
	ctx context.Context, attempts []Attempt, now time.Time, renew bool,
) (cancel, lost []Attempt, err error) {
	// Most pulses only read, which is cheap: a write each half second would fill the write-ahead log and keep vacuum busy.
	sql := `
		SELECT r.run_id, r.attempt, true FROM keyway.runs r, held
		WHERE r.run_id = held.run_id AND r.attempt = held.attempt AND r.cancel_requested AND r.finished_at IS NULL`
	if renew {
		sql = `
			UPDATE keyway.runs r SET lease_until = @lease_until FROM held
			WHERE r.run_id = held.run_id AND r.attempt = held.attempt AND r.status = 'RUNNING'
			RETURNING r.run_id, r.attempt, r.cancel_requested`
	}
	// missing are the attempts that the statement has not returned. Only a renewing statement returns every valid
	// attempt, so only then does a missing one mean a lost lease.
	runs, numbers := make([]uuid.UUID, len(attempts)), make([]int32, len(attempts))
	missing := map[Attempt]bool{}
	for i, a := range attempts {
		runs[i], numbers[i], missing[a] = a.RunID, int32(a.Number), renew
	}
	const held = `WITH held AS (
		SELECT * FROM unnest(@runs::uuid[], @attempts::integer[]) AS h (run_id, attempt)) `
	type answer struct {
		Attempt
		cancelRequested bool
	}
	found, err := list(ctx, db.leases, func(row pgx.CollectableRow) (a answer, err error) {
		return a, row.Scan(&a.RunID, &a.Number, &a.cancelRequested)
	}, held+sql, pgx.NamedArgs{"runs": runs, "attempts": numbers, "lease_until": now.Add(LeaseDuration)})
	if err != nil {
		return nil, nil, fmt.Errorf("pulse: %w", kindOf(err))
	}
	for _, a := range found {
		if missing[a.Attempt] = false; a.cancelRequested {
			cancel = append(cancel, a.Attempt)
		}
	}
	for a, gone := range missing {
		if gone {
			lost = append(lost, a)
		}
	}
	return cancel, lost, nil
}

// LeaseOf returns when the lease of a running run expires. running is false if the run is not RUNNING or does not
// exist.
func (db *DB) LeaseOf(ctx context.Context, id uuid.UUID) (until time.Time, running bool, err error) {
	err = db.queryRow(ctx, `SELECT lease_until FROM keyway.runs WHERE run_id = @run_id AND status = 'RUNNING'`,
		pgx.NamedArgs{"run_id": id}).Scan(&until)
	if errors.Is(err, pgx.ErrNoRows) {
		return until, false, nil
	}
	if err != nil {
		return until, false, fmt.Errorf("lease of run %s: %w", id, kindOf(err))
	}
	return until, true, nil
}

// countCrash increments losses if the run is still RUNNING when it is claimed or requeued, which means that its
// process let the lease expire. A run that was handed over is PENDING by then and is not counted.
const countCrash = `losses = losses + CASE WHEN status = 'RUNNING' THEN 1 ELSE 0 END`

// ClaimRun starts the next attempt at a run that is PENDING, or RUNNING with an expired lease. claimed is true for at
// most one caller. In the same statement, the events before the checkpoint pass to the new attempt, and those after
// it are deleted, because the new attempt repeats that step and sends them again.
func (db *DB) ClaimRun(ctx context.Context, id uuid.UUID, now time.Time) (r Run, claimed bool, err error) {
	// All parts of a statement see the same snapshot of run_events, so a row is never both kept and deleted.
	list, err := collect[Run](ctx, db, `
		WITH run AS (
			UPDATE keyway.runs SET `+countCrash+`,
				status = 'RUNNING', attempt = attempt + 1, lease_until = @lease_until
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
		return Run{}, false, fmt.Errorf("claim run %s: %w", id, kindOf(err))
	}
	if len(list) == 0 {
		return Run{}, false, nil
	}
	return list[0], true, nil
}

// Checkpoint is the state of a run between two steps, and the events up to it.
type Checkpoint struct {
	// Data is the state as the run loop encodes it.
	Data json.RawMessage
	// Events are those that were sent before the checkpoint and are not stored yet.
	Events Events
	// Next is the index of the event that follows. The next attempt keeps the events below it.
	Next int
}

// Checkpoint stores what the next attempt at a run would continue from. State and events are written in one
// statement: otherwise a crash between the two writes would lose events that the next attempt does not repeat, or
// keep events that it sends again. A run that belongs to another attempt is fault.Conflict.
func (db *DB) Checkpoint(ctx context.Context, a Attempt, c Checkpoint) error {
	// The events are inserted only if the update found the attempt, since they select from its result.
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
			"run_id": a.RunID, "attempt": a.Number, "checkpoint": c.Data, "next": c.Next,
			"first": c.Events.First, "count": c.Events.Count, "frames": c.Events.Frames,
		}).Scan(&kept)
	if errors.Is(err, pgx.ErrNoRows) {
		return errElsewhere
	}
	if err != nil {
		return fmt.Errorf("checkpoint of run %s: %w", a.RunID, kindOf(err))
	}
	return nil
}

// ReleaseRun hands a run over: it becomes PENDING and visible in the local queue at once, and the next attempt
// continues from the last checkpoint. A run that belongs to another attempt is fault.Conflict.
func (db *DB) ReleaseRun(ctx context.Context, a Attempt, now time.Time) error {
	n, err := db.exec(ctx, `UPDATE keyway.runs SET status = 'PENDING', lease_until = @now
		WHERE run_id = @run_id AND attempt = @attempt AND status = 'RUNNING'`,
		pgx.NamedArgs{"run_id": a.RunID, "attempt": a.Number, "now": now})
	switch {
	case err != nil:
		return fmt.Errorf("release run %s: %w", a.RunID, kindOf(err))
	case n == 0:
		return errElsewhere
	}
	return nil
}

// RequeueExpired makes orphaned runs PENDING and returns their ids, for the caller to enqueue. Orphaned are running
// runs whose lease expired, which counts as a crash, and pending runs that nobody claimed within requeueAfter. Of
// several callers at the same time, only one gets each run. A call handles at most 1000 runs; the next call gets the
// rest.
func (db *DB) RequeueExpired(ctx context.Context, now time.Time) ([]uuid.UUID, error) {
	// Two servers may look at the same moment. FOR UPDATE locks the rows of one, and SKIP LOCKED makes the other skip
	// them.
	const limit = 1000
	ids, err := list(ctx, db, pgx.RowTo[uuid.UUID], `
		UPDATE keyway.runs SET `+countCrash+`, status = 'PENDING', lease_until = @now
		WHERE run_id IN (
			SELECT run_id FROM keyway.runs
			WHERE status IN ('PENDING', 'RUNNING') AND lease_until < @now
				AND (status = 'RUNNING' OR lease_until < @unclaimed_since)
			ORDER BY lease_until LIMIT @limit FOR UPDATE SKIP LOCKED
		) RETURNING run_id`,
		pgx.NamedArgs{"now": now, "unclaimed_since": now.Add(-requeueAfter), "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("expired leases: %w", kindOf(err))
	}
	return ids, nil
}
