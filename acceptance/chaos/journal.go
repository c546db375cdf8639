//go:build unix

package main

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// ask is one request to the model.
type ask struct {
	// Script is the run's script, and Step how many steps the conversation had before: 0 is the first request of a run.
	Script script
	Step   int
	// Process is the process that asked.
	Process string
	// From and To are when the request arrived and when the answer was written. Whole means that it was written to its
	// end.
	From, To time.Time
	Whole    bool
	// Wrong describes what is wrong with the conversation, such as a message that it has twice.
	Wrong string
}

// final reports whether the answer ends the run.
func (a ask) final() bool { return a.Step == a.Script.Rounds }

// call is one call of a tool.
type call struct {
	// Key identifies the call by its arguments.
	Key, Tool string
	// Run and ID are the ids that the tool was called with. A tool that is called without them leaves them empty.
	Run, ID string
	Process string
	At      time.Time
}

// fault is something that the harness did to the processes, their connections or the database.
type fault struct {
	// Kind is one of the names in faults.go.
	Kind string
	// Process is the process that it was done to, or empty if it was done to all.
	Process string
	// From and To are when it began and ended. A crash has no end.
	From, To time.Time
	// Running is how many runs of the load were in progress. Hit is how many requests the process had open to the model
	// and the tools.
	Running, Hit int
}

// interrupts reports whether the process can't have continued its runs afterwards, so that another process has to
// repeat a step.
func (f fault) interrupts() bool {
	switch f.Kind {
	case killed, terminated:
		return true
	}
	return f.Process != "" && !f.To.IsZero() && f.To.Sub(f.From) >= longEnough
}

// longEnough is how long a process must be stopped, or be without a database, until it may have to give up its runs. A
// lease lasts 60 seconds, and a process gives a run up some time before its end.
const longEnough = 30 * time.Second

// journal collects what happens in a phase. The harness writes it, and the audit reads it afterwards.
type journal struct {
	mu       sync.Mutex
	asks     []*ask
	calls    []call
	faults   []fault
	requests []*request
	// open counts the requests to the model and the tools that a process has open.
	open map[string]int
	// ended has when a run was first seen to have ended, by its id.
	ended map[string]time.Time
}

func newJournal() *journal {
	return &journal{open: map[string]int{}, ended: map[string]time.Time{}}
}

// began notes a request to the model. The caller calls the result when it has answered.
func (j *journal) began(a *ask) (done func(whole bool)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a.From = time.Now()
	j.asks = append(j.asks, a)
	j.open[a.Process]++
	return func(whole bool) {
		j.mu.Lock()
		defer j.mu.Unlock()
		a.To, a.Whole = time.Now(), whole
		j.open[a.Process]--
	}
}

// called notes a call of a tool. The caller calls the result when it has answered.
func (j *journal) called(c call) (done func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c.At = time.Now()
	j.calls = append(j.calls, c)
	j.open[c.Process]++
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.open[c.Process]--
	}
}

// injected notes a fault and returns a function that notes its end.
func (j *journal) injected(kind, process string) (over func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f := fault{Kind: kind, Process: process, From: time.Now(), Running: j.running(), Hit: j.open[process]}
	j.faults = append(j.faults, f)
	i := len(j.faults) - 1
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.faults[i].To = time.Now()
	}
}

// openOf counts the requests to the model and the tools that a process has open.
func (j *journal) openOf(process string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.open[process]
}

// running counts the requests whose run was acknowledged and has not ended. The caller holds mu.
func (j *journal) running() (n int) {
	for _, r := range j.requests {
		if r.inProgress() {
			n++
		}
	}
	return n
}

// requested adds a request of the load.
func (j *journal) requested(r *request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.requests = append(j.requests, r)
}

// sawEnd notes that a run has ended by now.
func (j *journal) sawEnd(run string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, known := j.ended[run]; !known {
		j.ended[run] = time.Now()
	}
}

// observed is the part of the evidence that the journal has.
func (j *journal) observed() evidence {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := evidence{Calls: slices.Clone(j.calls), Faults: slices.Clone(j.faults), Ended: maps.Clone(j.ended)}
	for _, a := range j.asks {
		e.Asks = append(e.Asks, *a)
	}
	for _, r := range j.requests {
		e.Requests = append(e.Requests, r.copy())
	}
	return e
}
