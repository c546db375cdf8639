package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Events are consecutive events of a run, as they went over the wire.
type Events struct {
	RunID   uuid.UUID
	Attempt int    // whose they are
	First   int    // the index of the first
	Count   int    // how many they are
	Frames  string // one frame after the other
}

// FirstIndex is the index of an attempt's first event. Attempts lie so far apart that
// the index of an event tells whose it is: what a client has of an attempt that lost
// the run is never taken for a beginning of what the next one told. So a run may have
// 512 attempts, of four million events each.
func FirstIndex(attempt int) int { return max(attempt-1, 0) << 22 }

// AddEvents stores events of several runs, in one statement. Runs that are gone
// meanwhile are left out.
func (db *DB) AddEvents(ctx context.Context, list []Events) error {
	runs, frames := make([]uuid.UUID, len(list)), make([]string, len(list))
	attempts, firsts, counts := make([]int32, len(list)), make([]int32, len(list)), make([]int32, len(list))
	for i, e := range list {
		runs[i], attempts[i], firsts[i], counts[i], frames[i] = e.RunID, int32(e.Attempt), int32(e.First), int32(e.Count), e.Frames
	}
	_, err := db.exec(ctx, `
		INSERT INTO keyway.run_events (run_id, attempt, first_index, count, frames)
		SELECT e.* FROM unnest(@runs::uuid[], @attempts::integer[], @firsts::integer[], @counts::integer[], @frames::text[])
			AS e (run_id, attempt, first_index, count, frames)
		WHERE EXISTS (SELECT FROM keyway.runs r WHERE r.run_id = e.run_id)
		ON CONFLICT DO NOTHING`,
		pgx.NamedArgs{"runs": runs, "attempts": attempts, "firsts": firsts, "counts": counts, "frames": frames})
	if err != nil {
		return fmt.Errorf("add events: %w", kindOf(err))
	}
	return nil
}

// EventsAfter reads what is stored of the events of a run's present attempt, from the
// first that holds one with an index above after, in order.
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

// CountEvents counts the stored events of a run's present attempt, which EventsAfter
// reads. It returns 0 for a run without events and for an unknown run.
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

// Conversation is what users and agents said in a session, oldest first: a JSON
// array of the messages as they were recorded, without the system's and the
// tools'.
func (db *DB) Conversation(ctx context.Context, v Viewer, owner, sessionID string) (said []byte, err error) {
	err = db.queryRow(ctx, `
		SELECT '[' || COALESCE(string_agg(m.value::text, ',' ORDER BY r.seq, m.n), '') || ']'
		FROM keyway.runs r, json_array_elements(r.messages) WITH ORDINALITY AS m (value, n)
		WHERE r.owner = @owner AND r.session_id = @session_id AND `+v.where("r.owner")+`
			AND m.value->>'role' NOT IN ('system', 'tool')`,
		pgx.NamedArgs{"owner": owner, "session_id": sessionID, "viewer": v.Owner}).Scan(&said)
	if err != nil {
		return nil, fmt.Errorf("conversation of session %q: %w", sessionID, kindOf(err))
	}
	return said, nil
}
