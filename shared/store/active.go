package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// MaxCancelled is how many runs one call of RequestCancelAll marks at most.
const MaxCancelled = 1000

// ActiveRun is a run that has not ended: it is PENDING, RUNNING or PAUSED.
type ActiveRun struct {
	RunID     uuid.UUID
	Owner     string
	SessionID string
	AgentID   string
	Status    string
	CreatedAt time.Time
	Attempt   int
}

// ActiveQuery selects runs that have not ended. Fields with their zero value do not restrict the selection.
type ActiveQuery struct {
	Owner, AgentID string
}

// where returns the condition of a query.
func (q ActiveQuery) where(v Viewer) (string, pgx.NamedArgs) {
	sql, args, _ := RunQuery{Owner: q.Owner, AgentID: q.AgentID}.where(v)
	return "finished_at IS NULL AND " + sql, args
}

// ActiveRuns returns one page of the runs that have not ended and that the viewer can see, the oldest first, and the
// number of all of them. limit and page are at least 1.
func (db *DB) ActiveRuns(ctx context.Context, v Viewer, q ActiveQuery, limit, page int) (
	runs []ActiveRun, total int, err error,
) {
	where, args := q.where(v)
	runs, total, err = paged(ctx, db, pgx.RowToStructByName[ActiveRun], listing{
		on:      db.pages,
		columns: "run_id, owner, session_id, agent_id, status, created_at, attempt", from: "keyway.runs WHERE " + where,
		order: "seq", limit: limit, page: page,
	}, args)
	if err != nil {
		return nil, 0, fmt.Errorf("active runs: %w", kindOf(err))
	}
	return runs, total, nil
}

// Marked is a run that RequestCancelAll has marked.
type Marked struct {
	RunID uuid.UUID
	// Waits reports that no process executes the run, so that it ends when a process claims it.
	Waits bool
}

// RequestCancelAll does what RequestCancel does to at most MaxCancelled runs that have not ended and that the viewer
// can see, the oldest first. It returns those that are marked now, also those that an earlier call has marked: so the
// answer is the same if the statement is repeated. Runs without the mark come first, and more reports that the call has
// left some of them.
func (db *DB) RequestCancelAll(ctx context.Context, v Viewer, q ActiveQuery) (marked []Marked, more bool, err error) {
	return db.requestCancel(ctx, v, q, MaxCancelled)
}

// requestCancel is RequestCancelAll for another bound.
func (db *DB) requestCancel(ctx context.Context, v Viewer, q ActiveQuery, most int) (
	marked []Marked, more bool, err error,
) {
	where, args := q.where(v)
	args["most"] = most
	rows, err := collect[struct {
		Marked
		More bool
	}](ctx, db.bulk, `
		WITH found AS MATERIALIZED (
			SELECT run_id AS id, cancel_requested AS already, row_number() OVER (ORDER BY cancel_requested, seq) AS place
			FROM keyway.runs WHERE `+where+` ORDER BY cancel_requested, seq LIMIT @most::int + 1
		), held AS MATERIALIZED ( -- in the order of DeleteSessions; FOR NO KEY UPDATE could deadlock with it, as in Pulse
			SELECT run_id AS id FROM keyway.runs WHERE run_id IN (SELECT id FROM found WHERE place <= @most::int)
			ORDER BY run_id FOR UPDATE
		)`+markCancelled+`
		FROM held WHERE run_id = held.id AND finished_at IS NULL
		RETURNING run_id, status = 'PENDING' AS waits,
			EXISTS (SELECT FROM found WHERE place > @most::int AND NOT already) AS more`, args)
	if err != nil {
		return nil, false, fmt.Errorf("cancel all runs: %w", kindOf(err))
	}
	for _, r := range rows {
		marked, more = append(marked, r.Marked), r.More
	}
	return marked, more, nil
}
