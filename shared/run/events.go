package run

import (
	"bytes"
	"sync"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// eventLog keeps the frames of one streamed run until they are stored: the pulse
// stores those of all runs in one statement, and the run's end stores its rest.
type eventLog struct {
	held store.Held

	storing sync.Mutex // held while frames are on their way to the database
	mu      sync.Mutex // guards what follows
	first   int
	count   int
	frames  bytes.Buffer
	encoder *wire.Encoder // into frames
}

func newEventLog(held store.Held) *eventLog {
	l := &eventLog{held: held}
	l.encoder = wire.NewEncoder(&l.frames)
	return l
}

// add frames an event and keeps it. Events are plain data that always encodes;
// one that doesn't is nil, and isn't kept.
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
	return bytes.Clone(l.frames.Bytes()[from:]) // the buffer is taken away while the caller still writes
}

// take begins to store what was kept. done must be called with the outcome: frames
// that could not be stored are kept again.
func (l *eventLog) take() (b store.Events, done func(stored bool)) {
	l.storing.Lock()
	l.mu.Lock()
	defer l.mu.Unlock()
	b = store.Events{RunID: l.held.RunID, Attempt: l.held.Attempt, First: l.first, Count: l.count, Frames: l.frames.String()}
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

// rest is what the run's end stores itself. Without a log there is nothing.
func (l *eventLog) rest() (b store.Events, done func()) {
	if l == nil {
		return b, func() {}
	}
	b, stored := l.take()
	return b, func() { stored(true) } // nobody stores what the end could not
}
