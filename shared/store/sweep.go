package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Retention says for how long data is kept. 0 keeps it until somebody deletes it.
type Retention struct {
	// Events is how long the events of a streamed run are kept after its end.
	Events time.Duration
	// Runs is how long a run is kept after its end, with all that belongs to it.
	Runs time.Duration
	// Sessions is how long a session is kept after its last change, with its runs.
	Sessions time.Duration
}

// Swept counts what a sweep has deleted, or would delete.
type Swept struct {
	// Events counts the runs that have lost their events.
	Events   int64 `json:"runs_without_events"`
	Runs     int64 `json:"runs"`
	Sessions int64 `json:"sessions"`
}

// Runs that have not ended are in no sweep, and neither are sessions with such a run: a paused run may wait for a
// person for as long as it likes.
const (
	oldEvents   = `keyway.runs r WHERE streamed AND finished_at < now() - make_interval(secs => @keep)`
	oldRuns     = `keyway.runs r WHERE finished_at < now() - make_interval(secs => @keep)`
	oldSessions = `keyway.sessions s WHERE updated_at < now() - make_interval(secs => @keep)
		AND updated_minute <= (now() - make_interval(secs => @keep)) AT TIME ZONE 'UTC' AND NOT EXISTS (
		SELECT FROM keyway.runs r WHERE r.owner = s.owner AND r.session_id = s.session_id AND r.finished_at IS NULL)`
)

// sweeps are the statements of Sweep. Each deletes a batch and returns how many it was. SKIP LOCKED lets several
// processes sweep at the same time, each with other rows, and lets no caller's request wait.
const (
	sweepEvents = `
		WITH old AS (
			SELECT run_id FROM ` + oldEvents + ` ORDER BY finished_at LIMIT @batch FOR UPDATE SKIP LOCKED
		), events AS (
			DELETE FROM keyway.run_events WHERE run_id IN (SELECT run_id FROM old)
		)
		UPDATE keyway.runs SET streamed = false WHERE run_id IN (SELECT run_id FROM old)`
	sweepRuns = `DELETE FROM keyway.runs WHERE run_id IN (
		SELECT run_id FROM ` + oldRuns + ` ORDER BY finished_at LIMIT @batch FOR UPDATE SKIP LOCKED)`
	// The locks are taken in the order of DeleteSessions.
	sweepSessions = `
		WITH held AS (
			SELECT owner, session_id FROM ` + oldSessions + `
			ORDER BY updated_minute LIMIT @batch FOR UPDATE SKIP LOCKED
		), runs AS (
			SELECT r.run_id FROM keyway.runs r JOIN held h USING (owner, session_id) ORDER BY r.run_id FOR UPDATE OF r
		)
		DELETE FROM keyway.sessions s USING held h
		WHERE s.owner = h.owner AND s.session_id = h.session_id AND (SELECT count(*) FROM runs) >= 0`
)

// sweepSpending deletes counts of limits that no limit looks at any more. The longest window is a day; the rest is for
// people who look at the table. No setting changes this, and nobody asks how many they were.
const sweepSpending = `DELETE FROM keyway.spending WHERE (whose, key, day) IN (
	SELECT whose, key, day FROM keyway.spending WHERE day < (now() AT TIME ZONE 'UTC')::date - 32
	ORDER BY day LIMIT @batch FOR UPDATE SKIP LOCKED)`

// sweepBatch is how many rows one statement of a sweep deletes, with what belongs to them.
const sweepBatch = 100

// Sweep deletes what is older than r, and counts of limits that are older than 32 days, in batches, until nothing is
// left or the context ends. It may run in several processes at the same time. What has been deleted before an error
// stays deleted, and counts.
func (db *DB) Sweep(ctx context.Context, r Retention) (out Swept, err error) {
	for _, part := range []struct {
		keep  time.Duration
		sql   string
		count *int64
	}{{r.Sessions, sweepSessions, &out.Sessions}, {r.Runs, sweepRuns, &out.Runs}, {r.Events, sweepEvents, &out.Events}} {
		for n := int64(sweepBatch); part.keep > 0 && n == sweepBatch; {
			args := pgx.NamedArgs{"keep": part.keep.Seconds(), "batch": sweepBatch}
			if n, err = db.bulk.exec(ctx, part.sql, args); err != nil {
				return out, fmt.Errorf("sweep: %w", kindOf(err))
			}
			*part.count += n
		}
	}
	for n := int64(sweepBatch); n == sweepBatch; {
		if n, err = db.bulk.exec(ctx, sweepSpending, pgx.NamedArgs{"batch": sweepBatch}); err != nil {
			return out, fmt.Errorf("sweep the counts of limits: %w", kindOf(err))
		}
	}
	return out, nil
}

// Sweepable counts what Sweep would delete now. Runs of a session that goes count as runs only if they are old enough
// themselves.
func (db *DB) Sweepable(ctx context.Context, r Retention) (out Swept, err error) {
	for _, part := range []struct {
		keep  time.Duration
		from  string
		count *int64
	}{{r.Sessions, oldSessions, &out.Sessions}, {r.Runs, oldRuns, &out.Runs}, {r.Events, oldEvents, &out.Events}} {
		if part.keep == 0 {
			continue
		}
		err := db.bulk.queryRow(ctx, `SELECT count(*) FROM `+part.from, pgx.NamedArgs{"keep": part.keep.Seconds()}).
			Scan(part.count)
		if err != nil {
			return out, fmt.Errorf("count what a sweep deletes: %w", kindOf(err))
		}
	}
	return out, nil
}
