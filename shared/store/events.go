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

// AddEvents stores events of several runs in one statement. Events of runs that were deleted meanwhile are left out,
// so that they do not prevent the others from being stored. Events that are stored already are left as they are.
func (db *DB) AddEvents(ctx context.Context, list []Events) error {
	runs, frames := make([]uuid.UUID, len(list)), make([]string, len(list))
	attempts, firsts, counts := make([]int32, len(list)), make([]int32, len(list)), make([]int32, len(list))
	for i, e := range list {
		runs[i], frames[i] = e.RunID, e.Frames
		attempts[i], firsts[i], counts[i] = int32(e.Attempt), int32(e.First), int32(e.Count)
	}
	_, err := db.exec(ctx, `
		INSERT INTO keyway.run_events (run_id, attempt, first_index, count, frames)
		SELECT e.* FROM
			unnest(@runs::uuid[], @attempts::integer[], @firsts::integer[], @counts::integer[], @frames::text[])
			AS e (run_id, attempt, first_index, count, frames)
		WHERE EXISTS (SELECT FROM keyway.runs r WHERE r.run_id = e.run_id)
		ON CONFLICT DO NOTHING`,
		pgx.NamedArgs{"runs": runs, "attempts": attempts, "firsts": firsts, "counts": counts, "frames": frames})
	if err != nil {
		return fmt.Errorf("add events: %w", kindOf(err))
	}
	return nil
}

// EventsAfter returns the stored events of a run's present attempt, in order, from the row that holds the first event
// with an index above after. That row may begin with earlier events. Events of attempts that lost the run are never
// returned.
func (db *DB) EventsAfter(ctx context.Context, id uuid.UUID, after int) ([]Events, error) {
	list, err := collect[Events](ctx, db, `
		SELECT run_id, attempt, first_index AS first, count, frames FROM keyway.run_events
		WHERE run_id = @run_id AND attempt = (SELECT attempt FROM keyway.runs WHERE run_id = @run_id)
			AND first_index + count - 1 > @after ORDER BY first_index`,
		pgx.NamedArgs{"run_id": id, "after": after})
	if err != nil {
		return nil, fmt.Errorf("events of run %s: %w", id, kindOf(err))
	}
	return list, nil
}

// CountEvents counts the stored events of a run's present attempt, which EventsAfter returns. It is 0 for a run without
// events and for a missing run.
func (db *DB) CountEvents(ctx context.Context, id uuid.UUID) (n int, err error) {
	err = db.queryRow(ctx, `
		SELECT COALESCE(sum(count), 0) FROM keyway.run_events
		WHERE run_id = @run_id AND attempt = (SELECT attempt FROM keyway.runs WHERE run_id = @run_id)`,
		pgx.NamedArgs{"run_id": id}).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count events of run %s: %w", id, kindOf(err))
	}
	return n, nil
}
