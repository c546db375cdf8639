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
// renews the lease. If the process crashes, the lease expires, and another process claims the run. All times of leases
// come from PostgreSQL's clock, so the clocks of the processes may differ.
//
// A lease alone is not safe. A process that was suspended may still write after its lease expired and another process
// claimed the run. Therefore every write of a run names the leg that writes, and a write of an earlier leg matches no
// row: the id of the leg is a fencing token. The lease decides when a run is claimed again; the fencing token keeps the
// data correct.

// LeaseDuration is how long a lease is valid after it was acquired or renewed.
const LeaseDuration = time.Minute

// newLease is the end of a lease that is acquired or renewed by a statement.
const newLease = `now() + interval '1 minute'`

// requeueAfter is how long a pending run may stay unclaimed before its queue message is assumed lost. It is well above
// the time that a message waits while all workers are busy; a needless second message would be harmless.
const requeueAfter = 10 * time.Minute

// Leg identifies the execution of a run by one process: from its start, continuation or claim to its end, pause or
// hand-over. A process chooses the ID before the statement that starts the leg. So it can repeat that statement after a
// lost answer, and the statement recognizes its own leg.
type Leg struct {
	RunID uuid.UUID
	// Attempt is the number of the claim that the leg belongs to: 1 for the start of the run. It determines the indices
	// of the leg's events; see FirstIndex. A continuation belongs to the attempt that paused.
	Attempt int
	ID      uuid.UUID
}

// args are the named arguments that identify the leg.
func (l Leg) args(more pgx.NamedArgs) pgx.NamedArgs {
	more["run_id"], more["attempt"], more["leg"] = l.RunID, l.Attempt, l.ID
	return more
}

// held is the condition that the leg executes the run. Every write of a leg has it.
const held = `run_id = @run_id AND attempt = @attempt AND leg = @leg AND status = 'RUNNING'`

// Pulse is what a process learns about one of its legs.
type Pulse struct {
	Leg
	// Deleted means that the run does not exist any more.
	Deleted bool
	// Lost means that the run belongs to another leg.
	Lost bool
	// Cancel means that the run is to be cancelled.
	Cancel bool
	// Renewed means that the lease was renewed.
	Renewed bool
}

// Pulse is the statement that a process executes twice a second for all its legs together; run's registry describes
// it. With renew it also renews their leases. It waits for no run: the lease of a row that is locked, or is changed at
// this moment, is not renewed, and the next call tries again. A leg that has ended is neither lost nor renewed. The
// result has the order of legs.
func (db *DB) Pulse(ctx context.Context, legs []Leg, renew bool) ([]Pulse, error) {
	// Most pulses only read, which is cheap: a write each half second would fill the write-ahead log and keep vacuum busy.
	// The rows are locked in the order of their ids, as by DeleteSessions, so that the two do not wait for each other.
	//
	// A row that has changed since the snapshot of the statement is locked in its new version, which has another ctid. It
	// is not renewed either: while AddEvents holds a share of the old version, the update would queue for that one, where
	// DeleteSessions may be first, which waits for the lock on the new one.
	const renewal = `
		, free AS (
			SELECT r.run_id, r.ctid FROM keyway.runs r JOIN mine m USING (run_id, attempt, leg)
			WHERE r.status = 'RUNNING' ORDER BY r.run_id FOR NO KEY UPDATE OF r SKIP LOCKED
		), renewed AS (
			UPDATE keyway.runs r SET lease_until = ` + newLease + ` FROM free
			WHERE r.run_id = free.run_id AND r.ctid = free.ctid RETURNING r.run_id
		)`
	with, column := "", "false"
	if renew {
		with, column = renewal, "m.run_id IN (SELECT run_id FROM renewed)"
	}
	runs, attempts, ids := make([]uuid.UUID, len(legs)), make([]int32, len(legs)), make([]uuid.UUID, len(legs))
	for i, l := range legs {
		runs[i], attempts[i], ids[i] = l.RunID, int32(l.Attempt), l.ID
	}
	// Only rows with news are sent: there are none in nearly all pulses, and a process may have thousands of legs.
	pulses := make([]Pulse, len(legs))
	for i := range legs {
		pulses[i].Leg = legs[i]
	}
	rows, err := list(ctx, db.leases, scanPulse, `
		WITH mine AS (
			SELECT * FROM unnest(@runs::uuid[], @attempts::integer[], @legs::uuid[]) WITH ORDINALITY
				AS m (run_id, attempt, leg, place)
		)`+with+`
		SELECT * FROM (
			SELECT m.place, r.run_id IS NULL AS deleted, (r.attempt, r.leg) IS DISTINCT FROM (m.attempt, m.leg) AS lost,
				COALESCE(r.cancel_requested, false) AS cancel, `+column+` AS renewed
			FROM mine m LEFT JOIN keyway.runs r ON r.run_id = m.run_id
		) p WHERE deleted OR lost OR cancel OR renewed`,
		pgx.NamedArgs{"runs": runs, "attempts": attempts, "legs": ids})
	if err != nil {
		return nil, fmt.Errorf("pulse: %w", kindOf(err))
	}
	for _, n := range rows {
		p := &pulses[n.place-1]
		p.Deleted, p.Lost, p.Cancel, p.Renewed = n.Deleted, n.Lost, n.Cancel, n.Renewed
	}
	return pulses, nil
}

// news is a row of Pulse's statement. place is that of its leg, from 1 on.
type news struct {
	Pulse

	place int
}

// scanPulse reads a row of Pulse's statement.
func scanPulse(row pgx.CollectableRow) (n news, err error) {
	err = row.Scan(&n.place, &n.Deleted, &n.Lost, &n.Cancel, &n.Renewed)
	return n, err
}

// LeaseLeft returns for how long the lease of a running run is still valid, and the run's spender. running is false
// if the run is not RUNNING or does not exist.
func (db *DB) LeaseLeft(ctx context.Context, id uuid.UUID) (
	left time.Duration, spender string, running bool, err error,
) {
	var seconds float64
	err = db.queryRow(ctx, `SELECT extract(epoch FROM lease_until - now())::float8, spender FROM keyway.runs
		WHERE run_id = @run_id AND status = 'RUNNING'`, pgx.NamedArgs{"run_id": id}).Scan(&seconds, &spender)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, "", false, nil
	}
	if err != nil {
		return 0, "", false, fmt.Errorf("lease of run %s: %w", id, kindOf(err))
	}
	return time.Duration(seconds * float64(time.Second)), spender, true, nil
}

// ClaimRun starts the next attempt at a run that is PENDING, or RUNNING with an expired lease, with a leg of this id.
// claimed is true for at most one id. In the same statement, the events before the checkpoint pass to the new attempt,
// and those after it are deleted, because the new attempt repeats that step and sends them again. The steps become a
// part of the returned checkpoint; see migration 7.
//
// A run that is RUNNING when it is claimed has crashed its process, and losses counts it. A run that was handed over is
// PENDING.
//
// While its caller, its agent or the OS has as many runs in progress as allowed, the run stays as it is, and the error
// is *NoPlace. A run that is to be cancelled needs no place.
func (db *DB) ClaimRun(ctx context.Context, id, leg uuid.UUID, p Places) (r Run, claimed bool, err error) {
	// The claim may have happened although its answer was lost: then the run has this leg already, and nothing changes.
	// Three statements of one transaction, because each must see the events that were stored before the claim.
	args, err := p.args(db.pool.schema, id, leg)
	if err != nil {
		return Run{}, false, fmt.Errorf("places: %w", err)
	}
	var b pgx.Batch
	b.Queue(db.text(`
		WITH known AS (
			SELECT EXISTS (SELECT FROM keyway.runs WHERE run_id = @run_id AND leg = @leg) AS own
		), today AS ( -- The tokens of a run that waited since yesterday count today, for the same ones.
			INSERT INTO keyway.spending (whose, key, day)
			SELECT s.whose, s.key, (now() AT TIME ZONE 'UTC')::date
			FROM keyway.runs r, LATERAL (VALUES ('agent', r.agent_id), ('caller', r.spender), ('os', '')) AS s (whose, key)
			WHERE r.run_id = @run_id AND r.spend_day < (now() AT TIME ZONE 'UTC')::date
				AND EXISTS (SELECT FROM keyway.spending p WHERE p.whose = s.whose AND p.key = s.key AND p.day = r.spend_day)
			ORDER BY s.whose
			ON CONFLICT DO NOTHING
		)
		UPDATE keyway.runs r SET
			spend_day = CASE WHEN spend_day IS NULL OR own THEN spend_day ELSE (now() AT TIME ZONE 'UTC')::date END,
			losses = losses + CASE WHEN status = 'RUNNING' AND NOT own THEN 1 ELSE 0 END,
			attempt = attempt + CASE WHEN own THEN 0 ELSE 1 END,
			status = 'RUNNING', leg = @leg, lease_until = `+newLease+`
		FROM known
		WHERE run_id = @run_id AND (status = 'PENDING' AND NOT own
			OR status = 'RUNNING' AND (lease_until < now() OR own))
			`+p.left()+`
		RETURNING `+runColumns), args)
	b.Queue(db.text(`
		UPDATE keyway.run_events e SET attempt = r.attempt FROM keyway.runs r
		WHERE r.run_id = @run_id AND r.leg = @leg AND e.run_id = @run_id
			AND e.attempt = r.attempt - 1 AND e.first_index < r.kept_events`), args)
	b.Queue(db.text(`
		DELETE FROM keyway.run_events e USING keyway.runs r
		WHERE r.run_id = @run_id AND r.leg = @leg AND e.run_id = @run_id AND e.attempt <> r.attempt`), args)
	var found []Run
	read := func(answers pgx.BatchResults) (err error) {
		rows, _ := answers.Query() // CollectRows returns its error.
		found, err = pgx.CollectRows(rows, pgx.RowToStructByName[Run])
		return err
	}
	locks := 0
	if p.none() {
		err = db.bulk.batch(ctx, &b, read)
	} else {
		locks, err = db.bulk.locked(ctx, db.text(lockPlaces), []any{args}, &b, read)
	}
	if err != nil {
		return Run{}, false, fmt.Errorf("claim run %s: %w", id, kindOf(err))
	}
	if len(found) == 0 && locks > 0 {
		err = db.noPlace(ctx, id)
	}
	if len(found) == 0 {
		return Run{}, false, err
	}
	return found[0], true, nil
}

// NoPlace is the error of ClaimRun for a run that waits until another one has ended.
type NoPlace struct {
	// Spender is the caller of the run; see Budget.
	Spender string
	// Wait is how soon to try again.
	Wait time.Duration
}

func (*NoPlace) Error() string { return "as many runs are in progress as concurrent_runs allows" }

// noPlace returns *NoPlace for a run that could be claimed if it had a place. The more runs of its caller wait, the
// less often each is tried, so that they do not keep all processes busy. A run whose process has crashed becomes
// PENDING, as in RequeueExpired: then no other process looks for it.
func (db *DB) noPlace(ctx context.Context, id uuid.UUID) error {
	full, waiting := &NoPlace{}, 0
	err := db.queryRow(ctx, `
		WITH crashed AS (
			UPDATE keyway.runs SET status = 'PENDING', losses = losses + 1, lease_until = now()
			WHERE run_id = @run_id AND status = 'RUNNING' AND lease_until < now()
		)
		SELECT (SELECT count(*) FROM keyway.runs w WHERE w.status = 'PENDING' AND w.spender = r.spender), r.spender
		FROM keyway.runs r
		WHERE r.run_id = @run_id AND (r.status = 'PENDING' OR r.status = 'RUNNING' AND r.lease_until < now())`,
		pgx.NamedArgs{"run_id": id}).Scan(&waiting, &full.Spender)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("waiting runs: %w", kindOf(err))
	}
	full.Wait = min(placeSoonest+time.Duration(waiting)*placeEach, placeLatest)
	return full
}

// A run that waits for a place is tried again after placeSoonest and placeEach for each run of its caller that waits,
// at the latest after placeLatest.
const placeSoonest, placeEach, placeLatest = time.Second, 10 * time.Millisecond, 30 * time.Second

// Checkpoint is the state of a run between two steps, and the events up to it.
type Checkpoint struct {
	// Data is the part of the state that does not grow, as the run loop encodes it: a JSON object.
	Data json.RawMessage
	// Step numbers the checkpoints of a leg, from 0.
	Step int
	// Added is what the state has grown by since the previous checkpoint of the leg: a JSON object. In the first one it
	// is everything that grows, because a leg begins without steps.
	Added json.RawMessage
	// Events are the batches that may not be stored yet.
	Events []Events
	// Next is the index of the event that follows. The next attempt keeps the events below it.
	Next int
}

// Checkpoint stores what the next attempt at a run would continue from. State and events are written in one
// statement: otherwise a crash between the two writes would lose events that the next attempt does not repeat, or
// keep events that it sends again. cancel means that the run is to be cancelled. A run that belongs to another leg is
// fault.Conflict.
func (db *DB) Checkpoint(ctx context.Context, l Leg, c Checkpoint) (cancel bool, err error) {
	// The events are inserted only if the update found the leg, since they select from its result.
	err = db.queryRow(ctx, `
		WITH run AS (
			UPDATE keyway.runs SET checkpoint = @checkpoint, kept_events = @next WHERE `+held+`
			RETURNING cancel_requested
		), events AS (`+insertEvents+`
		), step AS (
			INSERT INTO keyway.run_steps (run_id, step, added) SELECT @run_id, @step, @added::json FROM run
			ON CONFLICT DO NOTHING
		)
		SELECT cancel_requested FROM run`,
		l.args(addEventArgs(pgx.NamedArgs{
			"checkpoint": c.Data, "next": c.Next, "step": c.Step, "added": c.Added,
		}, c.Events))).Scan(&cancel)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, errElsewhere
	}
	if err != nil {
		return false, fmt.Errorf("checkpoint of run %s: %w", l.RunID, kindOf(err))
	}
	return cancel, nil
}

// ReleaseRun hands a run over: it becomes PENDING and visible in the local queue at once, and the next attempt
// continues from the last checkpoint. A run that belongs to another leg is fault.Conflict.
func (db *DB) ReleaseRun(ctx context.Context, l Leg) error {
	n, err := db.exec(ctx, `UPDATE keyway.runs SET status = 'PENDING', lease_until = now()
		WHERE run_id = @run_id AND attempt = @attempt AND leg = @leg AND status IN ('RUNNING', 'PENDING')`,
		l.args(pgx.NamedArgs{}))
	switch {
	case err != nil:
		return fmt.Errorf("release run %s: %w", l.RunID, kindOf(err))
	case n == 0:
		return errElsewhere
	}
	return nil
}

// Orphan is a run that RequeueExpired made PENDING.
type Orphan struct {
	RunID uuid.UUID
	// Spender is the caller in whose share of the queue the run counts; see Budget.
	Spender string
}

// RequeueExpired makes orphaned runs PENDING and returns them, for the caller to enqueue. Orphaned are running
// runs whose lease expired, which counts as a crash, and pending runs that nobody claimed within requeueAfter. Of
// several callers at the same time, only one gets each run. A call handles at most 1000 runs; the next call gets the
// rest.
func (db *DB) RequeueExpired(ctx context.Context) (orphans []Orphan, err error) {
	// Two servers may look at the same moment. FOR UPDATE locks the rows of one, and SKIP LOCKED makes the other skip
	// them. If the answer of the first attempt is lost, the next one also returns the runs that became pending a moment
	// ago. Some of them are in the queue already, and a second message is harmless.
	args := pgx.NamedArgs{"unclaimed": requeueAfter.Seconds(), "limit": 1000, "repeated": false}
	err = db.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, _ := conn.Query(ctx, db.text(`
			UPDATE keyway.runs SET losses = losses + CASE WHEN status = 'RUNNING' THEN 1 ELSE 0 END,
				status = 'PENDING', lease_until = now()
			WHERE run_id IN (
				SELECT run_id FROM keyway.runs
				WHERE status IN ('PENDING', 'RUNNING') AND lease_until < now()
					AND (status = 'RUNNING' OR lease_until < now() - make_interval(secs => @unclaimed)
						OR @repeated AND lease_until > now() - interval '10 seconds')
				ORDER BY lease_until LIMIT @limit FOR UPDATE SKIP LOCKED
			) RETURNING run_id, spender`), args) // CollectRows returns its error.
		orphans, err = pgx.CollectRows(rows, pgx.RowToStructByName[Orphan])
		args["repeated"] = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("expired leases: %w", kindOf(err))
	}
	return orphans, nil
}
