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

// resumeRun is the input of POST /agents/{agent_id}/runs/{run_id}/resume. The header
// Last-Event-ID isn't a field: an invalid one is ignored, and only its presence says that
// the client wants ids.
type resumeRun struct {
	LastEventIndex *int   `form:"last_event_index" doc:"The event_index of the last event that the client received. Without it, all events are sent."`
	SessionID      string `form:"session_id" maxbytes:"1024" doc:"The session of the run. Optional: the id of the run is enough."`
}

// resume sends the stored events of a run that follow last_event_index, and then the new
// ones until the run ends or is paused. Any process can answer it, whichever process
// executes the run, because the events are read from the database.
//
// Last-Event-ID has the same meaning as last_event_index: a browser's EventSource sends
// it when it reconnects (HTML standard, section "Server-sent events"). The events then
// have id: lines, which EventSource needs. An id that is no number counts as absent.
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
	if fault.KindOf(err) == fault.NotFound && viewer.All {
		// AgentOS reports an unknown run by an event, not by a 404. Callers limited to their own runs
		// get a 404 instead, the same for an unknown run and for a run of another owner.
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
	if id, given := r.Header["Last-Event-Id"]; given {
		f.ids = true
		// An event index has 32 bits; see store.FirstIndex.
		if n, err := strconv.ParseInt(id[0], 10, 32); err == nil && in.LastEventIndex == nil {
			f.after = int(n)
		}
	}
	return f.follow(r.Context(), w, row)
}

// follower sends a run's events to one client. It reads them from the database, where
// the process that executes the run stores them twice a second.
type follower struct {
	db     *store.DB
	runner *run.Runner
	viewer store.Viewer
	query  store.RunQuery // finds the run
	ids    bool           // send an id: line before each event
	plain  bool           // send the run's own events only, as the run's first answer had them
	stream *eventStream

	after   int // the index of the last event that the client has; -1: it has none
	attempt int // the attempt whose events the client has
}

// pollInterval is how often the database is asked about a run in progress. The events of
// a run are stored twice a second, so a shorter interval would find nothing more.
const pollInterval = 250 * time.Millisecond

// follow sends what the client hasn't received yet, and then follows the run. row is the
// run as it was read last. An error is returned only before the first byte.
//
// In AgentOS's protocol the first event describes the stream: replay for an ended run,
// catch_up for missed events of a running one, subscribed when only new events follow.
func (f *follower) follow(ctx context.Context, w http.ResponseWriter, row store.Run) error {
	requested := f.after
	if f.after < store.FirstIndex(f.attempt) {
		// The client has events of an earlier attempt, which this attempt has replaced.
		f.after = -1
	}
	// When this process executes the run, its newest events may not be stored yet.
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
	// A run without streaming stores no events, so there is nothing to follow.
	if !row.Streamed || wire.Ended(row.Status) {
		return nil
	}
	if len(frames) > 0 && !f.plain {
		f.stream.send(subscribed(row, total))
	}
	return f.live(ctx, len(frames) > 0)
}

// live sends new events until the run has ended and all of its events are sent, or until
// the client disconnects or ctx ends. sent reports that the client has events of the run.
//
// When another process continues the run after a crash, it may emit other events than
// the ones that the client has. A resumed stream then announces the new attempt and
// sends its events from the first one. A plain stream ends with a comment instead: a
// client that never asked to resume doesn't expect events to start anew.
func (f *follower) live(ctx context.Context, sent bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !f.stream.isClosed() {
		select {
		case <-ctx.Done():
			f.stream.comment(wire.RunContinues)
			return nil
		case <-tick.C:
		}
		// The row is read before the events: once it shows the end, all events are stored.
		row, err := f.db.Run(ctx, f.viewer, f.query)
		if err != nil {
			return f.sendError(ctx, err)
		}
		attempt := f.attempt
		frames, err := f.missed(ctx, row)
		if err != nil {
			return f.sendError(ctx, err)
		}
		switch {
		case f.attempt == attempt:
		case f.plain && sent:
			f.stream.comment(wire.RunContinues)
			return nil
		case !f.plain:
			f.stream.send(restarted(row, len(frames)))
		}
		sent = sent || len(frames) > 0
		f.send(frames)
		if wire.Ended(row.Status) {
			return nil
		}
	}
	return nil
}

// sendError sends an event with the public text of err as the last event of the stream.
// It sends nothing if ctx has ended, because err is then only a consequence of that. It
// returns nil, because the HTTP status was sent already.
func (f *follower) sendError(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		f.stream.send(wire.Meta{Event: "error", Error: fault.Detail(err)})
	}
	return nil
}

// missed reads the frames after f.after and moves f.after to the last one. When the run
// has a new attempt, it reads all frames of that attempt: its events replace those of
// the earlier one.
func (f *follower) missed(ctx context.Context, row store.Run) (frames []string, err error) {
	stored, err := f.db.EventsAfter(ctx, row.RunID, f.after)
	if err == nil && len(stored) > 0 && stored[0].Attempt != f.attempt {
		f.attempt, f.after = stored[0].Attempt, -1
		stored, err = f.db.EventsAfter(ctx, row.RunID, f.after)
	}
	if err != nil {
		return nil, err
	}
	// A row holds several consecutive events, and the first row may begin with some that the
	// client has.
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

// send sends stored frames as they were when the run emitted them.
func (f *follower) send(frames []string) {
	for _, frame := range frames {
		f.stream.sendFrame([]byte(frame))
	}
}

// meta returns the first event of a resumed stream. Its names, members and texts are
// AgentOS's.
func (f *follower) meta(row store.Run, requested, missed, total int) wire.Meta {
	id := row.RunID.String()
	switch {
	case !row.Streamed && wire.Ended(row.Status):
		return wire.Meta{
			Event: "replay", RunID: id, Status: row.Status, TotalEvents: new(0),
			Message: fmt.Sprintf("Run %s with no stored events: a run submitted without streaming keeps only its final output.",
				row.Status),
		}
	case !row.Streamed:
		return wire.Meta{
			Event: "replay", RunID: id, Status: row.Status, TotalEvents: new(0),
			Message: fmt.Sprintf("Run is %s and was submitted without streaming, so it has no event stream to attach to. "+
				"Poll the run endpoint for its result.", row.Status),
		}
	case wire.Ended(row.Status):
		return wire.Meta{
			Event: "replay", RunID: id, Status: row.Status,
			TotalEvents: &missed, TotalBuffered: &total, LastEventIndexRequested: &requested,
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

// restarted announces that another process has continued the run from its checkpoint.
// The client discards the run's events that it has.
func restarted(row store.Run, count int) wire.Meta {
	return wire.Meta{
		Event: "catch_up", RunID: row.RunID.String(), Status: "running",
		MissedEvents: &count, CurrentEventCount: &count,
		Message: "Another process continues the run from its last checkpoint. Its events follow from the first one.",
	}
}

// subscribed announces that only new events follow.
func subscribed(row store.Run, total int) wire.Meta {
	return wire.Meta{
		Event: "subscribed", RunID: row.RunID.String(), Status: "running", CurrentEventCount: &total,
		Message: "Subscribed to agent run. Receiving live events.",
	}
}
