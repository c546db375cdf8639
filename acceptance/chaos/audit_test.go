//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// at is a time of the planted evidence, in seconds after its begin.
func at(seconds float64) time.Time {
	return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

// The ids of the runs in the planted evidence.
const (
	done      = "run-done"      // streamed, with a round of confirmed and rejected calls, COMPLETED
	cancelled = "run-cancelled" // CANCELLED
	repeated  = "run-repeated"  // its only step was repeated after a kill
)

// sound is evidence without a violation.
func sound() evidence {
	s := script{ID: "x-1", Rounds: 1, Calls: 4, Pause: 1, Words: 3, Tool: "note", Argument: "key"}
	stopped, again := script{ID: "x-2", Words: 50}, script{ID: "x-3", Words: 2}
	e := evidence{
		Asks: []ask{
			{Script: s, Step: 0, Process: "server1.1", From: at(1), To: at(2), Whole: true},
			{Script: s, Step: 1, Process: "server2.1", From: at(5), To: at(6), Whole: true},
			{Script: stopped, Step: 0, Process: "server1.1", From: at(1), To: at(3)},
			{Script: again, Step: 0, Process: "server1.1", From: at(7), To: at(8)},
			{Script: again, Step: 0, Process: "server2.1", From: at(80), To: at(81), Whole: true},
		},
		Faults: []fault{
			{Kind: killed, Process: "server1.1", From: at(8), To: at(8), Running: 2, Hit: 1},
			{Kind: frozen, Process: "server2.1", From: at(9), To: at(10), Running: 1},
		},
		Ended: map[string]time.Time{done: at(6.5), cancelled: at(3.5), repeated: at(81.5)},
		Rows: []row{
			planted(done, "COMPLETED", s), planted(cancelled, "CANCELLED", stopped), planted(repeated, "COMPLETED", again),
		},
		Usage:   map[string]int{"session": 3 * (promptTokens + answerTokens)},
		Replays: map[string]view{},
	}
	for i, key := range s.confirmed(true) {
		e.Calls = append(e.Calls, call{
			Key: key, Tool: "pay", Run: done, ID: fmt.Sprintf("call_%d", i), Process: "server2.1", At: at(4),
		})
	}
	e.Rows[0].Streamed = true
	names := []string{"RunStarted", "ModelRequestStarted", "ModelRequestCompleted", "RunPaused", "RunContinued",
		"ModelRequestStarted", "RunContent", "RunContent", "RunContent", "ModelRequestCompleted", "RunCompleted"}
	v, first, word := newView(), []string{}, 0
	for i, name := range names {
		content := ""
		if name == "RunContent" {
			content, word = s.word(word), word+1
		}
		f := frame{i, name, fmt.Sprintf(`{"event_index":%d,"content":%q}`, i, content)}
		v.add(f, i == 0)
		first = append(first, "event: "+name+"\ndata: "+f.Data+"\n\n")
	}
	e.Events = []eventRow{
		{Run: done, Attempt: 1, First: 0, Count: 4, Frames: strings.Join(first[:4], "")},
		{Run: done, Attempt: 1, First: 4, Count: len(first) - 4, Frames: strings.Join(first[4:], "")},
	}
	e.Replays[done] = v
	e.Requests = []*request{
		{Kind: kindPause, Script: s, Session: "session", Streamed: true,
			learned: learned{Runs: []string{done}, Statuses: []int{200}, End: "COMPLETED", Ended: at(6.5), View: v}},
		{Kind: kindCancel, Script: stopped, Session: "session",
			learned: learned{Runs: []string{cancelled}, Statuses: []int{202}, End: "CANCELLED", Cancelled: at(3),
				View: newView()}},
		{Kind: kindKey, Script: again, Session: "session", Key: "x-3",
			learned: learned{Runs: []string{repeated}, Statuses: []int{0, 503, 202}, View: newView()}},
		{Kind: kindStream, Script: script{ID: "x-4"}, learned: learned{Statuses: []int{503}, View: newView()}},
	}
	return e
}

// planted is a row of a run.
func planted(id, status string, s script) row {
	content := s.text()
	r := row{ID: id, Session: "session", Status: status, Input: s.message(), Content: &content, Attempt: 1}
	if status == "COMPLETED" {
		r.Metrics = json.RawMessage(fmt.Sprintf(`{"total_tokens":%d}`, s.steps()*(promptTokens+answerTokens)))
	}
	if status == "CANCELLED" {
		r.CancelRequested = true
	}
	list := []map[string]any{{"role": "user", "content": s.message()}}
	if s.Rounds > 0 {
		list = append(list, map[string]any{"role": "assistant", "tool_calls": s.toolCalls(1)})
		for i := range s.Calls {
			list = append(list, map[string]any{"role": "tool", "tool_call_id": s.vendorID(1, i), "content": "ok"})
		}
	}
	r.Messages, _ = json.Marshal(append(list, map[string]any{"role": "assistant", "content": content}))
	return r
}

func TestSoundEvidenceHasNoViolation(t *testing.T) {
	t.Parallel()
	for _, v := range audit(sound()) {
		t.Error(v)
	}
}

// again is a request to the model that repeats another one at another time, from another process.
func again(q ask, from float64, process string) ask {
	q.From, q.To, q.Process = at(from), at(from+1), process
	return q
}

// plant is a violation that is planted in sound evidence.
type plant struct {
	rule string // that must report it
	do   func(*evidence)
}

// plants has at least one violation of every rule.
var plants = map[string]plant{
	"a run that never ends": {"every run ends", func(e *evidence) {
		e.Rows[2].Status = "RUNNING"
	}},
	"a run that no process has claimed": {"every run ends", func(e *evidence) {
		e.Rows[2].Status = "PENDING"
	}},
	"a running row without a live lease": {"no running row without a live lease", func(e *evidence) {
		e.Expired = []string{done}
	}},
	"an acknowledged run without a row": {"an acknowledged run is not lost", func(e *evidence) {
		e.Rows = e.Rows[:2]
	}},
	"two ends": {"a run has one end", func(e *evidence) {
		e.Requests[0].End = "ERROR"
	}},
	"an event after the end": {"nothing follows the end", func(e *evidence) {
		e.Events[1].Frames += "event: RunContent\ndata: {\"event_index\":11}\n\n"
		e.Events[1].Count++
	}},
	"an event after RunCancelled": {"nothing follows the end", func(e *evidence) {
		e.Events[1].Frames = strings.Replace(e.Events[1].Frames, "event: ModelRequestCompleted", "event: RunCancelled", 1)
	}},
	"an end without its event": {"the end is stored as an event", func(e *evidence) {
		e.Rows[0].Status = "CANCELLED"
	}},
	"a missing row of events": {"no event is missing or doubled", func(e *evidence) {
		e.Events = e.Events[1:]
	}},
	"a missing event in a row": {"no event is missing or doubled", func(e *evidence) {
		_, rest, _ := strings.Cut(e.Events[1].Frames, "\n\n")
		e.Events[1].Frames = rest
	}},
	"events that are stored twice": {"no event is missing or doubled", func(e *evidence) {
		e.Events = append(e.Events, e.Events[1])
	}},
	"events of an attempt that does not exist": {"no event is missing or doubled", func(e *evidence) {
		e.Events[1].First += 1 << attemptBits
	}},
	"a lost word with consistent indices": {"no event is missing or doubled", func(e *evidence) {
		e.Events[1].Frames = strings.Replace(e.Events[1].Frames, " w1", "", 1)
	}},
	"a lost model request with consistent indices": {"no event is missing or doubled", func(e *evidence) {
		e.Events[1].Frames = strings.Replace(e.Events[1].Frames, "event: ModelRequestStarted", "event: Other", 1)
	}},
	"a total that lacks a run": {"the total of a session is the sum of its runs", func(e *evidence) {
		e.Usage["session"] -= promptTokens
	}},
	"a step that is counted twice": {"each step is counted once", func(e *evidence) {
		e.Rows[2].Metrics = json.RawMessage(`{"total_tokens":30}`)
		e.Usage["session"] += 15
	}},
	"a message twice in what the model receives": {"no message twice in a history", func(e *evidence) {
		e.Asks[1].Wrong = "the conversation has the message of x-1 twice"
	}},
	"a message twice in what is stored": {"no message twice in a history", func(e *evidence) {
		e.Rows[2].Messages = json.RawMessage(strings.Replace(string(e.Rows[2].Messages), `{"`, `{"role":"user","content":`+
			fmt.Sprintf("%q", e.Rows[2].Input)+`},{"`, 1))
	}},
	"a result that is missing in what is stored": {"no message twice in a history", func(e *evidence) {
		changed := strings.Replace(string(e.Rows[0].Messages), `"role":"tool"`, `"role":"other"`, 1)
		e.Rows[0].Messages = json.RawMessage(changed)
	}},
	"a model call after the end": {"no run is asked again after its end", func(e *evidence) {
		e.Asks = append(e.Asks, again(e.Asks[1], 9, "server2.1"))
	}},
	"a repeated model call without a crash": {"a model call is repeated only after a crash", func(e *evidence) {
		e.Asks = append(e.Asks, again(e.Asks[1], 6.1, "server1.1"))
	}},
	"a repeated model call after a short freeze": {"a model call is repeated only after a crash", func(e *evidence) {
		e.Faults[0] = fault{Kind: frozen, Process: "server1.1", From: at(8), To: at(20), Running: 1}
	}},
	"a repeated model call after a crash of another process": {"a model call is repeated only after a crash",
		func(e *evidence) { e.Faults[0].Process = "server2.1" }},
	"two model calls repeated after one crash": {"a crash repeats at most one model call", func(e *evidence) {
		e.Ended[done] = at(200)
		e.Asks[1].Process, e.Asks[1].From, e.Asks[1].To = "server1.1", at(7), at(8)
		e.Asks = append(e.Asks, again(e.Asks[0], 80, "server2.1"), again(e.Asks[1], 82, "server2.1"))
	}},
	"a model call after a cancellation": {"nothing happens after a cancellation", func(e *evidence) {
		e.Ended[cancelled] = at(200)
		e.Asks = append(e.Asks, again(e.Asks[2], 70, "server2.1"))
	}},
	"a tool call after a cancellation": {"nothing happens after a cancellation", func(e *evidence) {
		e.Requests[0].Cancelled = at(-5)
	}},
	"an acknowledged cancellation that is forgotten": {"an acknowledged cancellation ends the run as CANCELLED",
		func(e *evidence) { e.Rows[1].Status = "COMPLETED" }},
	"a run that ends after its cancellation was acknowledged": {
		"an acknowledged cancellation ends the run as CANCELLED",
		func(e *evidence) { e.Requests[0].Cancelled = at(5.5) }},
	"a model call after the session is deleted": {"nothing happens after the session is deleted", func(e *evidence) {
		e.Requests[1].Kind, e.Requests[1].Cancelled, e.Requests[1].Deleted = kindDelete, time.Time{}, at(3)
		e.Rows = slices.Delete(e.Rows, 1, 2)
		e.Asks = append(e.Asks, again(e.Asks[2], 70, "server2.1"))
	}},
	"a run of a deleted session": {"a deleted session stays deleted", func(e *evidence) {
		e.Requests[2].Kind, e.Requests[2].Deleted = kindDelete, at(200)
	}},
	"two runs for one key": {"a request starts one run", func(e *evidence) {
		second := e.Rows[2]
		second.ID = "run-second"
		e.Rows = append(e.Rows, second)
	}},
	"two ids for one key": {"a request starts one run", func(e *evidence) {
		e.Requests[2].Runs = append(e.Requests[2].Runs, "run-second")
	}},
	"a status that a client can't handle": {"a request is accepted or can be tried again", func(e *evidence) {
		e.Requests[0].Statuses = []int{500}
	}},
	"a refused run that runs": {"a refused run does not run", func(e *evidence) {
		e.Asks = append(e.Asks, ask{Script: script{ID: "x-4"}, From: at(1), To: at(2)})
	}},
	"a rejected call that is made": {"a rejected call is not made", func(e *evidence) {
		c := e.Calls[0]
		c.Key, c.ID = e.Requests[0].Script.confirmed(false)[0], "call_9"
		e.Calls = append(e.Calls, c)
	}},
	"a confirmed call that is not made": {"a confirmed call is made", func(e *evidence) {
		e.Calls = e.Calls[1:]
	}},
	"a repeated tool call without a crash": {"a tool call is repeated only after a crash", func(e *evidence) {
		e.Calls = append(e.Calls, e.Calls[0])
	}},
	"a repeated tool call with another id": {"a repeated call has the same id", func(e *evidence) {
		c := e.Calls[0]
		c.ID = "call_9"
		e.Calls = append(e.Calls, c)
	}},
	"two calls with one id": {"each call has an id of its own", func(e *evidence) {
		e.Calls[1].ID = e.Calls[0].ID
	}},
	"a client that received another event": {"clients receive what is stored", func(e *evidence) {
		v := newView()
		v.add(frame{0, "RunStarted", `{"other":1}`}, true)
		e.Requests[0].Followers = []view{v}
	}},
	"a client that lacks an event": {"clients receive what is stored", func(e *evidence) {
		v := newView()
		for i := range 11 {
			if f := e.Replays[done].Frames[i]; i != 7 {
				v.add(f, i == 0)
			}
		}
		e.Requests[0].View = v
	}},
	"a stream with an event twice": {"a stream is in order", func(e *evidence) {
		v := newView()
		v.add(e.Replays[done].Frames[0], true)
		v.add(e.Replays[done].Frames[0], false)
		e.Requests[0].Followers = []view{v}
	}},
	"an answer that was cut": {"the answer is whole", func(e *evidence) {
		cut := "x-3:"
		e.Rows[2].Content = &cut
	}},
	"a run that ends in an error without crashes": {"a run ends in ERROR only after three crashes", func(e *evidence) {
		e.Rows[1].Status, e.Rows[1].CancelRequested = "ERROR", false
	}},
	"faults while nothing is under way": {"the faults find runs in progress", func(e *evidence) {
		e.Faults[0].Running, e.Faults[1].Running = 0, 0
	}},
	"kills of idle processes": {"the kills interrupt model calls or tool calls", func(e *evidence) {
		e.Faults[0].Hit = 0
	}},
	"no fault at all": {"the faults find runs in progress", func(e *evidence) { e.Faults = nil }},
	"a resume that lacks an event": {"resume returns what is stored", func(e *evidence) {
		v := newView()
		v.add(e.Replays[done].Frames[0], true)
		e.Replays[done] = v
	}},
	"a panic": {"no process panics", func(e *evidence) { e.Panics = []string{"panic: close of nil channel"} }},
	"a failure of the harness": {"the harness works", func(e *evidence) {
		e.Failures = []string{"PostgreSQL does not start"}
	}},
}

func TestEachPlantedViolationIsReported(t *testing.T) {
	t.Parallel()
	for name, planted := range plants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := sound()
			planted.do(&e)
			found := audit(e)
			if !slices.ContainsFunc(found, func(v violation) bool { return v.Rule == planted.rule }) {
				t.Errorf("the audit reports %v, want %q", found, planted.rule)
			}
		})
	}
}

// A rule that no violation is planted for could be one that never reports anything.
func TestEveryRuleIsPlanted(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("audit.go")
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]bool{}
	rule := regexp.MustCompile(`(?:report\(|quietAfter\(r, )"([^"]+)"`)
	for _, m := range rule.FindAllStringSubmatch(string(source), -1) {
		rules[m[1]] = true
	}
	planted := map[string]bool{}
	for _, p := range plants {
		planted[p.rule] = true
	}
	if diff := cmp.Diff(rules, planted); diff != "" {
		t.Errorf("the rules of audit.go (-) and the planted violations (+) differ:\n%s", diff)
	}
}
