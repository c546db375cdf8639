package run

import (
	"bytes"
	"sync"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Event is one event of a run. The last one has either Result or HandedOver, unless an error comes with it.
type Event struct {
	// Event is nil if HandedOver is set.
	wire.Event
	// Frame is the event as a server-sent event. It is set for streamed runs only.
	Frame []byte
	// Result is the whole run. It is set on the last event only.
	Result *wire.Run
	// HandedOver means that another process continues the run. It is set on the last event only. It is no event of
	// the run: the next attempt sends the events that follow.
	HandedOver *wire.Accepted
}

// outbox numbers the events of one leg, encodes them and delivers them to the consumer. Events are emitted by the
// goroutine that executes the leg, so a slow consumer slows the run down rather than filling memory.
type outbox struct {
	// yield is nil if there is no consumer, or if it has stopped iterating.
	yield func(Event, error) bool
	// head is common to all events of the run.
	head wire.Head
	// index is that of the next event.
	index int
	// events is nil if the run is not streamed.
	events *eventLog
}

// emit delivers an event that comes without a result and without an error.
func (o *outbox) emit(e wire.Event) { o.deliver(Event{Event: e, Frame: o.events.add(o.index, e)}, nil) }

// deliver passes an event to the consumer. After yield has returned false it must not be called again; the run
// continues without a consumer, because the client can read the result or resume the stream later.
func (o *outbox) deliver(e Event, err error) {
	o.index++
	if o.yield != nil && !o.yield(e, err) {
		o.yield = nil
	}
}

// eventLog keeps the frames of one leg until they are stored. A batch of frames keeps its first event and its number of
// events from the first try to store it until a try has succeeded. If the answer of a try was lost, the next one finds
// the same batch in the table and changes nothing. The pulse stores the batches of all runs in one statement; a
// checkpoint and the end of the leg store the rest with their own statement. So a token costs no write of its own, and
// a short run costs no extra round trip. See docs/adr/0005. A nil log has no frames.
//
// Several goroutines use a log, and none of them holds its lock during a write to the database. Two statements may hold
// the same batch at the same time, which is harmless.
type eventLog struct {
	leg store.Leg

	mu      sync.Mutex // guards the fields below
	sealed  []store.Events
	first   int // the index of the first event that is in no batch yet
	count   int
	frames  bytes.Buffer
	encoder *wire.Encoder // writes into frames
}

// newEventLog returns an empty log for the events of one leg.
func newEventLog(leg store.Leg) *eventLog {
	l := &eventLog{leg: leg}
	l.encoder = wire.NewEncoder(&l.frames)
	return l
}

// add keeps the frame of an event and returns it. Events are plain data that always encodes; if one did not, add would
// return nil and keep nothing.
func (l *eventLog) add(index int, e wire.Event) []byte {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	from := l.frames.Len()
	if l.encoder.Encode(e) != nil {
		return nil
	}
	// The consumer may still write the frame when the buffer is reset, so it gets a copy.
	frame := bytes.Clone(l.frames.Bytes()[from:])
	if clean := storable(frame); !bytes.Equal(clean, frame) {
		frame = clean
		l.frames.Truncate(from)
		l.frames.Write(frame)
	}
	if l.count == 0 {
		l.first = index
	}
	l.count++
	return frame
}

// pending makes a batch of the frames that are in none, and returns all batches that may not be stored yet.
func (l *eventLog) pending() []store.Events {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count > 0 {
		l.sealed = append(l.sealed, store.Events{
			RunID: l.leg.RunID, Attempt: l.leg.Attempt, First: l.first, Count: l.count, Frames: l.frames.String(),
		})
		l.count = 0
		l.frames.Reset()
	}
	return l.sealed[:len(l.sealed):len(l.sealed)]
}

// stored forgets batches that pending has returned.
func (l *eventLog) stored(batches []store.Events) {
	if l == nil || len(batches) == 0 {
		return
	}
	last := batches[len(batches)-1].First
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.sealed) > 0 && l.sealed[0].First <= last {
		l.sealed = l.sealed[1:]
	}
}

// withLast returns the batches of pending and one more with the last event, which is not kept in the log: if it cannot
// be stored, another event becomes the last one. frame is the encoded event. With stateInSession the stored one lacks
// the state, which the store adds when it reads the event.
func (l *eventLog) withLast(index int, e wire.Event, stateInSession bool) (batches []store.Events, frame []byte) {
	if l == nil {
		return nil, nil
	}
	batches = l.pending()
	var b bytes.Buffer
	if wire.NewEncoder(&b).Encode(e) != nil {
		return batches, nil
	}
	frame = storable(bytes.Clone(b.Bytes()))
	stored := frame
	if completed, ok := e.(wire.Completed); ok && stateInSession {
		b.Reset()
		completed.SessionState = store.EmptyState
		_ = wire.NewEncoder(&b).Encode(completed) // It has been encoded with the state.
		stored = storable(b.Bytes())
	}
	return append(batches, store.Events{
		RunID: l.leg.RunID, Attempt: l.leg.Attempt, First: index, Count: 1, Frames: string(stored),
	}), frame
}
