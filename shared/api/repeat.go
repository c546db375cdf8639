package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"time"

	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// request returns the idempotency key and a digest of all parsed fields and files.
// Without a key it is empty, and the request always starts a new run. The digest
// distinguishes a repeated request from another request with the same key, which is
// answered 409.
func (in createRun) request() store.Request {
	key := in.Key
	if key == "" {
		return store.Request{}
	}
	// The key finds the run; the digest compares what the requests ask for. encoding/json
	// writes struct fields in order, so equal requests have equal digests. A new field of
	// createRun changes the digests of requests that were made before an update.
	in.Key = ""
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(in); err != nil {
		panic(err) // strings, numbers and bytes always encode
	}
	return store.Request{Key: key, Digest: h.Sum(nil)}
}

// repeat answers a repeated request with the run that the first one started: its events
// from the first one, its result, or 202. It starts no run. It reads the run without a
// filter by owner, because the key was already looked up within the owner's runs.
//
// A request for JSON waits for the end of the run, as the first one did. If the deadline
// of the request comes first, the answer is 202.
func (a Runs) repeat(w http.ResponseWriter, r *request, in createRun, row store.Run) error {
	logging.Note(r.Context(), "repeats", row.RunID.String())
	w.Header().Set("Idempotent-Replayed", "true")
	q := store.RunQuery{RunID: row.RunID.String(), SessionID: row.SessionID}
	switch everyone := (store.Viewer{All: true}); {
	case in.Stream:
		f := follower{
			db: a.DB, runner: a.Runner, viewer: everyone, query: q, after: -1, attempt: row.Attempt, plain: true,
		}
		return f.follow(r.Context(), w, row)
	case !in.Background:
		var err error
		if row, err = waitForEnd(r.Context(), a.DB, everyone, q, row); err != nil {
			return notFound(err, "Run not found")
		}
	}
	if in.Background || !wire.Ended(row.Status) {
		return accept(w, r, wire.Accepted{RunID: q.RunID, SessionID: row.SessionID, Status: row.Status})
	}
	return writeJSON(w, http.StatusOK, runOf(row))
}

// waitForEnd reads the run every pollInterval until it has ended or is paused, or until
// ctx ends. It returns the last row that it read. Errors of the database are ignored
// once ctx has ended: the deadline, not the database, caused them.
func waitForEnd(
	ctx context.Context, db *store.DB, v store.Viewer, q store.RunQuery, row store.Run,
) (store.Run, error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !wire.Ended(row.Status) {
		select {
		case <-ctx.Done():
			return row, nil
		case <-tick.C:
		}
		next, err := db.Run(ctx, v, q)
		switch {
		case err == nil:
			row = next
		case ctx.Err() == nil:
			return row, err
		}
	}
	return row, nil
}
