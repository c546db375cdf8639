package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

type resumeRun struct {
	LastEventIndex *int   `form:"last_event_index" doc:"The event_index of the last event that was received; everything when absent."`
	SessionID      string `form:"session_id" maxbytes:"1024" doc:"The run's session; not needed."`
}

// resume sends the events of a run again, from the one after last_event_index, and
// then those that still come, whichever machine carries the run.
func (a Runs) resume(w http.ResponseWriter, r *request, in resumeRun) error {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return err
	}
	if _, err := a.Agents.find(r.param("agent_id")); err != nil {
		return err
	}
	q := store.RunQuery{AgentID: r.param("agent_id"), RunID: r.param("run_id"), SessionID: in.SessionID}
	row, err := a.DB.Run(r.Context(), viewer, q)
	if fault.KindOf(err) == fault.NotFound && viewer.All { // AgentOS's answer, which tells nobody of others' runs
		s := openStream(w)
		defer s.close()
		s.send(wire.Meta{Event: "error", Error: "Run " + q.RunID + " not found in buffer or database"})
		return nil
	}
	if err != nil {
		return notFound(err, "Run not found")
	}
	f := follower{db: a.DB, runner: a.Runner, viewer: viewer, query: q, after: -1, attempt: row.Attempt}
	if in.LastEventIndex != nil {
		f.after = *in.LastEventIndex
	}
	if id, given := r.Header["Last-Event-Id"]; given { // a browser's EventSource
		f.ids = true
		if n, err := strconv.ParseInt(id[0], 10, 32); err == nil && in.LastEventIndex == nil { // no event has a larger index
			f.after = int(n)
		}
	}
	return f.follow(r.Context(), w, row)
}

// follower reads a run's events from the database, where every machine finds them.
type follower struct {
	db     *store.DB
	runner *run.Runner
	viewer store.Viewer
	query  store.RunQuery
	ids    bool // send id: lines
	plain  bool // nothing but the run's own events, as its first answer had them
	stream *eventStream

	after   int // the last index that the client has
	attempt int // at the run, whose events it has
}

// lookEvery is how often a run in progress is looked at; its events are stored
// twice a second.
const lookEvery = 250 * time.Millisecond

func (f *follower) follow(ctx context.Context, w http.ResponseWriter, row store.Run) error {
	requested := f.after
	if f.after < store.FirstIndex(f.attempt) { // what it has may be another attempt's
		f.after = -1
	}
	if err := f.runner.StoreEvents(ctx, row.RunID); err != nil {
		return err
	}
	frames, err := f.missed(ctx, row)
	if err != nil {
		return err
	}
	total, err := f.db.CountEvents(ctx, row.RunID)
	if err != nil {
		return err
	}
	f.stream = openStream(w)
	defer f.stream.close()
	if !f.plain {
		f.stream.send(f.meta(row, requested, len(frames), total))
	}
	f.send(frames)
	if !row.Streamed || wire.Ended(row.Status) {
		return nil
	}
	if len(frames) > 0 && !f.plain {
		f.stream.send(subscribed(row, total))
	}
	return f.live(ctx, len(frames) > 0)
}

// live sends what comes until the run has ended, and everything with it. sent is whether
// the client has events of it.
func (f *follower) live(ctx context.Context, sent bool) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !f.stream.isGone() {
		select {
		case <-ctx.Done():
			f.stream.goesOn()
			return nil
		case <-tick.C:
		}
		row, err := f.db.Run(ctx, f.viewer, f.query) // first: what is stored when it has ended is all
		if err != nil {
			return f.broken(ctx, err)
		}
		attempt := f.attempt
		frames, err := f.missed(ctx, row)
		if err != nil {
			return f.broken(ctx, err)
		}
		switch {
		case f.attempt == attempt:
		case f.plain && sent: // what follows is another story
			f.stream.goesOn()
			return nil
		case !f.plain:
			f.stream.send(again(row, len(frames)))
		}
		sent = sent || len(frames) > 0
		f.send(frames)
		if wire.Ended(row.Status) {
			return nil
		}
	}
	return nil
}

// broken tells a client that the stream ends without the run having ended.
func (f *follower) broken(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		f.stream.send(wire.Meta{Event: "error", Error: fault.Detail(err)})
	}
	return nil
}

// missed are the frames after f.after, which it moves; after a new attempt at the run
// they are all of them, since two attempts tell different stories.
func (f *follower) missed(ctx context.Context, row store.Run) (frames []string, err error) {
	stored, err := f.db.EventsAfter(ctx, row.RunID, f.after)
	if err == nil && len(stored) > 0 && stored[0].Attempt != f.attempt {
		f.attempt, f.after = stored[0].Attempt, -1
		stored, err = f.db.EventsAfter(ctx, row.RunID, f.after)
	}
	if err != nil {
		return nil, err
	}
	for _, e := range stored {
		index := e.First
		for frame := range strings.SplitAfterSeq(e.Frames, "\n\n") {
			if frame != "" && index > f.after {
				if f.ids {
					frame = fmt.Sprintf("id: %d\n%s", index, frame)
				}
				frames = append(frames, frame)
			}
			index++
		}
	}
	if n := len(stored); n > 0 {
		f.after = max(f.after, stored[n-1].First+stored[n-1].Count-1)
	}
	return frames, nil
}

func (f *follower) send(frames []string) {
	for _, frame := range frames {
		f.stream.sendFrame([]byte(frame))
	}
}

// meta says what follows, in AgentOS's words.
func (f *follower) meta(row store.Run, requested, missed, total int) wire.Meta {
	id := row.RunID.String()
	switch {
	case !row.Streamed:
		m := wire.Meta{Event: "replay", RunID: id, Status: row.Status, TotalEvents: new(0)}
		if m.Message = fmt.Sprintf("Run %s with no stored events: a run submitted without streaming keeps only its final output.", row.Status); !wire.Ended(row.Status) {
			m.Message = fmt.Sprintf("Run is %s and was submitted without streaming, so it has no event stream to attach to. Poll the run endpoint for its result.", row.Status)
		}
		return m
	case wire.Ended(row.Status):
		return wire.Meta{
			Event: "replay", RunID: id, Status: row.Status, TotalEvents: &missed, TotalBuffered: &total, LastEventIndexRequested: &requested,
			Message: fmt.Sprintf("Run %s. Replaying %d missed events (of %d total).", row.Status, missed, total),
		}
	case missed > 0:
		return wire.Meta{
			Event: "catch_up", RunID: id, Status: "running", MissedEvents: &missed, CurrentEventCount: &total,
			Message: fmt.Sprintf("Catching up on %d missed events.", missed),
		}
	}
	return subscribed(row, total)
}

// again says in a stream that all of it was for nothing.
func again(row store.Run, count int) wire.Meta {
	return wire.Meta{
		Event: "catch_up", RunID: row.RunID.String(), Status: "running", MissedEvents: &count, CurrentEventCount: &count,
		Message: "The run was taken up again where it stood; its events follow from the first.",
	}
}

func subscribed(row store.Run, total int) wire.Meta {
	return wire.Meta{
		Event: "subscribed", RunID: row.RunID.String(), Status: "running", CurrentEventCount: &total,
		Message: "Subscribed to agent run. Receiving live events.",
	}
}
