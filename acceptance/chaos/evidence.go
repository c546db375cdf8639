//go:build unix

package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"
)

// evidence is everything that the audit reads.
type evidence struct {
	Asks     []ask
	Calls    []call
	Faults   []fault
	Requests []*request
	// Ended has when a run was first seen to have ended.
	Ended map[string]time.Time
	// Rows are the runs in the database, Events their stored events and Usage the totals of the sessions.
	Rows   []row
	Events []eventRow
	Usage  map[string]int
	// Replays are what resume returns for a run at the end, by its id.
	Replays map[string]view
	// Expired are runs that were seen without a live lease for longer than any server takes to find them.
	Expired []string
	// Panics are the lines of the logs with which a process reports a panic.
	Panics []string
	// Failures are those of the harness itself.
	Failures []string
}

// row is a run in the database.
type row struct {
	ID, Session, Status, Input string
	Content, Key               *string
	Streamed, CancelRequested  bool
	Attempt, Losses            int
	// Lease is how many seconds remain of the lease, by the clock of PostgreSQL. nil: there is none.
	Lease    *float64
	Metrics  json.RawMessage
	Messages json.RawMessage
}

// script is that of the run's message.
func (r row) script() script { s, _ := parseScript(r.Input); return s }

// tokens is the number of tokens in the run's metrics.
func (r row) tokens() int {
	var m struct {
		Total int `json:"total_tokens"`
	}
	_ = json.Unmarshal(r.Metrics, &m)
	return m.Total
}

// eventRow is a row of stored events.
type eventRow struct {
	Run                   string
	Attempt, First, Count int
	Frames                string
}

// readDatabase adds what the database has.
func (e *evidence) readDatabase(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT run_id::text AS id, session_id AS session, status, input, content,
		idempotency_key AS key, streamed, cancel_requested, attempt, losses,
		extract(epoch FROM lease_until - now())::float8 AS lease, metrics, messages FROM keyway.runs ORDER BY seq`)
	if err != nil {
		return err
	}
	if e.Rows, err = pgx.CollectRows(rows, pgx.RowToStructByNameLax[row]); err != nil {
		return err
	}
	rows, err = conn.Query(ctx, `SELECT e.run_id::text AS run, e.attempt, first_index AS first, count, frames
		FROM keyway.run_events e JOIN keyway.runs r ON r.run_id = e.run_id AND r.attempt = e.attempt
		ORDER BY e.run_id, first_index`)
	if err != nil {
		return err
	}
	if e.Events, err = pgx.CollectRows(rows, pgx.RowToStructByName[eventRow]); err != nil {
		return err
	}
	rows, err = conn.Query(ctx, `SELECT session_id, sum(total_tokens)::int FROM keyway.session_usage GROUP BY 1`)
	if err != nil {
		return err
	}
	e.Usage = map[string]int{}
	var session string
	var total int
	_, err = pgx.ForEachRow(rows, []any{&session, &total}, func() error { e.Usage[session] = total; return nil })
	return err
}
