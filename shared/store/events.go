package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Events are consecutive events of a run, as they were sent to the client: one row of run_events. See docs/adr/0005.
type Events struct {
	RunID uuid.UUID
	// Attempt is the number of the attempt that sent them.
	Attempt int
	// First is the index of the first event. The others follow without a gap.
	First int
	// Count is the number of events.
	Count int
	// Frames are their server-sent events, one after the other. An empty line ends each.
	Frames string
}

// FirstIndex returns the index of an attempt's first event, (attempt-1) · 2²². The ranges of two attempts do not
// overlap, so an index says which attempt sent the event. A client that resumes sends only an index. If it is from an
// attempt that lost the run, its event may differ from that of the present attempt, and the client must get the
// present attempt's events from the start, never a mixture. AgentOS's clients keep an index in 32 bits: that leaves
// room for 512 attempts, of four million events each.
func FirstIndex(attempt int) int { return max(attempt-1, 0) << 22 }

// insertEvents is the part of a statement that stores the events of one run, if the part named run has found the
// run. A batch that is stored already stays as it is: the statement may be repeated, and two statements may hold
// the same batch.
const insertEvents = `
	INSERT INTO keyway.run_events (run_id, attempt, first_index, count, frames)
	SELECT @run_id, @attempt, e.first_index, e.count, e.frames FROM run, (
		SELECT @first::integer, @count::integer, @frame::text WHERE @count::integer > 0
		UNION ALL SELECT * FROM unnest(@firsts::integer[], @counts::integer[], @frames::text[])
	) AS e (first_index, count, frames)
	ON CONFLICT DO NOTHING`

// addEventArgs adds the named arguments of insertEvents. Nearly always there is one batch at most, and pgx takes
// several times as long for arrays, which it copies once more.
func addEventArgs(args pgx.NamedArgs, batches []Events) pgx.NamedArgs {
	var last Events
	if n := len(batches) - 1; n >= 0 {
		batches, last = batches[:n], batches[n]
	}
	args["first"], args["count"], args["frame"] = last.First, last.Count, last.Frames
	if len(batches) == 0 {
		args["firsts"], args["counts"], args["frames"] = "{}", "{}", "{}"
		return args
	}
	return addBatches(args, batches)
}

// addBatches adds batches as arrays.
func addBatches(args pgx.NamedArgs, batches []Events) pgx.NamedArgs {
	frames, firsts, counts := make([]string, len(batches)), make([]int32, len(batches)), make([]int32, len(batches))
	for i, e := range batches {
		frames[i], firsts[i], counts[i] = e.Frames, int32(e.First), int32(e.Count)
	}
	args["frames"], args["firsts"], args["counts"] = frames, firsts, counts
	return args
}

// AddEvents stores batches of events of several runs in one statement. A batch must keep its First and Count when the
// call is repeated. Batches of runs that were deleted or claimed by another process meanwhile are left out.
//
// The batches are inserted in one order, because two statements may hold the same ones, and a statement waits for rows
// that another one has inserted.
//
// The statement waits for no run: a run whose row is locked is skipped. busy are these runs, and the caller repeats
// their batches later. Otherwise one locked row would delay the events of all runs of the process.
func (db *DB) AddEvents(ctx context.Context, batches []Events) (busy []uuid.UUID, err error) {
	runs, attempts := make([]uuid.UUID, len(batches)), make([]int32, len(batches))
	for i, e := range batches {
		runs[i], attempts[i] = e.RunID, int32(e.Attempt)
	}
	args := addBatches(pgx.NamedArgs{"runs": runs, "attempts": attempts}, batches)
	busy, err = list(ctx, db, pgx.RowTo[uuid.UUID], `
		WITH e AS (
			SELECT * FROM
				unnest(@runs::uuid[], @attempts::integer[], @firsts::integer[], @counts::integer[], @frames::text[])
				AS e (run_id, attempt, first_index, count, frames)
		), free AS (
			SELECT run_id, attempt FROM keyway.runs WHERE run_id = ANY(@runs)
			ORDER BY run_id FOR KEY SHARE SKIP LOCKED
		), added AS (
			INSERT INTO keyway.run_events (run_id, attempt, first_index, count, frames)
			SELECT e.run_id, e.attempt, e.first_index, e.count, e.frames FROM e JOIN free USING (run_id, attempt)
			ORDER BY e.run_id, e.first_index
			ON CONFLICT DO NOTHING
		)
		SELECT run_id FROM keyway.runs WHERE run_id = ANY(@runs) AND run_id NOT IN (SELECT run_id FROM free)`, args)
	if err != nil {
		return nil, fmt.Errorf("add events: %w", kindOf(err))
	}
	return busy, nil
}
