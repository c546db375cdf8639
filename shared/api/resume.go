package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/follow"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// resumeRun is the input of POST /agents/{agent_id}/runs/{run_id}/resume. The header
// Last-Event-ID isn't a field: an invalid one is ignored, and its presence says that the
// client reconnects by itself.
type resumeRun struct {
	LastEventIndex *int   `form:"last_event_index" doc:"The event_index of the last event that the client received. Without it, all events are sent. The header Last-Event-ID means the same; the larger one counts."`
	SessionID      string `form:"session_id" bound:"short_text" doc:"The session of the run. Optional: the id of the run is enough."`
}

// resume sends the stored events of a run that follow last_event_index, and then the new
// ones until the run ends or is paused. Any process can answer it, whichever process
// executes the run, because the events are read from the database.
//
// Last-Event-ID has the same meaning as last_event_index: clients like EventSource send it
// when they reconnect (HTML standard, section "Server-sent events"), with the id: line that
// came last. Each event of the run has one, and so has the first event of the stream. Since
// such a client repeats its first request, the larger of the two indexes counts. An id that
// is no number counts as absent.
//
// Such a client also reconnects after the last event. Only a 204 stops it, so it gets one
// when the run has ended, or is paused, and nothing is left to send.
func (a Runs) resume(w http.ResponseWriter, r *request, in *resumeRun) error {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return err
	}
	if _, err := a.Agents.find(r.param("agent_id")); err != nil {
		return err
	}
	q := store.RunQuery{AgentID: r.param("agent_id"), RunID: r.param("run_id"), SessionID: in.SessionID}
	head, err := a.DB.RunHead(r.Context(), viewer, q)
	r.audit.Owner(head.Owner)
	id, reconnects := r.Header["Last-Event-Id"]
	if fault.KindOf(err) == fault.NotFound && viewer.All && !reconnects {
		// AgentOS reports an unknown run by an event, not by a 404. Callers limited to their own runs
		// get a 404 instead, the same for an unknown run and for a run of another owner. So does a
		// client that would reconnect after the event.
		s := openStream(w)
		defer s.close()
		s.send(wire.Meta{Event: "error", Error: "Run " + fault.Short(q.RunID) + " not found in buffer or database"})
		return nil
	}
	if err != nil {
		return notFound(err, "Run not found")
	}
	f := follower{
		runs: a, run: head.RunID, caller: callerKey(r), streamed: head.Streamed, attempt: head.Attempt, after: -1,
		reconnects: reconnects,
	}
	if in.LastEventIndex != nil {
		f.after = *in.LastEventIndex
	}
	if reconnects {
		// An event index has 32 bits; see store.FirstIndex.
		if n, err := strconv.ParseInt(id[0], 10, 32); err == nil {
			f.after = max(f.after, int(n))
		}
	}
	ctx, stop := a.whileValid(r)
	defer stop()
	return f.follow(ctx, w)
}

// checkEvery is how often the token of a request is checked whose answer follows a run. Between two reads of the list
// of revoked tokens a check costs nothing; see package revoke.
const checkEvery = time.Second

// whileValid returns a context that ends when the request's token is revoked, or when nobody can say whether it is.
// Its cause is then the error for the caller; see endedToken. The caller must call stop.
func (a Runs) whileValid(r *request) (_ context.Context, stop func()) {
	ctx, end := context.WithCancelCause(r.Context())
	if a.Revoked != nil {
		go func() {
			ticker := time.NewTicker(checkEvery)
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				if err := a.Revoked(ctx, r.principal); err != nil {
					end(err)
				}
			}
		}()
	}
	return ctx, func() { end(nil) }
}

// endedToken returns the error with which whileValid ended the context, or nil.
func endedToken(ctx context.Context) error {
	if err, ok := errors.AsType[*fault.Error](context.Cause(ctx)); ok {
		return err
	}
	return nil
}

// follower sends a run's events to one client. They come from the database, where the
// process that executes the run stores them twice a second.
type follower struct {
	runs       Runs
	run        uuid.UUID
	caller     string  // see callerKey
	streamed   bool    // the run has events
	reconnects bool    // the client reconnects until it gets a 204
	plain      bool    // send the run's own events only, as the run's first answer had them
	to         encoder // nil for AgentOS's protocol. Otherwise plain is true
	through    bool    // the stream of a door has the events behind a pause too, if the run was continued
	over       bool    // the stream of a door has its last event
	newest     bool    // send the newest answer only: what follows the last pause
	reader     *follow.Follower
	stream     *eventStream

	attempt int  // the attempt whose events the client has
	after   int  // the index of the last event that the client has; -1: it has none
	sent    bool // this stream has sent events of the run
}

// deleted is the last event's text for a run that doesn't exist any more. Its events are
// deleted too, so the client can't get the run's last event.
const deleted = "The run was deleted with its session"

var errDeleted = fault.Public(fault.NotFound, deleted, nil)

// follow sends what the client hasn't received yet, and then follows the run. An error is
// returned only before the first byte.
//
// In AgentOS's protocol the first event describes the stream: replay for an ended run,
// catch_up for missed events of a running one, subscribed when only new events follow.
func (f *follower) follow(ctx context.Context, w http.ResponseWriter) error {
	// When this process executes the run, its newest events may not be stored yet.
	if err := f.runs.Runner.StoreEvents(ctx, f.run); err != nil {
		return err
	}
	requested, attempt := f.after, f.attempt
	if f.after < store.FirstIndex(f.attempt) && !f.plain {
		// The client has events of an earlier attempt, which this attempt has replaced.
		f.after = -1
	}
	counts, err := f.runs.DB.EventCounts(ctx, f.run, max(f.after, -1))
	if err != nil {
		return notFound(err, "Run not found")
	}
	if f.attempt = counts.Attempt; f.attempt != attempt && !f.plain {
		f.after, counts.Missed = -1, counts.Total
	}
	if f.reconnects && wire.Ended(counts.Status) && counts.Missed == 0 {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if f.reader, err = f.runs.Follow.Follow(f.run, f.caller); err != nil {
		return err
	}
	defer f.reader.Close()
	if f.newest {
		if err := f.skipAnswers(ctx, counts.Last); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.stream = openStream(w)
	f.stream.failed = cancel // a client that has disconnected needs no news
	defer f.stream.close()
	if !f.plain {
		// Its id is that of the last event that the client has, so that a client which has all
		// of them, or whose run has none, reconnects with an id.
		first := bytes.NewBuffer(idLine(nil, max(f.after, -1)))
		if err := wire.NewEncoder(first).Encode(f.meta(counts, requested)); err != nil {
			return err
		}
		f.stream.sendFrame(first.Bytes())
	}
	// A run without streaming stores no events, so there is nothing to follow.
	if !f.streamed {
		return nil
	}
	if err = f.catchUp(ctx, counts.Last); err == nil && !f.complete(counts.Status, counts.Last) {
		if counts.Missed > 0 && !f.plain {
			f.stream.send(f.subscribed(counts.Total))
		}
		err = f.live(ctx, counts.Progress)
	}
	f.sendError(ctx, err)
	return nil
}

// skipAnswers skips the events before the one with which the run was continued last, of those up to index last.
func (f *follower) skipAnswers(ctx context.Context, last int) error {
	for read, skip := f.after, f.after; ; {
		news, err := f.reader.Events(ctx, f.attempt, read)
		if err != nil {
			return err
		}
		if read >= last || len(news.Frames) == 0 {
			f.after = skip
			return nil
		}
		for _, frames := range news.Frames {
			index := frames.First
			for frame := range bytes.SplitAfterSeq(frames.Data, []byte("\n\n")) {
				if bytes.HasPrefix(frame, []byte("event: "+wire.EventRunContinued+"\n")) {
					skip = index - 1
				}
				index++
			}
			read = frames.First + frames.Count - 1
		}
	}
}

// live sends new events until the run has ended and all of its events are sent, or until
// the client disconnects or ctx ends. known is the progress of the run until now.
//
// When another process continues the run after a crash, it may emit other events than
// the ones that the client has. A resumed stream then announces the new attempt and
// sends its events from the first one. A plain stream ends with a comment instead: a
// client that never asked to resume doesn't expect events to start anew.
func (f *follower) live(ctx context.Context, known store.Progress) error {
	for {
		next, found, err := f.reader.Next(ctx, known)
		switch known = next; {
		case err != nil:
			return err
		case !found:
			return errDeleted
		}
		last := known.Last
		if known.Attempt != f.attempt && known.Last > f.after {
			if f.plain && f.sent {
				f.leave()
				return nil
			}
			f.attempt = known.Attempt
			if !f.plain {
				counts, err := f.reader.Counts(ctx)
				if err != nil {
					return notFound(err, deleted)
				}
				f.stream.send(f.restarted(counts.Total))
				f.attempt, f.after, last = counts.Attempt, -1, counts.Last
			}
		}
		if err := f.catchUp(ctx, last); err != nil {
			return err
		}
		if f.complete(known.Status, known.Last) {
			return nil
		}
	}
}

// complete reports whether nothing follows: the run has ended or is paused, and its events up to index last are sent. A
// client of a door gets the events up to the first pause, as it did the first time, unless through is set.
func (f *follower) complete(status string, last int) bool {
	return f.over || wire.Ended(status) && f.after >= last
}

// catchUp sends the events up to index last, which is that of the last event in a row. It
// sends fewer of them, without an error, when the run has a new attempt, which live handles.
func (f *follower) catchUp(ctx context.Context, last int) error {
	for f.after < last && !f.over {
		news, err := f.reader.Events(ctx, f.attempt, f.after)
		switch {
		case err != nil:
			return err
		case !news.Found:
			return errDeleted
		case len(news.Frames) == 0 || news.Frames[0].First > last:
			return nil
		}
		for _, frames := range news.Frames {
			if frames.First <= last { // Events that were stored meanwhile are sent after the event that announces them.
				f.send(frames)
			}
		}
	}
	return nil
}

// sendError sends an event with the public text of err as the last event of the stream.
// When the token was revoked meanwhile, the event says so. When ctx has ended otherwise,
// err is only a consequence of that: a client that is still connected gets the comment that
// the run continues.
func (f *follower) sendError(ctx context.Context, err error) {
	switch {
	case err == nil:
	case endedToken(ctx) != nil:
		f.sendMeta(wire.Meta{Event: "error", Error: fault.Detail(endedToken(ctx))})
	case ctx.Err() != nil:
		f.leave()
	default:
		f.sendMeta(wire.Meta{Event: "error", Error: fault.Detail(err)})
	}
}

// sendMeta sends an event about the stream.
func (f *follower) sendMeta(m wire.Meta) {
	if f.to != nil {
		f.stream.sendFrame(f.to.Event(m))
		return
	}
	f.stream.send(m)
}

// leave ends the stream of a run that continues.
func (f *follower) leave() {
	if f.to != nil {
		f.stream.sendFrame(f.to.HandedOver(wire.Accepted{RunID: f.run.String(), Status: wire.StatusRunning}))
	}
	f.stream.comment(wire.RunContinues)
}

// send sends stored events as they were when the run emitted them. The first ones may be
// events that the client has. Events that an earlier release stored may contain line ends that
// are escaped now.
func (f *follower) send(frames store.Frames) {
	f.sent = true
	frames.Data = wire.EscapeLines(frames.Data)
	if f.to != nil {
		f.translate(frames)
	} else if f.plain && frames.First > f.after {
		f.stream.sendFrame(frames.Data)
	} else {
		out := make([]byte, 0, len(frames.Data)+16*frames.Count)
		index := frames.First
		for frame := range bytes.SplitAfterSeq(frames.Data, []byte("\n\n")) {
			if len(frame) > 0 && index > f.after {
				if !f.plain {
					out = idLine(out, index)
				}
				out = append(out, frame...)
			}
			index++
		}
		f.stream.sendFrame(out)
	}
	f.after = max(f.after, frames.First+frames.Count-1)
}

// translate sends stored events in the protocol of a door.
func (f *follower) translate(frames store.Frames) {
	index := frames.First
	for frame := range bytes.SplitAfterSeq(frames.Data, []byte("\n\n")) {
		if len(frame) > 0 && index > f.after && !f.over {
			// An event that a later version has stored is unknown, and one that it doesn't know can't be translated.
			if e, err := wire.ParseFrame(frame); err == nil {
				f.stream.sendFrame(f.to.Event(e))
				f.over = wire.Last(e.Name()) && !f.through
			}
		}
		index++
	}
}

// idLine appends the id of the next event, with which a client reconnects.
func idLine(to []byte, index int) []byte { return fmt.Appendf(to, "id: %d\n", index) }

// meta returns the first event of a resumed stream. Its names, members and texts are
// AgentOS's.
func (f *follower) meta(c store.EventCounts, requested int) wire.Meta {
	id := f.run.String()
	switch {
	case !f.streamed && wire.Ended(c.Status):
		return wire.Meta{
			Event: "replay", RunID: id, Status: c.Status, TotalEvents: new(0),
			Message: fmt.Sprintf("Run %s with no stored events: a run submitted without streaming keeps only its final output.",
				c.Status),
		}
	case !f.streamed:
		return wire.Meta{
			Event: "replay", RunID: id, Status: c.Status, TotalEvents: new(0),
			Message: fmt.Sprintf("Run is %s and was submitted without streaming, so it has no event stream to attach to. "+
				"Poll the run endpoint for its result.", c.Status),
		}
	case wire.Ended(c.Status):
		return wire.Meta{
			Event: "replay", RunID: id, Status: c.Status,
			TotalEvents: &c.Missed, TotalBuffered: &c.Total, LastEventIndexRequested: &requested,
			Message: fmt.Sprintf("Run %s. Replaying %d missed events (of %d total).", c.Status, c.Missed, c.Total),
		}
	case c.Missed > 0:
		return wire.Meta{
			Event: "catch_up", RunID: id, Status: "running", MissedEvents: &c.Missed, CurrentEventCount: &c.Total,
			Message: fmt.Sprintf("Catching up on %d missed events.", c.Missed),
		}
	}
	return f.subscribed(c.Total)
}

// restarted announces that another process has continued the run from its checkpoint.
// The client discards the run's events that it has.
func (f *follower) restarted(count int) wire.Meta {
	return wire.Meta{
		Event: "catch_up", RunID: f.run.String(), Status: "running",
		MissedEvents: &count, CurrentEventCount: &count,
		Message: "Another process continues the run from its last checkpoint. Its events follow from the first one.",
	}
}

// subscribed announces that only new events follow.
func (f *follower) subscribed(total int) wire.Meta {
	return wire.Meta{
		Event: "subscribed", RunID: f.run.String(), Status: "running", CurrentEventCount: &total,
		Message: "Subscribed to agent run. Receiving live events.",
	}
}
