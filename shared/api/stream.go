package api

import (
	"io"
	"iter"
	"net/http"
	"slices"
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
	encoder *wire.Encoder
	closed  bool        // a write failed, or close was called: write nothing more
	failed  func()      // called when a write has failed; nil for none
	idle    *time.Timer // sends the next keep-alive comment
	flushed time.Time   // when the last flush was
	later   *time.Timer // flushes the events that a burst left unflushed
	pending bool        // later is set
}

// openStream sends the status and the headers of a stream.
func openStream(w http.ResponseWriter) *eventStream {
	w.Header().Set("Content-Type", wire.MediaType)
	w.Header().Set("Cache-Control", "no-cache, no-store") // AgentOS sends no-cache
	w.Header().Set("X-Accel-Buffering", "no")             // keeps nginx from buffering the events
	w.WriteHeader(http.StatusOK)
	s := &eventStream{w: w, control: http.NewResponseController(w), encoder: wire.NewEncoder(w)}
	s.idle = time.AfterFunc(keepAlive, func() { s.comment(wire.KeepAlive) })
	s.later = time.AfterFunc(time.Hour, s.flushRest)
	s.later.Stop()
	return s
}

// send frames an event and sends it.
func (s *eventStream) send(e wire.Event) {
	s.write(func() error { return s.encoder.Encode(e) })
}

// sendFrame sends one or more events that are framed already.
func (s *eventStream) sendFrame(frame []byte) {
	if len(frame) == 0 {
		return
	}
	s.write(func() (err error) {
		for piece := range slices.Chunk(frame, maxWrite) {
			if len(frame) > maxWrite {
				s.extendDeadline()
			}
			if _, err = s.w.Write(piece); err != nil {
				break
			}
		}
		return err
	})
}

// comment sends a framed comment, which clients ignore.
func (s *eventStream) comment(text string) {
	s.write(func() error { _, err := io.WriteString(s.w, text); return err })
}

// write calls put, and flushes at once or after the rest of flushInterval.
func (s *eventStream) write(put func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if put() != nil {
		s.fail()
		return
	}
	switch since := time.Since(s.flushed); {
	case since >= flushInterval:
		s.flush()
	case !s.pending:
		s.pending = true
		s.later.Reset(flushInterval - since)
	}
}

// flushRest flushes the end of a burst. The timer later calls it.
func (s *eventStream) flushRest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = false
	if !s.closed {
		s.flush()
	}
}

// flush sends what is buffered and starts the idle time anew. The caller holds mu.
func (s *eventStream) flush() {
	s.flushed = time.Now()
	s.extendDeadline()
	if s.control.Flush() != nil {
		s.fail()
	}
	s.idle.Reset(keepAlive)
}

// extendDeadline gives the client writeTimeout from now on. Not every writer supports
// deadlines.
func (s *eventStream) extendDeadline() { _ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) }

// fail records that the client has disconnected. The caller holds mu.
func (s *eventStream) fail() {
	s.closed = true
	if s.failed != nil {
		s.failed()
	}
}

// close stops the timers. The handler must call it before it returns: net/http forbids
// the use of a ResponseWriter after that, and a timer would still write to it.
func (s *eventStream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.idle.Stop()
	s.later.Stop()
}
