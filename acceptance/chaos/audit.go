//go:build unix

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// violation is a promise that does not hold.
type violation struct {
	// Rule names the promise.
	Rule string
	// Run is the id of the run, or of its script if the run has no row.
	Run string
	// What is the evidence.
	What string
}

func (v violation) String() string { return fmt.Sprintf("%s: %s: %s", v.Rule, v.Run, v.What) }

// auditor looks for violations in the evidence.
type auditor struct {
	evidence
	found    []violation
	rows     map[string]row        // by id
	byScript map[string][]row      // by the script's ID
	asks     map[string][]ask      // by the script's ID, in order
	calls    map[string][]call     // by key, in order
	events   map[string][]eventRow // by run
}

// audit returns every violation in the evidence.
func audit(e evidence) []violation {
	a := auditor{
		evidence: e, rows: map[string]row{}, byScript: map[string][]row{}, asks: map[string][]ask{},
		calls: map[string][]call{}, events: map[string][]eventRow{},
	}
	for _, r := range e.Rows {
		a.rows[r.ID] = r
		a.byScript[r.script().ID] = append(a.byScript[r.script().ID], r)
	}
	asks := slices.SortedStableFunc(slices.Values(e.Asks), func(x, y ask) int { return x.From.Compare(y.From) })
	for _, q := range asks {
		a.asks[q.Script.ID] = append(a.asks[q.Script.ID], q)
	}
	for _, c := range e.Calls {
		a.calls[c.Key] = append(a.calls[c.Key], c)
	}
	for _, v := range e.Events {
		a.events[v.Run] = append(a.events[v.Run], v)
	}
	for _, r := range e.Requests {
		a.request(r)
	}
	for _, r := range e.Rows {
		a.row(r)
		a.stored(r)
	}
	for id := range a.asks {
		a.model(id)
	}
	for key := range a.calls {
		a.tool(key)
	}
	a.totals()
	a.overlap()
	for _, id := range e.Expired {
		a.report("no running row without a live lease", id, "its lease had expired for longer than a server takes to find it")
	}
	for _, line := range e.Panics {
		a.report("no process panics", "-", "%s", line)
	}
	for _, text := range e.Failures {
		a.report("the harness works", "-", "%s", text)
	}
	slices.SortFunc(a.found, func(x, y violation) int {
		return cmp.Or(cmp.Compare(x.Rule, y.Rule), cmp.Compare(x.Run, y.Run))
	})
	return a.found
}

func (a *auditor) report(rule, run, format string, args ...any) {
	a.found = append(a.found, violation{rule, run, fmt.Sprintf(format, args...)})
}

// request compares what a client learned with the row.
func (a *auditor) request(r *request) {
	id := r.Script.ID
	rows := a.byScript[id]
	if len(rows) > 1 || len(r.Runs) > 1 {
		a.report("a request starts one run", id, "rows: %d, runs that the client received: %v", len(rows), r.Runs)
	}
	for _, status := range r.Statuses {
		if !slices.Contains([]int{0, 200, 202, 429, 503}, status) {
			a.report("a request is accepted or can be tried again", id, "HTTP %d", status)
		}
	}
	a.views(r)
	if len(r.Runs) == 0 {
		a.refused(r)
		return
	}
	run := r.Runs[0]
	w, exists := a.rows[run]
	switch {
	case exists && !r.Deleted.IsZero():
		a.report("a deleted session stays deleted", run, "the run is %s", w.Status)
	case !exists && r.Kind != kindDelete:
		a.report("an acknowledged run is not lost", run, "it has no row")
	}
	if !r.Deleted.IsZero() {
		a.quietAfter(r, "nothing happens after the session is deleted", r.Deleted)
	}
	if !exists {
		return
	}
	if isEnd(r.End) && r.End != w.Status {
		a.report("a run has one end", run, "the client received %s, the row has %s", r.End, w.Status)
	}
	if !r.Cancelled.IsZero() && w.Status != "CANCELLED" && a.endedAfter(w, r.Cancelled) {
		a.report("an acknowledged cancellation ends the run as CANCELLED", run,
			"it is %s, cancel_requested %v, acknowledged %s", w.Status, w.CancelRequested, clock(r.Cancelled))
	}
	if !r.Cancelled.IsZero() {
		a.quietAfter(r, "nothing happens after a cancellation", r.Cancelled)
	}
	for _, key := range r.Script.confirmed(true) {
		if w.Status == "COMPLETED" && len(a.calls[key]) == 0 {
			a.report("a confirmed call is made", run, "%s was never called", key)
		}
	}
}

// stopsWithin is how long a model call or a tool call may still begin after a cancellation was acknowledged: the
// process reads the cancellation within half a second, and this machine may be busy.
const stopsWithin = 5 * time.Second

// quietAfter reports requests of the run that begin later than stopsWithin after the acknowledgement.
func (a *auditor) quietAfter(r *request, rule string, acknowledged time.Time) {
	for _, q := range a.asks[r.Script.ID] {
		if q.From.After(a.knownBy(q.Process, acknowledged, q.From)) {
			a.report(rule, r.Runs[0], "step %d is asked of the model by %s at %s", q.Step, q.Process, clock(q.From))
		}
	}
	for _, key := range r.Script.keys() {
		for _, c := range a.calls[key] {
			if c.At.After(a.knownBy(c.Process, acknowledged, c.At)) {
				a.report(rule, r.Runs[0], "%s is called by %s at %s", key, c.Process, clock(c.At))
			}
		}
	}
}

// knownBy is the time by which a process must have read in the database what was acknowledged at a time. A process that
// is stopped or has no database then reads it afterwards.
func (a *auditor) knownBy(process string, acknowledged, happened time.Time) time.Time {
	known := acknowledged
	for _, f := range a.Faults {
		if (f.Process == process || f.Process == "") && f.From.Before(happened) && f.To.After(known) {
			known = f.To
		}
	}
	return known.Add(stopsWithin)
}

// endedAfter reports whether the run certainly had not ended at the time at: its last answer of the model came later.
func (a *auditor) endedAfter(w row, at time.Time) bool {
	if w.CancelRequested {
		return true // the request found the run in progress
	}
	for _, q := range a.asks[w.script().ID] {
		if q.final() && q.Whole && q.To.Before(at) {
			return false
		}
	}
	return w.Status == "COMPLETED"
}

// refused checks a request that no server acknowledged. If every answer was a refusal, the run must not run.
func (a *auditor) refused(r *request) {
	id := r.Script.ID
	for _, status := range r.Statuses {
		if status != 503 && status != 429 {
			return // a lost answer may have been an acknowledgement
		}
	}
	if n := len(a.asks[id]); n > 0 && len(r.Statuses) > 0 {
		a.report("a refused run does not run", id, "answered %v, and the model was asked %d times", r.Statuses, n)
	}
}

// views compares the events that clients received with those that resume returns at the end.
func (a *auditor) views(r *request) {
	for i, v := range append([]view{r.View}, r.Followers...) {
		run := r.Script.ID
		if len(r.Runs) > 0 {
			run = r.Runs[0]
		}
		if v.Wrong != "" {
			a.report("a stream is in order", run, "client %d: %s", i, v.Wrong)
		}
		replay, ok := a.Replays[run]
		if !ok || !a.rows[run].Streamed {
			continue
		}
		for index, f := range v.Frames {
			if stored, ok := replay.Frames[index]; ok && stored != f {
				a.report("clients receive what is stored", run, "event %d: client %d has %s, resume returns %s", index, i, f.Data,
					stored.Data)
			}
		}
		if v.FromStart && v.end() != "" {
			if missing, extra := differ(v, replay); len(missing)+len(extra) > 0 {
				a.report("clients receive what is stored", run, "client %d received %s; it lacks %v of resume's events, and has "+
					"%v that resume lacks", i, v.end(), missing, extra)
			}
		}
	}
}

// differ returns the indices that only the second and only the first of two views has.
func differ(v, replay view) (missing, extra []int) {
	for _, index := range slices.Sorted(maps.Keys(replay.Frames)) {
		if _, ok := v.Frames[index]; !ok {
			missing = append(missing, index)
		}
	}
	for _, index := range slices.Sorted(maps.Keys(v.Frames)) {
		if _, ok := replay.Frames[index]; !ok {
			extra = append(extra, index)
		}
	}
	return missing, extra
}

// row checks a run in the database. All faults are over by then.
func (a *auditor) row(w row) {
	if w.Status == "RUNNING" || w.Status == "PENDING" {
		lease := "no lease"
		if w.Lease != nil {
			lease = fmt.Sprintf("a lease of %.0f s", *w.Lease)
		}
		a.report("every run ends", w.ID, "it is %s in attempt %d with %s, losses %d", w.Status, w.Attempt, lease, w.Losses)
		return
	}
	if w.CancelRequested && w.Status != "CANCELLED" {
		a.report("an acknowledged cancellation ends the run as CANCELLED", w.ID, "it is %s, although cancel_requested is set",
			w.Status)
	}
	s := w.script()
	switch w.Status {
	case "ERROR":
		// The model and the tools of the harness never fail, so the only reason to end is the limit of crashes.
		if w.Losses < maxLosses {
			a.report("a run ends in ERROR only after three crashes", w.ID, "losses %d: %s", w.Losses, text(w.Content))
		}
	case "COMPLETED":
		if text(w.Content) != s.text() {
			a.report("the answer is whole", w.ID, "%q instead of %q", text(w.Content), s.text())
		}
		if want := s.steps() * (promptTokens + answerTokens); w.tokens() != want {
			a.report("each step is counted once", w.ID, "%d tokens instead of %d", w.tokens(), want)
		}
	}
	for _, key := range s.confirmed(false) {
		if n := len(a.calls[key]); n > 0 {
			a.report("a rejected call is not made", w.ID, "%s was called %d times", key, n)
		}
	}
	a.messages(w, s)
}

// maxLosses is how many crashes end a run.
const maxLosses = 3

// messages checks the stored conversation of a run.
func (a *auditor) messages(w row, s script) {
	var list []message
	if w.Messages == nil || json.Unmarshal(w.Messages, &list) != nil {
		return
	}
	if _, _, wrong := readConversation(list); wrong != "" && w.Status == "COMPLETED" {
		a.report("no message twice in a history", w.ID, "%s", wrong)
	}
	if w.Status != "COMPLETED" {
		return
	}
	results := 0
	for _, m := range list {
		if m.Role == "tool" {
			results++
		}
	}
	if want := len(s.keys()); results != want {
		a.report("no message twice in a history", w.ID, "%d results of tools instead of %d", results, want)
	}
}

// stored checks the stored events of a run.
func (a *auditor) stored(w row) {
	list := a.events[w.ID]
	next, all := 0, newView()
	var names []string
	var content strings.Builder
	for _, e := range list {
		// The events of an attempt begin at a multiple of 2^22. Those that were kept from an earlier one precede them.
		if e.First != next && (e.First>>attemptBits == next>>attemptBits || e.First&(1<<attemptBits-1) != 0) {
			a.report("no event is missing or doubled", w.ID, "event %d follows event %d", e.First, next-1)
		}
		if e.First>>attemptBits >= max(w.Attempt, 1) {
			a.report("no event is missing or doubled", w.ID, "event %d is of a later attempt than %d", e.First, w.Attempt)
		}
		n := 0
		err := readFrames(strings.NewReader(e.Frames), func(f frame) bool {
			if f.Index != e.First+n {
				a.report("no event is missing or doubled", w.ID, "the event at %d has the index %d", e.First+n, f.Index)
			}
			names, all.Frames[f.Index] = append(names, f.Event), f
			if f.Event == "RunContent" {
				var about struct{ Content string }
				_ = json.Unmarshal([]byte(f.Data), &about)
				content.WriteString(about.Content)
			}
			n++
			return true
		})
		if err != nil || n != e.Count {
			a.report("no event is missing or doubled", w.ID, "the row at %d counts %d events and has %d (%v)", e.First, e.Count,
				n, err)
		}
		next = e.First + e.Count
	}
	if replay, ok := a.Replays[w.ID]; ok {
		if missing, extra := differ(replay, all); len(missing)+len(extra) > 0 {
			a.report("resume returns what is stored", w.ID, "it lacks the events %v and has %v besides", missing, extra)
		}
	}
	a.named(w, names, content.String())
}

// attemptBits is how many bits of an event's index count the events of an attempt. See docs/adr/0005.
const attemptBits = 22

// endEvents are the events that end a run with a status.
var endEvents = map[string]string{"COMPLETED": "RunCompleted", "ERROR": "RunError", "CANCELLED": "RunCancelled"}

// named checks the names of a streamed run's events, and the text that they have together.
func (a *auditor) named(w row, names []string, content string) {
	for i, name := range names {
		if status, ok := ends[name]; ok && status != "PAUSED" && i < len(names)-1 {
			a.report("nothing follows the end", w.ID, "%s follows %s", strings.Join(names[i+1:], ", "), name)
		}
	}
	if !w.Streamed || !isEnd(w.Status) {
		return
	}
	if want := endEvents[w.Status]; len(names) == 0 || names[len(names)-1] != want {
		last := "no event"
		if len(names) > 0 {
			last = names[len(names)-1]
		}
		a.report("the end is stored as an event", w.ID, "the run is %s, its last event is %s", w.Status, last)
	}
	if w.Status != "COMPLETED" {
		return
	}
	if content != w.script().text() {
		a.report("no event is missing or doubled", w.ID, "the events have the text %q instead of %q", content,
			w.script().text())
	}
	count := func(name string) (n int) {
		for _, other := range names {
			if other == name {
				n++
			}
		}
		return n
	}
	// A run that was continued without a stream, or from one, has only a part of its events.
	if names[0] == "RunStarted" {
		if n := count("ModelRequestStarted"); n != w.script().steps() {
			a.report("no event is missing or doubled", w.ID, "ModelRequestStarted occurs %d times, want %d", n,
				w.script().steps())
		}
	}
}

// model checks the requests of a run to the model.
func (a *auditor) model(id string) {
	list := a.asks[id]
	run := id
	if rows := a.byScript[id]; len(rows) > 0 {
		run = rows[0].ID
	}
	last := map[int]ask{} // the last request for each step
	// repeated counts the repeated requests after each fault, by the fault's position.
	repeated := map[int]int{}
	for _, q := range list {
		if q.Wrong != "" {
			a.report("no message twice in a history", run, "step %d: %s", q.Step, q.Wrong)
		}
		if at, ok := a.Ended[run]; ok && q.From.After(at) {
			a.report("no run is asked again after its end", run, "step %d by %s at %s; it had ended at %s", q.Step, q.Process,
				clock(q.From), clock(at))
		}
		if before, ok := last[q.Step]; ok {
			f, found := a.reason(before.Process, before.From, q.From)
			if !found {
				a.report("a model call is repeated only after a crash", run, "step %d by %s at %s and by %s at %s", q.Step,
					before.Process, clock(before.From), q.Process, clock(q.From))
			} else if repeated[f]++; repeated[f] > 1 {
				a.report("a crash repeats at most one model call", run, "%d are repeated after %s of %s", repeated[f],
					a.Faults[f].Kind, a.Faults[f].Process)
			}
		}
		last[q.Step] = q
	}
}

// reason finds a fault that made another process repeat what this one did from the first time on, before the second.
func (a *auditor) reason(process string, first, second time.Time) (position int, found bool) {
	for i, f := range a.Faults {
		// A fault that began before may have lasted. A process that was killed does not come back, and what it had sent may
		// be received after its end.
		lasts := f.To.IsZero() || f.To.After(first) || f.Kind == terminated || f.Kind == killed
		if f.Process == process && f.interrupts() && lasts && f.From.Before(second) {
			return i, true
		}
	}
	return 0, false
}

// tool checks the calls with a key.
func (a *auditor) tool(key string) {
	list := a.calls[key]
	for i, c := range list[1:] {
		if _, found := a.reason(list[i].Process, list[i].At, c.At); !found {
			a.report("a tool call is repeated only after a crash", cmp.Or(c.Run, idOf(key)), "%s by %s at %s and by %s at %s",
				key, list[i].Process, clock(list[i].At), c.Process, clock(c.At))
		}
		if c.ID != list[0].ID {
			a.report("a repeated call has the same id", c.Run, "%s has the ids %q and %q", key, list[0].ID, c.ID)
		}
	}
	c := list[0]
	for other, calls := range a.calls {
		if other != key && idOf(other) == idOf(key) && calls[0].ID == c.ID && c.ID != "" {
			a.report("each call has an id of its own", c.Run, "%s and %s have the id %q", key, other, c.ID)
		}
	}
}

// totals compares the totals of the sessions with the sums of their runs.
func (a *auditor) totals() {
	sums := map[string]int{}
	for _, w := range a.Rows {
		sums[w.Session] += w.tokens()
	}
	for session, sum := range sums {
		if total := a.Usage[session]; total != sum {
			a.report("the total of a session is the sum of its runs", session, "%d tokens instead of %d", total, sum)
		}
	}
}

// overlap checks that the faults found something to disturb: that nothing is lost while nothing is under way proves
// nothing.
func (a *auditor) overlap() {
	running, kills, hit := 0, 0, 0
	for _, f := range a.Faults {
		if f.Running > 0 {
			running++
		}
		if f.Kind == killed {
			kills++
			if f.Hit > 0 {
				hit++
			}
		}
	}
	if running*10 < len(a.Faults)*8 || len(a.Faults) == 0 {
		a.report("the faults find runs in progress", "-", "%d of %d", running, len(a.Faults))
	}
	if hit*3 < kills || kills == 0 {
		a.report("the kills interrupt model calls or tool calls", "-", "%d of %d", hit, kills)
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// clock is a time in the texts of violations.
func clock(t time.Time) string { return t.Format("15:04:05.000") }
