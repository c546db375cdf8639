//go:build unix

package main

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"
)

// request is one request of the load to start a run, and what its client learned about it. A client that gets no answer
// may send it again if it has a key.
type request struct {
	// Kind is one of the kinds in load.go.
	Kind   string
	Script script
	// Session is the session of the run, and Key the Idempotency-Key, or empty.
	Session, Key string
	// Streamed and Background are the fields of the form.
	Streamed, Background bool

	mu sync.Mutex
	learned
}

// learned is what the client of a request has learned.
type learned struct {
	// Runs are the ids of the runs that the server named. More than one is an error.
	Runs []string
	// Statuses are the HTTP statuses of the requests to start the run. 0: no answer.
	Statuses []int
	// End is the status with which the run ended, or PAUSED, or empty, and Ended when the client received it.
	End   string
	Ended time.Time
	// Cancelled is when the server acknowledged a cancellation, Deleted when it acknowledged that the session was deleted.
	Cancelled, Deleted time.Time
	// Asked means that the client tried to delete the session.
	Asked bool
	// Tools are the calls about which a person decides, as the server listed them.
	Tools json.RawMessage
	// Continued means that the server acknowledged that the run continues.
	Continued bool
	// View is what the client has of the events.
	View view
	// Followers are what other clients of the run had when they left.
	Followers []view
	// Over means that the client has left: it has seen the end or gave up.
	Over bool
}

// note changes what the client learned.
func (r *request) note(change func(*learned)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.learned)
}

// copy is a copy for the audit.
func (r *request) copy() *request {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &request{
		Kind: r.Kind, Script: r.Script, Session: r.Session, Key: r.Key, Streamed: r.Streamed, Background: r.Background,
		learned: r.learned,
	}
	out.Runs, out.Statuses = slices.Clone(r.Runs), slices.Clone(r.Statuses)
	out.View.Frames = maps.Clone(r.View.Frames)
	return out
}

// run is the id of the run, or empty as long as no server has named it.
func (r *request) run() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.Runs) == 0 {
		return ""
	}
	return r.Runs[0]
}

// inProgress reports whether the run was acknowledged and its end not seen yet.
func (r *request) inProgress() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.Runs) > 0 && r.End == "" && !r.Over
}

// acknowledged notes the id of the run.
func (h *learned) acknowledged(run string) {
	if run != "" && !slices.Contains(h.Runs, run) {
		h.Runs = append(h.Runs, run)
	}
}

// ended notes the end of the run, or its pause.
func (h *learned) ended(status string) {
	h.End = status
	if status != "PAUSED" && h.Ended.IsZero() {
		h.Ended = time.Now()
	}
}
