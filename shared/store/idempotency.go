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

// Repeated is the error of BeginRun for a request that was sent before. Run is the run that it started.
type Repeated struct{ Run Run }

func (r *Repeated) Error() string {
	return "the request has already started run " + r.Run.RunID.String()
}

// repeated returns *Repeated or fault.Conflict if err means that the idempotency key of q is in use, and nil for any
// other error.
func (db *DB) repeated(ctx context.Context, r Run, q Request, err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pg.ConstraintName != "runs_idempotency" {
		return nil
	}
	type keyHolder struct {
		Run
		Same bool
	}
	list, err := collect[keyHolder](ctx, db, `
		SELECT `+runColumns+`, request_digest = @digest::bytea AS same FROM keyway.runs
		WHERE owner = @owner AND agent_id = @agent_id AND idempotency_key = @key`,
		pgx.NamedArgs{"owner": r.Owner, "agent_id": r.AgentID, "key": q.Key, "digest": q.Digest})
	switch {
	case err == nil && len(list) == 0: // The run was deleted between the two statements.
		e := fault.Public(fault.Unavailable, "The run of this Idempotency-Key is being deleted, try again", nil)
		e.RetryAfter = time.Second
		return e
	case err != nil:
		return fmt.Errorf("run of an idempotency key: %w", kindOf(err))
	case !list[0].Same:
		return fault.Public(fault.Conflict, "Idempotency-Key was already used for another request to this agent; "+
			"send the same request, or another key", nil)
	}
	return &Repeated{list[0].Run}
}
