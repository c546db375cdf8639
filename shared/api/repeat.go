package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/follow"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// requestOf returns the idempotency key and a digest of all parsed fields and files. in is
// the input without its key. Without a key the request is empty, and is never a repeated
// one. The digest distinguishes a repeated request from another request with the same key,
// which is answered 409.
func requestOf(key string, in any) store.Request {
	if key == "" {
		return store.Request{}
	}
	// The key finds the run; the digest compares what the requests ask for. encoding/json
	// writes struct fields in order, so equal requests have equal digests. A new field of an
	// input changes the digests of requests that were made before an update.
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(in); err != nil {
		panic(err) // strings, numbers and bytes always encode
	}
	return store.Request{Key: key, Digest: h.Sum(nil)}
}

// repeat answers a repeated request with the run that the first one started or continued:
// its events from the first one that the request caused, its result, or 202 for
// background. It starts and continues no run. It reads the run without a filter by owner,
// because the key was looked up within the owner's runs.
//
// A request for JSON waits for the end of the run, as the first one did. If the deadline
// of the request comes first, the answer is 202.
func (a Runs) repeat(w http.ResponseWriter, r *request, earlier *store.Repeated, streamed, background bool) error {
	if streamed {
		return a.repeatStream(w, r, earlier, nil)
	}
	row := earlier.Run
	noteRepeat(w, r, earlier)
	ctx, stop := a.whileValid(r)
	defer stop()
	status := row.Status
	if !background {
		var whole *store.Run
		var err error
		if whole, status, err = a.endOf(ctx, r, row); err != nil {
			return notFound(err, "Run not found")
		}
		if whole != nil {
			return writeJSON(w, http.StatusOK, runOf(*whole))
		}
		if err := endedToken(ctx); err != nil {
			return err
		}
	}
	return accept(w, r, wire.Accepted{RunID: row.RunID.String(), SessionID: row.SessionID, Status: status})
}

// repeatStream answers a repeated request with the stream of the first one, in the protocol of a door, or in
// AgentOS's if to is nil.
func (a Runs) repeatStream(w http.ResponseWriter, r *request, earlier *store.Repeated, to encoder) error {
	row := earlier.Run
	noteRepeat(w, r, earlier)
	if to != nil {
		setIDs(w, row.RunID.String(), row.SessionID)
	}
	ctx, stop := a.whileValid(r)
	defer stop()
	f := follower{
		runs: a, run: row.RunID, caller: callerKey(r), streamed: row.Streamed, attempt: row.Attempt,
		after: earlier.First - 1, plain: true, to: to,
	}
	return f.follow(ctx, w)
}

// noteRepeat marks the answer and the line in the request log as those of a repeated request.
func noteRepeat(w http.ResponseWriter, r *request, earlier *store.Repeated) {
	logging.Note(r.Context(), "repeats", earlier.Run.RunID.String())
	w.Header().Set("Idempotent-Replayed", "true")
}

// endOf waits until the run has ended or is paused, and returns its row, which it reads once. When ctx ends before,
// there is only the newest status, and no error: the deadline is no error of the run. The error is fault.NotFound when
// the run is deleted meanwhile.
func (a Runs) endOf(ctx context.Context, r *request, run store.RunHead) (row *store.Run, status string, err error) {
	status = run.Status
	var f *follow.Follower
	for known := (store.Progress{}); ; {
		if wire.Ended(status) {
			// A paused run may be continued before its row is read; then the loop waits again.
			whole, err := a.DB.Run(ctx, store.Viewer{All: true}, store.RunQuery{RunID: run.RunID.String()})
			switch {
			case ctx.Err() != nil:
				return nil, status, nil
			case err != nil:
				return nil, status, err
			case wire.Ended(whole.Status):
				return &whole, status, nil
			}
			status = whole.Status
		}
		if f == nil {
			if f, err = a.Follow.Follow(run.RunID, callerKey(r)); err != nil {
				return nil, status, err
			}
			defer f.Close()
		}
		next, found, err := f.Next(ctx, known)
		switch {
		case ctx.Err() != nil:
			return nil, status, nil
		case err != nil:
			return nil, status, err
		case !found:
			return nil, status, fault.NotFound
		}
		known, status = next, next.Status
	}
}

// callerKey distinguishes callers, for the bound of what one of them may follow. It is empty for a token without a
// subject.
func callerKey(r *request) string {
	if r.principal.Subject == "" {
		return ""
	}
	return r.principal.Realm + "\x00" + r.principal.Subject
}
