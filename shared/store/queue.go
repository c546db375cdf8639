package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Servers that share a database need no other queue: the pending runs are one. A pending run has no lease, so its
// lease_until is used as the visibility deadline: the run may be received from then on. A separate table of messages
// would have to be kept consistent with the runs. docs/adr/0023 says how the places are shared.

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
	// Spender is the caller in whose share the run counts; see Budget.
	Spender string
	// LeaseUntil is the time until which no other receiver gets the run. It identifies this delivery.
	LeaseUntil time.Time
	// Rank and Turn order the runs that were received; see ReceiveRuns.
	Rank, Turn int64
}

// maxShares is how many callers ReceiveRuns looks at, which bounds what it reads.
const maxShares = 256

// ReceiveRuns returns at most limit visible runs, and makes them invisible for a while. SKIP LOCKED gives each run to
// only one of several receivers, and lets none of them wait.
//
// It shares the processes between the callers: the rank of a run is the number of runs of its caller that execute, plus
// its place among those of its caller that wait, the oldest first. The lowest ranks are received. Of one rank, the
// callers take turns in the order of their names, which begins after the name last and ends with it. A receiver passes
// what the previous call has returned as the next last, at first "". So a run of a caller without others waits for no
// more than one run of each other caller, even if there is one process. The caller of a run is its spender and not its
// owner, which a request can choose where callers are not isolated.
//
// If more than maxShares callers wait, only the first of that order are looked at.
func (db *DB) ReceiveRuns(ctx context.Context, limit int, invisible time.Duration, last string) (
	received []Received, next string, err error,
) {
	// If the answer of the first attempt is lost, the next one also receives the runs that were received a moment ago,
	// by whichever process. A run that two processes receive is claimed by one of them.
	args := pgx.NamedArgs{"limit": limit, "invisible": invisible.Seconds(), "last": last, "repeated": false}
	err = db.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, _ := conn.Query(ctx, db.text(receiveQuery), args) // CollectRows returns its error.
		received, err = pgx.CollectRows(rows, pgx.RowToStructByName[Received])
		args["repeated"] = true
		return err
	})
	if err != nil {
		return nil, last, fmt.Errorf("receive runs: %w", kindOf(err))
	}
	slices.SortFunc(received, func(a, b Received) int {
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.Turn, b.Turn))
	})
	for _, m := range received {
		if m.Rank > received[0].Rank { // Everybody had a turn of the lowest rank.
			break
		}
		last = m.Spender
	}
	return received, last, nil
}

// receiveQuery is the statement of ReceiveRuns. The names of the callers that wait come from a loose index scan: each
// step finds the next name in the index, however many runs the one before has. PostgreSQL takes no more steps than
// the LIMIT asks for. There are twice as many candidates as places, because another receiver may hold some of them.
//
// Some conditions are written so that only the right index fits. Without statistics PostgreSQL would use runs_lease
// instead, and read all pending runs for each name: rows are compared as a whole, as the columns of runs_turn are
// ordered, and IS NOT DISTINCT FROM uses no index.
var receiveQuery = `
	WITH RECURSIVE following AS (
		(` + nextWaiting("@last::text") + `) UNION ALL
		SELECT next.spender FROM following, LATERAL (` + nextWaiting("following.spender") + `) AS next
	), beginning AS (
		(` + firstWaiting + `) UNION ALL
		SELECT next.spender FROM beginning, LATERAL (` + nextWaiting("beginning.spender") + `) AS next
		WHERE next.spender <= @last
	), shares AS (
		SELECT spender, row_number() OVER () AS turn FROM (
			SELECT spender FROM following UNION ALL SELECT spender FROM beginning WHERE spender <= @last
			LIMIT ` + fmt.Sprint(maxShares) + `
		) AS names
	), candidates AS (
		SELECT waiting.run_id, executing.count + waiting.place AS rank, turn, waiting.lease_until AS since
		FROM shares, LATERAL (
			SELECT count(*) FROM keyway.runs
			WHERE spender = shares.spender AND status = 'RUNNING' AND lease_until > now()
		) AS executing, LATERAL (
			SELECT run_id, lease_until, row_number() OVER () AS place FROM (
				SELECT run_id, lease_until FROM keyway.runs
				WHERE status = 'PENDING' AND (spender, status, lease_until) > (shares.spender, 'PENDING', '-infinity')
					AND (spender, status, lease_until) <= (shares.spender, 'PENDING', now())
				ORDER BY spender, status, lease_until LIMIT 2 * @limit::bigint
			) AS oldest
		) AS waiting
		UNION ALL
		SELECT run_id, 0, 0, lease_until FROM keyway.runs WHERE @repeated::boolean AND status = 'PENDING'
			AND lease_until > now() + make_interval(secs => @invisible) - interval '10 seconds'
		ORDER BY rank, turn LIMIT 2 * @limit::bigint
	), chosen AS (
		SELECT locked.run_id, rank, turn FROM candidates, LATERAL (
			SELECT run_id FROM keyway.runs WHERE run_id = candidates.run_id AND status = 'PENDING'
				AND lease_until IS NOT DISTINCT FROM candidates.since FOR UPDATE SKIP LOCKED
		) AS locked LIMIT @limit
	)
	UPDATE keyway.runs SET lease_until = now() + make_interval(secs => @invisible)
	WHERE run_id = ANY(ARRAY(SELECT run_id FROM chosen)) RETURNING run_id, spender, lease_until,
		(SELECT rank FROM chosen WHERE chosen.run_id = runs.run_id), (SELECT turn FROM chosen
			WHERE chosen.run_id = runs.run_id)`

// waiting selects the caller with the first name that has a visible run.
const waiting = `SELECT spender FROM keyway.runs WHERE status = 'PENDING' AND lease_until <= now() %s
	ORDER BY spender, status, lease_until LIMIT 1`

var firstWaiting = fmt.Sprintf(waiting, "")

// nextWaiting is waiting for the names after another one.
func nextWaiting(name string) string { return fmt.Sprintf(waiting, "AND spender > "+name) }

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
