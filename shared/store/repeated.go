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

// Request tells a request to begin a run from others of its owner to the same agent.
type Request struct {
	Key    string // the caller's; "": it is like no other
	Digest []byte // of all that it asks for
}

// Repeated is the error of BeginRun for a request that came before: its run.
type Repeated struct{ Run Run }

func (r *Repeated) Error() string { return "the request began run " + r.Run.RunID.String() + " before" }

// repeats finds out what a key that is taken means for a run that can't begin.
// It is nil for any other error.
func (db *DB) repeats(ctx context.Context, r Run, q Request, err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pg.ConstraintName != "runs_idempotency" {
		return nil
	}
	type holder struct {
		Run
		Same bool
	}
	list, err := collect[holder](ctx, db, `
		SELECT `+runColumns+`, request_digest = @digest::bytea AS same FROM keyway.runs
		WHERE owner = @owner AND agent_id = @agent_id AND idempotency_key = @key`,
		pgx.NamedArgs{"owner": r.Owner, "agent_id": r.AgentID, "key": q.Key, "digest": q.Digest})
	switch {
	case err == nil && len(list) == 0: // it was deleted this moment
		e := fault.Public(fault.Unavailable, "The run of this Idempotency-Key is being deleted, try again", nil)
		e.RetryAfter = time.Second
		return e
	case err != nil:
		return fmt.Errorf("run of an idempotency key: %w", kindOf(err))
	case !list[0].Same:
		return fault.Public(fault.Conflict, "Idempotency-Key was already used for another request to this agent; send the same request, or another key", nil)
	}
	return &Repeated{list[0].Run}
}
