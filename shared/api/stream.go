package api

import (
	"io"
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/wire"
)

const (
	// flushEvery is the least time between two flushes: an event after a pause goes
	// out at once, those of a burst wait for each other. A flush is a system call,
	// and costs as much as ten events.
	flushEvery = 4 * time.Millisecond
	// keepAlive is the longest silence on a stream; proxies cut idle ones at 60 s.
	keepAlive = 15 * time.Second
	// writeTimeout is how long one write may wait for a client that reads nothing.
	writeTimeout = 30 * time.Second
)

// stream sends a run's events as they happen. Headers go out with the first
// event, when nothing can be a 4xx any more; a client that goes away stops
// hearing of the run, which goes on.
func (a Runs) stream(w http.ResponseWriter, r *request, events iter.Seq2[run.Event, error]) error {
	var s *eventStream
	for e, err := range events {
		if err != nil && e.Event == nil {
			return err
		}
		if e.HandedOver != nil {
			logging.Note(r.Context(), "handed_over", e.HandedOver.RunID)
			s.goesOn()
			break
		}
		if s == nil {
			s = openStream(w)
			defer s.close()
		}
		if e.Frame != nil {
			s.sendFrame(e.Frame)
		} else {
			s.send(e.Event)
		}
		if err != nil {
			logging.Note(r.Context(), "err", err.Error())
		}
		if e.Result != nil {
			logging.Note(r.Context(), "run_id", e.Result.RunID)
		}
	}
	return nil
}

// eventStream writes events and, in long silences, keep-alive comments.
type eventStream struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	control *http.ResponseController
	encoder *wire.Encoder
	gone    bool // the client doesn't listen any more
	quiet   *time.Timer
	flushed time.Time   // the last flush
	later   *time.Timer // flushes what a burst left behind
	waiting bool        // later is set
}

func openStream(w http.ResponseWriter) *eventStream {
	w.Header().Set("Content-Type", wire.MediaType)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	w.WriteHeader(http.StatusOK)
	s := &eventStream{w: w, control: http.NewResponseController(w), encoder: wire.NewEncoder(w)}
	s.quiet = time.AfterFunc(keepAlive, s.comment)
	s.later = time.AfterFunc(time.Hour, s.rest)
	s.later.Stop()
	return s
}

func (s *eventStream) send(e wire.Event) {
	s.write(func() error { return s.encoder.Encode(e) })
}

// sendFrame sends an event that was framed already.
func (s *eventStream) sendFrame(frame []byte) {
	s.write(func() error { _, err := s.w.Write(frame); return err })
}

// isGone reports whether the client doesn't listen any more.
func (s *eventStream) isGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

func (s *eventStream) comment() { s.say(wire.KeepAlive) }

// goesOn tells who reads comments why the stream ends and the run doesn't.
func (s *eventStream) goesOn() { s.say(wire.GoesOn) }

func (s *eventStream) say(comment string) {
	s.write(func() error { _, err := io.WriteString(s.w, comment); return err })
}

func (s *eventStream) write(put func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	if s.gone = put() != nil; s.gone {
		return
	}
	switch since := time.Since(s.flushed); {
	case since >= flushEvery:
		s.flush()
	case !s.waiting:
		s.waiting = true
		s.later.Reset(flushEvery - since)
	}
}

// rest flushes the end of a burst.
func (s *eventStream) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
	if !s.gone {
		s.flush()
	}
}

// flush must be called with mu held.
func (s *eventStream) flush() {
	s.flushed = time.Now()
	_ = s.control.SetWriteDeadline(s.flushed.Add(writeTimeout)) // not every writer has deadlines
	s.gone = s.control.Flush() != nil
	s.quiet.Reset(keepAlive)
}

func (s *eventStream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	s.quiet.Stop()
	s.later.Stop()
}
