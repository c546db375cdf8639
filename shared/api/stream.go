package api

import (
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/wire"
)

const (
	// flushInterval is the least time between two flushes. An event after a pause is
	// sent at once; the events of a burst are sent together. A flush is a system call
	// and costs as much CPU as encoding ten events.
	flushInterval = 4 * time.Millisecond
	// keepAlive is the longest time without a byte on a stream. Proxies and load
	// balancers commonly close connections that are idle for 60 seconds.
	keepAlive = 15 * time.Second
	// writeTimeout is how long one write may wait for a client that reads nothing.
	writeTimeout = 30 * time.Second
	// deadlineLag is how old the deadline of a write may be when it is used: to set it anew for each token would cost as
	// much as the token.
	deadlineLag = time.Second
	// maxWrite is the size of one write in bytes. Stored events of a run can have megabytes,
	// and a client that reads them slowly must not reach writeTimeout.
	maxWrite = 32 << 10
)

// stream sends the events of a run as they happen. The status and the headers are sent
// with the first event: until then an error can still be answered as 4xx or 5xx. A
// client that disconnects stops receiving events, and the run continues.
//
// When the run is handed over to another process, the stream ends with a comment that
// names the resume route. The run's own events don't mention the hand-over.
func (a Runs) stream(w http.ResponseWriter, r *request, events iter.Seq2[run.Event, error]) error {
	return a.streamAs(w, r, events, nil)
}

// streamAs is stream in the protocol of a door, or in AgentOS's if to is nil.
func (a Runs) streamAs(w http.ResponseWriter, r *request, events iter.Seq2[run.Event, error], to encoder) error {
	var s *eventStream
	for e, err := range events {
		if err != nil && e.Event == nil {
			return err
		}
		if s == nil {
			if to != nil {
				noteIDs(w, e.Event)
			}
			s = openStream(w)
			defer s.close()
		}
		if e.HandedOver != nil {
			logging.Note(r.Context(), "handed_over", e.HandedOver.RunID)
			if to != nil {
				s.sendFrame(to.HandedOver(*e.HandedOver))
			}
			s.comment(wire.RunContinues)
			break
		}
		// A streamed run has framed its events to store them; sending the same bytes saves
		// encoding them twice, and a resumed stream has exactly these bytes again.
		switch {
		case to != nil:
			s.sendFrame(to.Event(e.Event))
		case e.Frame != nil:
			s.sendFrame(e.Frame)
		default:
			s.send(e.Event)
		}
		// An error beside an event means that the end of the run could not be stored. The event
		// reports it to the client.
		if err != nil {
			logging.Note(r.Context(), "err", fault.Reason(err))
		}
		if e.Result != nil {
			logging.Note(r.Context(), "run_id", e.Result.RunID)
		}
	}
	return nil
}

// eventStream writes server-sent events to one client. It sends a comment when there
// was no event for keepAlive. It is safe for concurrent use, because its timers write
// from goroutines of their own.
type eventStream struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	control *http.ResponseController
	closed  bool        // a write failed, or close was called: write nothing more
	failed  func()      // called when a write has failed; nil for none
	idle    *time.Timer // sends the next keep-alive comment
	flushed time.Time   // when the last flush was
	later   *time.Timer // writes and flushes the held events; nil until there are some
	pending bool        // later is set
	// held are events of a burst that are not written yet; nil for none. A stream that waits for its model has no buffer.
	held     *[]byte
	extended time.Time // when the deadline was set
}

// buffers are the buffers of bursts, each with room for maxWrite bytes.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, maxWrite); return &b }}

// openStream sends the status and the headers of a stream.
func openStream(w http.ResponseWriter) *eventStream {
	w.Header().Set("Content-Type", wire.MediaType)
	w.Header().Set("Cache-Control", "no-cache, no-store") // AgentOS sends no-cache
	w.Header().Set("X-Accel-Buffering", "no")             // keeps nginx from buffering the events
	w.WriteHeader(http.StatusOK)
	s := &eventStream{w: w, control: http.NewResponseController(w)}
	s.mu.Lock() // the timer may be faster
	defer s.mu.Unlock()
	s.flushed = time.Now().Add(-flushInterval)
	s.idle = time.AfterFunc(keepAlive, s.whenIdle)
	return s
}

// send frames an event and sends it.
func (s *eventStream) send(e wire.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frame, err := wire.NewEncoder(nil).Append(nil, e)
	if err != nil {
		s.fail()
		return
	}
	s.write(frame)
}

// sendFrame sends one or more events that are framed already.
func (s *eventStream) sendFrame(frame []byte) {
	if len(frame) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(frame)
}

// comment sends a framed comment, which clients ignore.
func (s *eventStream) comment(text string) { s.sendFrame([]byte(text)) }

// write sends frames at once, or with the rest of a burst. The caller holds mu.
func (s *eventStream) write(frames []byte) {
	if s.closed {
		return
	}
	now := time.Now()
	if since := now.Sub(s.flushed); since < flushInterval {
		s.hold(frames)
		if !s.pending {
			s.pending = true
			s.flushLater(flushInterval - since)
		}
		return
	}
	s.writeHeld()
	s.put(frames)
	s.flush(now)
}

// hold keeps frames for the next flush. What does not fit is written.
func (s *eventStream) hold(frames []byte) {
	if s.held != nil && len(*s.held)+len(frames) > maxWrite {
		s.writeHeld()
	}
	if len(frames) > maxWrite {
		s.put(frames)
		return
	}
	if s.held == nil {
		s.held = buffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	}
	*s.held = append(*s.held, frames...)
}

// writeHeld writes the held events.
func (s *eventStream) writeHeld() {
	held := s.held
	if s.held = nil; held == nil {
		return
	}
	s.put(*held)
	*held = (*held)[:0]
	buffers.Put(held)
}

// put writes frames, in parts of at most maxWrite bytes with a deadline each if they are longer.
func (s *eventStream) put(frames []byte) {
	for long := len(frames) > maxWrite; len(frames) > 0 && !s.closed; {
		part := frames[:min(len(frames), maxWrite)]
		if now := time.Now(); long || now.Sub(s.extended) >= deadlineLag {
			s.extendDeadline(now)
		}
		if _, err := s.w.Write(part); err != nil {
			s.fail()
		}
		frames = frames[len(part):]
	}
}

// flushLater sets the timer for the end of a burst.
func (s *eventStream) flushLater(after time.Duration) {
	if s.later == nil {
		s.later = time.AfterFunc(after, s.flushRest)
		return
	}
	s.later.Reset(after)
}

// flushRest flushes the end of a burst. The timer later calls it.
func (s *eventStream) flushRest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = false
	if !s.closed {
		s.writeHeld()
		s.flush(time.Now())
	}
}

// whenIdle sends a comment if nothing was sent for keepAlive. The timer idle calls it; it is not set anew with each
// event.
func (s *eventStream) whenIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if left := keepAlive - time.Since(s.flushed); left > 0 {
		s.idle.Reset(left)
		return
	}
	s.write([]byte(wire.KeepAlive))
	s.idle.Reset(keepAlive)
}

// flush sends what is written. The caller holds mu.
func (s *eventStream) flush(now time.Time) {
	if s.closed {
		return
	}
	s.flushed = now
	if s.control.Flush() != nil {
		s.fail()
	}
}

// extendDeadline gives the client writeTimeout from now on. Not every writer supports
// deadlines.
func (s *eventStream) extendDeadline(now time.Time) {
	s.extended = now
	_ = s.control.SetWriteDeadline(now.Add(writeTimeout))
}

// fail records that the client has disconnected. The caller holds mu.
func (s *eventStream) fail() {
	if s.closed {
		return
	}
	s.closed = true
	if s.failed != nil {
		s.failed()
	}
}

// close writes what is held and stops the timers. The handler must call it before it returns: net/http forbids
// the use of a ResponseWriter after that, and a timer would still write to it.
func (s *eventStream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.writeHeld()
	}
	s.closed = true
	s.idle.Stop()
	if s.later != nil {
		s.later.Stop()
	}
}
