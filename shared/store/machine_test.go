package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// process is one of the two processes of a machine. It reaches PostgreSQL through a proxy that can lose an answer.
type process struct {
	db  *store.DB
	tap *wiretap.Tap
}

// execution is a leg in its process: what it has in memory. It stays in the test after the run was lost, because a
// process may learn of the loss late.
type execution struct {
	store.Leg
	process  *process
	messages []string // of the run so far
	saved    int      // how many of them a checkpoint holds
	steps    int
	index    int            // of the next event
	pending  []store.Events // not known to be stored
	tokens   int            // not added to the session yet
	left     bool           // it has paused or ended the run, or handed it over: it emits nothing more
}

// machine is one run, as the model of its states expects it to be.
type machine struct {
	t         *testing.T
	processes []*process
	legs      []*execution // of all times

	run      store.Run
	exists   bool
	status   string
	cancel   bool
	attempt  int
	leg      uuid.UUID
	expired  bool
	messages []string // of the last checkpoint or pause
	next     int      // the index of the first event after it
	events   []int    // the indices of the stored events of the present attempt
	tokens   int      // of the session
	ended    int      // how many ends were stored
}

// losing executes a statement on a process and may lose its first answer.
func losing(r *rapid.T, p *process) *store.DB {
	if rapid.IntRange(0, 9).Draw(r, "lost") == 0 { // It takes as long as many statements.
		p.tap.LoseAnswer()
	}
	return p.db
}

func (m *machine) process(r *rapid.T) *process {
	return m.processes[rapid.IntRange(0, len(m.processes)-1).Draw(r, "process")]
}

// any returns one of the legs, also one that has lost the run.
func (m *machine) any(r *rapid.T) *execution {
	if len(m.legs) == 0 {
		r.Skip("no leg")
	}
	return m.legs[rapid.IntRange(0, len(m.legs)-1).Draw(r, "leg")]
}

// holds reports whether the leg may write.
func (m *machine) holds(x *execution) bool {
	return m.exists && m.status == "RUNNING" && x.Attempt == m.attempt && x.ID == m.leg
}

// emit adds an event to the leg's last batch, or to a new one.
func (x *execution) emit() {
	frame := fmt.Sprintf("%d\n\n", x.index)
	x.pending = append(x.pending,
		store.Events{RunID: x.RunID, Attempt: x.Attempt, First: x.index, Count: 1, Frames: frame})
	x.index++
}

// stored adds the leg's pending events to those that the model expects in the table.
func (m *machine) stored(x *execution) {
	for _, e := range x.pending {
		if !slices.Contains(m.events, e.First) {
			m.events = append(m.events, e.First)
		}
	}
	x.pending = nil
}

func (m *machine) begin(r *rapid.T) {
	if m.run.RunID != uuid.Nil {
		r.Skip("one run")
	}
	p := m.process(r)
	m.run = store.Run{RunID: uuid.New(), Owner: "ann", SessionID: uuid.NewString(), AgentID: "a", Status: "RUNNING",
		Attempt: 1, Streamed: true, CreatedAt: day, Metrics: json.RawMessage("{}")}
	x := &execution{Leg: store.Leg{RunID: m.run.RunID, Attempt: 1, ID: uuid.New()}, process: p}
	if _, err := losing(r, p).BeginRun(m.t.Context(), m.run, store.BeginOptions{Leg: &x.ID}); err != nil {
		r.Fatal(err)
	}
	m.exists, m.status, m.attempt, m.leg, m.legs = true, "RUNNING", 1, x.ID, []*execution{x}
}

func (m *machine) addEvents(r *rapid.T) {
	x := m.any(r)
	if x.left {
		r.Skip("it has left")
	}
	x.emit()
	if _, err := losing(r, x.process).AddEvents(m.t.Context(), x.pending); err != nil {
		r.Fatal(err)
	}
	if m.exists && x.Attempt == m.attempt {
		m.stored(x)
	}
}

// step is a model call or a round of tools: one message, one event, one token.
func (m *machine) step(r *rapid.T) {
	x := m.any(r)
	x.emit()
	x.messages = append(x.messages, fmt.Sprintf(`"%s-%d"`, x.ID, len(x.messages)))
	x.tokens++
	c := store.Checkpoint{Data: json.RawMessage(`{"usage":0}`), Step: x.steps, Events: x.pending, Next: x.index,
		Added: json.RawMessage(`{"messages":[` + strings.Join(x.messages[x.saved:], ",") + `]}`)}
	cancel, err := losing(r, x.process).Checkpoint(m.t.Context(), x.Leg, c)
	if !m.holds(x) {
		m.refused(r, err)
		return
	}
	if err != nil || cancel != m.cancel {
		r.Fatalf("cancel %t, want %t, %v", cancel, m.cancel, err)
	}
	x.steps++
	x.saved = len(x.messages)
	m.messages, m.next = slices.Clone(x.messages), x.index
	m.stored(x)
}

// end ends a leg in each possible way.
func (m *machine) end(r *rapid.T) {
	x := m.any(r)
	row := m.run
	row.Status = rapid.SampledFrom([]string{"PAUSED", "COMPLETED", "ERROR", "CANCELLED"}).Draw(r, "status")
	row.Messages = json.RawMessage("[" + strings.Join(x.messages, ",") + "]")
	if row.Status == "CANCELLED" {
		row.CancellationStage = new("EXECUTING")
	}
	x.emit()
	cancel, err := losing(r, x.process).FinishRun(m.t.Context(), x.Leg, row, x.pending,
		store.Usage{ModelID: "m", Total: x.tokens}, day)
	same := m.exists && x.Attempt == m.attempt && x.ID == m.leg && m.status == row.Status // It was stored before.
	switch {
	case same:
		if err != nil || cancel {
			r.Fatalf("%s again: %t %v", row.Status, cancel, err)
		}
	case !m.holds(x):
		m.refused(r, err)
	case err != nil:
		r.Fatal(err)
	case m.cancel && row.Status != "CANCELLED":
		if !cancel {
			r.Fatalf("%s although the run is to be cancelled", row.Status)
		}
		x.pending, x.index = x.pending[:len(x.pending)-1], x.index-1 // Another event becomes the last one.
	default:
		m.status, x.left = row.Status, true
		m.messages, m.next, m.tokens = slices.Clone(x.messages), x.index, m.tokens+x.tokens
		m.stored(x)
		if row.Status != "PAUSED" {
			m.ended++
		}
	}
}

// refused checks that a leg that does not hold the run wrote nothing.
func (m *machine) refused(r *rapid.T, err error) {
	if !errors.Is(err, fault.Conflict) {
		r.Fatalf("a leg that lost the run: %v", err)
	}
}

func (m *machine) handOver(r *rapid.T) {
	x := m.any(r)
	held := m.holds(x)
	err := losing(r, x.process).ReleaseRun(m.t.Context(), x.Leg)
	switch {
	case held && err != nil:
		r.Fatal(err)
	case held:
		m.status, x.left = "PENDING", true
	case m.exists && m.status == "PENDING" && x.Attempt == m.attempt && x.ID == m.leg: // It was released already.
	default:
		m.refused(r, err)
	}
}

// expire lets the time of the lease pass, as after a crash.
func (m *machine) expire(r *rapid.T) {
	if !m.exists || m.status != "RUNNING" {
		r.Skip("no lease")
	}
	if err := store.Execute(m.t.Context(), m.processes[0].db,
		"UPDATE keyway.runs SET lease_until = now() - interval '1 second' WHERE status = 'RUNNING'"); err != nil {
		r.Fatal(err)
	}
	m.expired = true
}

func (m *machine) claim(r *rapid.T) {
	p := m.process(r)
	x := &execution{Leg: store.Leg{RunID: m.run.RunID, ID: uuid.New()}, process: p}
	row, claimed, err := losing(r, p).ClaimRun(m.t.Context(), m.run.RunID, x.ID, store.Places{})
	if want := m.exists && (m.status == "PENDING" || m.status == "RUNNING" && m.expired); err != nil || claimed != want {
		r.Fatalf("claimed %t, want %t, %v", claimed, want, err)
	}
	if !claimed {
		return
	}
	m.attempt++
	m.status, m.leg, m.expired = "RUNNING", x.ID, false
	m.events = slices.DeleteFunc(m.events, func(i int) bool { return i >= m.next })
	x.Attempt, x.index, x.messages = m.attempt, store.FirstIndex(m.attempt), slices.Clone(m.messages)
	m.legs = append(m.legs, x)
	var state struct{ Messages []json.RawMessage }
	stored := "{}"
	if row.Checkpoint != nil {
		stored = string(row.Checkpoint)
	}
	if row.Checkpoint == nil && row.Messages != nil {
		stored = `{"messages":` + string(row.Messages) + `}` // It was paused.
	}
	if err := json.Unmarshal([]byte(stored), &state); err != nil {
		r.Fatal(err)
	}
	var got []string
	for _, one := range state.Messages {
		got = append(got, string(one))
	}
	if row.Attempt != m.attempt || row.CancelRequested != m.cancel || !slices.Equal(got, m.messages) {
		r.Fatalf("attempt %d continues from %v, want %d from %v", row.Attempt, got, m.attempt, m.messages)
	}
}

func (m *machine) continues(r *rapid.T) {
	p := m.process(r)
	x := &execution{Leg: store.Leg{RunID: m.run.RunID, Attempt: m.attempt, ID: uuid.New()}, process: p,
		messages: slices.Clone(m.messages)}
	row := store.Run{RunID: m.run.RunID, Streamed: true, Checkpoint: nil}
	index, claimed, err := losing(r, p).ContinueRun(m.t.Context(), row, x.ID, store.Request{}, store.Budget{})
	if want := m.exists && m.status == "PAUSED" && !m.cancel; err != nil || claimed != want {
		r.Fatalf("continued %t, want %t, %v", claimed, want, err)
	}
	if claimed {
		if index != m.next {
			r.Fatalf("the next event is %d, want %d", index, m.next)
		}
		x.index, m.status, m.leg, m.expired = index, "RUNNING", x.ID, false
		m.legs = append(m.legs, x)
	}
}

func (m *machine) cancels(r *rapid.T) {
	found, err := losing(r, m.process(r)).RequestCancel(m.t.Context(), ann, m.run.RunID)
	if err != nil || found != m.exists {
		r.Fatalf("found %t, want %t, %v", found, m.exists, err)
	}
	switch m.status {
	case "PAUSED":
		m.status = "PENDING"
		m.cancel = true
	case "PENDING", "RUNNING":
		m.cancel = true
	}
}

func (m *machine) requeue(r *rapid.T) {
	if _, err := losing(r, m.process(r)).RequeueExpired(m.t.Context()); err != nil {
		r.Fatal(err)
	}
	if m.exists && m.status == "RUNNING" && m.expired {
		m.status, m.expired = "PENDING", false
	}
}

func (m *machine) pulse(r *rapid.T) {
	x := m.any(r)
	list, err := losing(r, x.process).Pulse(m.t.Context(), []store.Leg{x.Leg}, true)
	if err != nil {
		r.Fatal(err)
	}
	want := store.Pulse{Leg: x.Leg, Deleted: !m.exists, Lost: !m.exists || x.Attempt != m.attempt || x.ID != m.leg,
		Cancel: m.exists && m.cancel, Renewed: m.holds(x)}
	if list[0] != want {
		r.Fatalf("%+v, want %+v", list[0], want)
	}
	if want.Renewed {
		m.expired = false
	}
}

func (m *machine) deleteSession(r *rapid.T) {
	if m.run.RunID == uuid.Nil || rapid.IntRange(0, 9).Draw(r, "seldom") > 0 {
		r.Skip("seldom")
	}
	if _, err := losing(r, m.process(r)).DeleteSessions(m.t.Context(), ann, []string{m.run.SessionID}, ""); err != nil {
		r.Fatal(err)
	}
	m.exists, m.status, m.events = false, "", nil
}

// check compares the database with the model after each action.
func (m *machine) check(r *rapid.T) {
	if m.run.RunID == uuid.Nil {
		return
	}
	db := m.processes[0].db
	row, err := db.Run(m.t.Context(), admin, store.RunQuery{RunID: m.run.RunID.String()})
	if !m.exists {
		if !errors.Is(err, fault.NotFound) {
			r.Fatalf("a deleted run: %v", err)
		}
		return
	}
	if err != nil || row.Status != m.status || row.Attempt != m.attempt || m.ended > 1 {
		r.Fatalf("%s, attempt %d, want %s, %d; %d ends; %v", row.Status, row.Attempt, m.status, m.attempt, m.ended, err)
	}
	list, err := db.EventsAfter(m.t.Context(), m.run.RunID, -1)
	var got []int
	for _, e := range list {
		if e.Frames != fmt.Sprintf("%d\n\n", e.First) || e.Count != 1 {
			r.Fatalf("event %d is %q", e.First, e.Frames)
		}
		got = append(got, e.First)
	}
	slices.Sort(m.events)
	if err != nil || !slices.Equal(got, m.events) {
		r.Fatalf("the events are %v, want %v, %v", got, m.events, err)
	}
	s, err := db.Session(m.t.Context(), admin, m.run.SessionID, "")
	total := 0
	for _, u := range s.Usage {
		total += u.Total
	}
	if err != nil || total != m.tokens {
		r.Fatalf("the session has %d tokens, want %d, %v", total, m.tokens, err)
	}
}

// Two processes execute the statements of a run in a random order. Some of the answers are lost, and some of the
// statements come from legs that have lost the run. After each statement the database is as the model expects it.
func TestRunsEndOnceInEveryInterleaving(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	var both []*process
	for range 2 {
		w := tap(t, url)
		both = append(both, &process{db: storetest.Open(t, store.Options{URL: w.URL}), tap: w})
	}
	rapid.Check(t, func(r *rapid.T) {
		// Requeue and expire must find no other run.
		if err := store.Execute(t.Context(), both[0].db, "DELETE FROM keyway.sessions"); err != nil {
			r.Fatal(err)
		}
		m := &machine{t: t, processes: both}
		r.Repeat(map[string]func(*rapid.T){
			"begin": m.begin, "add events": m.addEvents, "step": m.step, "end": m.end, "hand over": m.handOver,
			"expire": m.expire, "claim": m.claim, "continue": m.continues, "cancel": m.cancels, "requeue": m.requeue,
			"pulse": m.pulse, "delete": m.deleteSession, "": m.check,
		})
	})
}
