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

// request is by what the same request is known again: every field and file of it, as
// they were understood.
func (in createRun) request() store.Request {
	key := in.Key
	if key == "" {
		return store.Request{}
	}
	in.Key = ""
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(in); err != nil {
		panic(err) // texts, numbers and bytes always encode
	}
	return store.Request{Key: key, Digest: h.Sum(nil)}
}

// repeat answers a request as it was answered when it began this run. Nothing is begun.
func (a Runs) repeat(w http.ResponseWriter, r *request, in createRun, row store.Run) error {
	logging.Note(r.Context(), "repeats", row.RunID.String())
	w.Header().Set("Idempotent-Replayed", "true")
	q := store.RunQuery{RunID: row.RunID.String(), SessionID: row.SessionID}
	switch everyone := (store.Viewer{All: true}); { // the owner's key found it
	case in.Stream:
		f := follower{db: a.DB, runner: a.Runner, viewer: everyone, query: q, after: -1, attempt: row.Attempt, plain: true}
		return f.follow(r.Context(), w, row)
	case !in.Background:
		var err error
		if row, err = ended(r.Context(), a.DB, everyone, q, row); err != nil {
			return notFound(err, "Run not found")
		}
	}
	if in.Background || !wire.Ended(row.Status) {
		return accept(w, r, wire.Accepted{RunID: q.RunID, SessionID: row.SessionID, Status: row.Status})
	}
	return writeJSON(w, http.StatusOK, whole(row))
}

// ended waits for the run's end, or until this server has no more time for the request.
func ended(ctx context.Context, db *store.DB, v store.Viewer, q store.RunQuery, row store.Run) (store.Run, error) {
	tick := time.NewTicker(lookEvery)
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
