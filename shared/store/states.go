package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
)

// A run and its last event show the state of the session. A small state is copied into both. A larger one is stored in
// the session only, and the run refers to it; otherwise a request of a few bytes would store the state several times.
// See docs/adr/0021.

// maxCopiedState is the size in bytes of the largest state that is copied, about as much as the rest of a small run.
const maxCopiedState = "1024"

// runState reads the state of a run, which may be in its session. The table must have the alias r.
const runState = `CASE WHEN state_in_session THEN (
	SELECT s.state FROM keyway.sessions s WHERE s.owner = r.owner AND s.session_id = r.session_id
) ELSE session_state END AS session_state`

// mergedState is the state of the session s of a run after the merge with @state.
const mergedState = `CASE WHEN @state::jsonb IS NULL THEN COALESCE(s.state, '{}')
	ELSE keyway.merge_objects(COALESCE(s.state, '{}'), @state::jsonb) END`

// fits returns the condition that a new state is small enough to replace the old one. A state that is too large
// already, from an earlier version or from before the bound was lowered, may be replaced by one that is not larger. The
// bound is checked by the statement that stores the state, so that two changes at the same time can't exceed it.
func fits(state, old string) string {
	return `(@max_state::bigint = 0 OR octet_length((` + state + `)::text) <= @max_state
		OR octet_length((` + state + `)::text) <= octet_length((` + old + `)::text))`
}

// stateTooLarge returns the error for a state that fits has refused, or nil if there is another reason.
func (db *DB) stateTooLarge(ctx context.Context, r Run, most int) error {
	if r.SessionState == nil || most == 0 {
		return nil
	}
	var size int
	args := pgx.NamedArgs{"owner": r.Owner, "session_id": r.SessionID, "state": r.SessionState}
	err := db.queryRow(ctx, `SELECT octet_length((`+mergedState+`)::text)
		FROM (VALUES (1)) AS one LEFT JOIN keyway.sessions s ON s.owner = @owner AND s.session_id = @session_id`,
		args).Scan(&size)
	switch {
	case err != nil:
		return fmt.Errorf("size of a state: %w", kindOf(err))
	case size <= most:
		return nil
	}
	return stateFault(most, size)
}

// stateFault is the error for a state that would be too large.
func stateFault(most, size int) error {
	return fault.Fields(fault.Field{
		Type: "value_error", Loc: []any{"body", "session_state"}, Msg: bound.SessionState.Exceeded(most, size),
		Ctx: fault.Members{{Name: "max_length", Value: most}, {Name: "actual_length", Value: size}},
	})
}

// EmptyState stands for the state in the stored event of a run that refers to the state of its session.
var EmptyState = json.RawMessage("{}")

// completeState puts the state of the session into the last event of a run, if frames contain it.
func (db *DB) completeState(ctx context.Context, id uuid.UUID, frames []byte) ([]byte, error) {
	const last, member = "event: RunCompleted\n", `"session_state":`
	from := bytes.LastIndex(frames, []byte(last))
	if from < 0 {
		return frames, nil
	}
	// The text of an answer can't contain the member: its quotes are escaped there.
	at := bytes.LastIndex(frames[from:], []byte(member+string(EmptyState)))
	if at < 0 {
		return frames, nil
	}
	var state json.RawMessage
	err := db.queryRow(ctx, `SELECT s.state FROM keyway.runs r JOIN keyway.sessions s USING (owner, session_id)
		WHERE r.run_id = @run_id`, pgx.NamedArgs{"run_id": id}).Scan(&state)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && state == nil {
		return frames, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state of run %s: %w", id, kindOf(err))
	}
	var compact bytes.Buffer // as the event was sent
	if err := json.Compact(&compact, state); err != nil {
		return nil, fmt.Errorf("state of run %s: %w", id, err)
	}
	at += from + len(member)
	return bytes.Join([][]byte{frames[:at], compact.Bytes(), frames[at+len(EmptyState):]}, nil), nil
}
