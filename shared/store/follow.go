package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
)

// The statements of this file are executed again and again for clients that follow a run. They read none of the columns
// that grow with the run, such as the messages and the tool calls. Only RunHead has a Viewer, and RunInProgress an
// owner: the first look at a run decides whether the client is allowed to see it.

// RunHead is what identifies a run, and where it is.
type RunHead struct {
	RunID     uuid.UUID
	Owner     string
	SessionID string
	AgentID   string
	// Status, Streamed and Attempt have the same meaning as in Run.
	Status   string
	Streamed bool
	Attempt  int
}

const headColumns = `run_id, owner, session_id, agent_id, status, streamed, attempt`

// RunHead returns the head of the first run that matches. It is fault.NotFound if there is none that the viewer can
// see.
func (db *DB) RunHead(ctx context.Context, v Viewer, q RunQuery) (RunHead, error) {
	where, args, ok := q.where(v)
	if !ok {
		return RunHead{}, fmt.Errorf("run: %w", fault.NotFound)
	}
	heads, err := collect[RunHead](ctx, db, `SELECT `+headColumns+`
		FROM keyway.runs WHERE `+where+` ORDER BY seq LIMIT 1`, args)
	if err != nil {
		return RunHead{}, fmt.Errorf("run: %w", kindOf(err))
	}
	if len(heads) == 0 {
		return RunHead{}, fmt.Errorf("run: %w", fault.NotFound)
	}
	return heads[0], nil
}

// RunInProgress returns the head of the newest run of the agent in the owner's session that is in progress and has
// events. It is fault.NotFound if there is none.
func (db *DB) RunInProgress(ctx context.Context, owner, sessionID, agentID string) (RunHead, error) {
	if !ValidID(sessionID, MaxSessionID) {
		return RunHead{}, fmt.Errorf("run in progress: %w", fault.NotFound)
	}
	heads, err := collect[RunHead](ctx, db, `SELECT `+headColumns+` FROM keyway.runs
		WHERE owner = @owner AND session_id = @session_id AND agent_id = @agent_id AND streamed
			AND status IN ('PENDING', 'RUNNING')
		ORDER BY seq DESC LIMIT 1`,
		pgx.NamedArgs{"owner": owner, "session_id": sessionID, "agent_id": agentID})
	if err != nil {
		return RunHead{}, fmt.Errorf("run in progress: %w", kindOf(err))
	}
	if len(heads) == 0 {
		return RunHead{}, fmt.Errorf("run in progress: %w", fault.NotFound)
	}
	return heads[0], nil
}

// HasRuns reports whether the owner's session has a run of the agent.
func (db *DB) HasRuns(ctx context.Context, owner, sessionID, agentID string) (bool, error) {
	found, err := collect[struct{ Found bool }](ctx, db, `SELECT EXISTS (SELECT FROM keyway.runs
		WHERE owner = @owner AND session_id = @session_id AND agent_id = @agent_id) AS found`,
		pgx.NamedArgs{"owner": owner, "session_id": sessionID, "agent_id": agentID})
	if err != nil {
		return false, fmt.Errorf("runs of a session: %w", kindOf(err))
	}
	return found[0].Found, nil
}

// Progress is how far a run is.
type Progress struct {
	RunID uuid.UUID
	// Status and Attempt have the same meaning as in Run.
	Status  string
	Attempt int
	// Last is the index of the last stored event of the attempt, or -1 if there is none. When Status is that of an ended
	// or paused run, all of its events up to Last are stored.
	Last int
}

// Progress reads how far the runs are, in any order. Runs that do not exist are left out. It reads one row of each run
// and one of its events, however many there are.
func (db *DB) Progress(ctx context.Context, runs []uuid.UUID) ([]Progress, error) {
	list, err := collect[Progress](ctx, db, `
		SELECT r.run_id, r.status, r.attempt, COALESCE(e.last, -1) AS last
		FROM keyway.runs r LEFT JOIN LATERAL (
			SELECT first_index + count - 1 AS last FROM keyway.run_events
			WHERE run_id = r.run_id AND attempt = r.attempt ORDER BY first_index DESC LIMIT 1
		) AS e ON true
		WHERE r.run_id = ANY(@runs::uuid[])`,
		pgx.NamedArgs{"runs": runs})
	if err != nil {
		return nil, fmt.Errorf("progress of %d runs: %w", len(runs), kindOf(err))
	}
	return list, nil
}

// EventCounts counts the stored events of a run's present attempt.
type EventCounts struct {
	Progress
	// Total is the number of events, and Missed the number of those with an index above the given one.
	Total, Missed int
}

// EventCounts returns the counts of one run, all of the same moment. after is at least -1. It is fault.NotFound if the
// run does not exist.
func (db *DB) EventCounts(ctx context.Context, id uuid.UUID, after int) (EventCounts, error) {
	list, err := collect[EventCounts](ctx, db, `
		SELECT r.run_id, r.status, r.attempt, COALESCE(max(e.first_index + e.count - 1), -1) AS last,
			COALESCE(sum(e.count), 0) AS total,
			COALESCE(sum(LEAST(e.count, e.first_index + e.count - 1 - @after::integer))
				FILTER (WHERE e.first_index + e.count - 1 > @after::integer), 0) AS missed
		FROM keyway.runs r LEFT JOIN keyway.run_events e ON e.run_id = r.run_id AND e.attempt = r.attempt
		WHERE r.run_id = @run_id GROUP BY r.run_id`,
		pgx.NamedArgs{"run_id": id, "after": after})
	if err != nil {
		return EventCounts{}, fmt.Errorf("count events of run %s: %w", id, kindOf(err))
	}
	if len(list) == 0 {
		return EventCounts{}, fmt.Errorf("count events of run %s: %w", id, fault.NotFound)
	}
	return list[0], nil
}

// News is what Follow has read.
type News struct {
	// Found is false if the run does not exist. Then all other fields are empty.
	Found bool
	// Status and Attempt have the same meaning as in Run.
	Status  string
	Attempt int
	// Frames are stored events, in order. It is empty if Attempt is not the given one.
	Frames []Frames
}

// Frames are consecutive events of one row of run_events, as in Events.
type Frames struct {
	First, Count int
	// Data are the server-sent events. Several readers share it, so it must not be changed.
	Data []byte
}

// Follow ends with the row of events in which one of these limits is exceeded, so it returns at least one row and,
// unless a row is larger, not much more than followBytes.
const (
	followRows  = 256
	followBytes = 128 << 10
)

// Follow returns the next stored events of an attempt at a run, from the row that holds the first event with an index
// above after. That row may begin with earlier events. A call reads a limited number of bytes, so the caller repeats it
// from the last event, until it has all events.
func (db *DB) Follow(ctx context.Context, id uuid.UUID, attempt, after int) (n News, err error) {
	type answer struct {
		Status      string
		Attempt     int
		InSession   bool
		First, Size *int // NULL if there are no such events.
		Frames      []byte
	}
	// The innermost subquery finds the row that holds the event after, with the primary key. Without it PostgreSQL would
	// read all rows of the run for the condition on the sum, each time. octet_length reads no frames, only their length.
	list, err := collect[answer](ctx, db.bulk, `
		SELECT r.status, r.attempt, r.state_in_session AS in_session, e.first_index AS first, e.count AS size, e.frames
		FROM keyway.runs r LEFT JOIN LATERAL (
			SELECT first_index, count, frames FROM (
				SELECT first_index, count, frames,
					sum(octet_length(frames)) OVER (ORDER BY first_index) - octet_length(frames) AS earlier
				FROM (
					SELECT first_index, count, frames FROM keyway.run_events
					WHERE run_id = @run_id AND attempt = @attempt AND first_index + count - 1 > @after
						AND first_index >= COALESCE((
							SELECT CASE attempt WHEN @attempt THEN first_index END FROM keyway.run_events
							WHERE run_id = @run_id AND first_index <= @after ORDER BY first_index DESC LIMIT 1), 0)
					ORDER BY first_index LIMIT @rows
				) AS next
			) AS sized WHERE earlier < @bytes
		) AS e ON r.attempt = @attempt
		WHERE r.run_id = @run_id ORDER BY e.first_index`,
		pgx.NamedArgs{"run_id": id, "attempt": attempt, "after": after, "rows": followRows, "bytes": followBytes})
	if err != nil {
		return News{}, fmt.Errorf("follow run %s: %w", id, kindOf(err))
	}
	for _, r := range list {
		n.Found, n.Status, n.Attempt = true, r.Status, r.Attempt
		if r.First != nil && r.Size != nil {
			if r.InSession {
				if r.Frames, err = db.completeState(ctx, id, r.Frames); err != nil {
					return News{}, err
				}
			}
			n.Frames = append(n.Frames, Frames{First: *r.First, Count: *r.Size, Data: r.Frames})
		}
	}
	return n, nil
}
