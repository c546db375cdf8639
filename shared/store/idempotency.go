package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Request identifies a request to start a run for idempotency, within one owner and one agent. A client that lost
// the response sends the request again with the same key and gets the run of the first request instead of a second
// run. The key is stored in the run's row, in a unique index, so that the database decides between two requests at
// the same time. It is valid as long as the row exists.
type Request struct {
	// Key is the client's Idempotency-Key. "" means none: the request is never a repetition.
	Key string
	// Digest is a digest of everything that the request asks for. It distinguishes a repetition from another request
	// with the same key.
	Digest []byte
}

// Repeated is the error of BeginRun and ContinueRun for a request that was sent before.
type Repeated struct {
	// Run is the run that the first request started or continued.
	Run RunHead
	// First is the index of the first event that the first request caused.
	First int
}

func (r *Repeated) Error() string {
	return "the request has already started or continued run " + r.Run.RunID.String()
}

// lostRace is an expression of BeginRun's statement that divides by zero if the session was changed and the run was not
// added: another statement has added a run of the same id or key in the meantime. The change of the session must not
// stay, and only an error takes it back. PostgreSQL writes errors into its log, and the text of this one holds no data
// of the caller, unlike that of a unique index.
const lostRace = `1 / (1 + (SELECT count(*) FROM added) - (SELECT count(*) FROM session))`

// isLostRace reports whether err is the division by zero of lostRace. Nothing else in that statement divides.
func isLostRace(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "22012" // division_by_zero
}

// repeated returns *Repeated, or fault.Conflict if the request that used the key of q was another one.
func (db *DB) repeated(ctx context.Context, r Run, q Request) error {
	type keyHolder struct {
		RunHead
		Same bool
	}
	list, err := collect[keyHolder](ctx, db, `
		SELECT `+headColumns+`, request_digest = @digest::bytea AS same FROM keyway.runs
		WHERE owner = @owner AND agent_id = @agent_id AND idempotency_key = @key`,
		pgx.NamedArgs{"owner": r.Owner, "agent_id": r.AgentID, "key": q.Key, "digest": q.Digest})
	switch {
	case err == nil && len(list) == 0: // The run was deleted between the two statements.
		return errChanged
	case err != nil:
		return fmt.Errorf("run of an idempotency key: %w", kindOf(err))
	case !list[0].Same:
		return ErrKeyInUse
	}
	return &Repeated{Run: list[0].RunHead}
}

// errChanged is the error for a request that a statement has refused because of something that is not there any more:
// the run of its idempotency key, or a large state.
var errChanged = &fault.Error{
	Kind: fault.Unavailable, RetryAfter: time.Second,
	Detail: "Another request has just changed what this one depends on, try again",
}

// ErrKeyInUse is the error for a key that belongs to another request. It is fault.Conflict.
var ErrKeyInUse = fault.Public(fault.Conflict, "Idempotency-Key was already used for another request to this agent; "+
	"send the same request, or another key", nil)

// continuedBefore returns *Repeated or fault.Conflict if the key of q has continued the run before, and nil otherwise.
func (db *DB) continuedBefore(ctx context.Context, r Run, q Request) error {
	type continuation struct {
		RunHead
		Same       bool
		FirstIndex int
	}
	list, err := collect[continuation](ctx, db, `
		SELECT `+headColumns+`, c.digest = @digest::bytea AS same, c.first_index
		FROM keyway.runs r JOIN keyway.continuations c USING (run_id) WHERE run_id = @run_id AND c.key = @key`,
		pgx.NamedArgs{"run_id": r.RunID, "key": q.Key, "digest": q.Digest})
	switch {
	case err != nil:
		return fmt.Errorf("run of an idempotency key: %w", kindOf(err))
	case len(list) == 0:
		return nil
	case !list[0].Same:
		return ErrKeyInUse
	}
	return &Repeated{Run: list[0].RunHead, First: list[0].FirstIndex}
}
