package run

import (
	"bytes"
	"sync"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// eventLog buffers the frames of one streamed run until they are stored. The pulse stores the frames of all runs in
// one statement; a checkpoint and the end of the run store the rest with their own statement. So a token costs no
// write of its own, and a short run costs no extra round trip. See docs/adr/0005.
//
// Three goroutines use a log: the run adds events, the pulse drains them, and a request to resume may drain them too.
// The two locks keep them apart without letting the run wait for the database: add needs only mu, which is never held
// during a write, while storing orders the writes.
type eventLog struct {
	attempt store.Attempt // the frames are stored for this attempt

	storing sync.Mutex // held while drained frames are on their way to the database
	mu      sync.Mutex // guards the fields below
	first   int        // the index of the first buffered event
	count   int
	frames  bytes.Buffer
	encoder *wire.Encoder // writes into frames
}

// newEventLog returns an empty log for the events of one attempt.
func newEventLog(attempt store.Attempt) *eventLog {
	l := &eventLog{attempt: attempt}
	l.encoder = wire.NewEncoder(&l.frames)
	return l
}

// add encodes an event, buffers its frame and returns the frame. Events are plain data that always encodes; if one
// did not, add would return nil and buffer nothing.
func (l *eventLog) add(index int, e wire.Event) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := l.frames.Len()
	if l.encoder.Encode(e) != nil {
		return nil
	}
	if l.count == 0 {
		l.first = index
	}
	l.count++
	// The consumer may still write the frame when drain resets the buffer, so it gets a copy.
	return bytes.Clone(l.frames.Bytes()[from:])
}

// drain empties the buffer and returns what it held. The caller must call done with the outcome: frames that could
// not be stored go back to the front of the buffer. Until done is called, a second drain blocks, so that frames are
// stored in order.
func (l *eventLog) drain() (b store.Events, done func(stored bool)) {
	l.storing.Lock()
	l.mu.Lock()
	defer l.mu.Unlock()
	b = store.Events{
		RunID: l.attempt.RunID, Attempt: l.attempt.Number, First: l.first, Count: l.count, Frames: l.frames.String(),
	}
	l.count = 0
	l.frames.Reset()
	return b, func(stored bool) {
		defer l.storing.Unlock()
		if stored || b.Count == 0 {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		later := bytes.Clone(l.frames.Bytes())
		l.frames.Reset()
		l.frames.WriteString(b.Frames)
		l.frames.Write(later)
		l.first, l.count = b.First, b.Count+l.count
	}
}

// drainAtEnd is drain for the statement that ends the run. Frames that it could not store are dropped, because
// nothing stores them later. A nil log has no frames.
func (l *eventLog) drainAtEnd() (b store.Events, done func()) {
	if l == nil {
		return b, func() {}
	}
	b, stored := l.drain()
	return b, func() { stored(true) }
}
