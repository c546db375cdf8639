package run

import (
	"bytes"
	"strings"
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

// eventLog keeps the frames of one leg until they are stored. A batch of frames keeps its first event and its
// number of events from the first try to store it until a try has succeeded. If the answer of a try was lost, the
// next one finds the same batch in the table and changes nothing. The pulse stores the batches of all runs in one
// statement; a checkpoint and the end of the leg store the rest with their own statement. So a token costs no write
// of its own, and a short run costs no extra round trip. See docs/adr/0005. A nil log has no frames.
//
// Several goroutines use a log, and none of them holds its lock during a write to the database. Two statements may
// hold the same batch at the same time, which is harmless.
type eventLog struct {
	leg store.Leg

	mu     sync.Mutex // guards the fields below
	sealed []store.Events
	// open are the frames that are in no batch yet.
	open frames
	// ending means that the leg ends: only its last statement stores the open frames, together with the last event. So a
	// short run has one row of events.
	ending  bool
	encoder *wire.Encoder
}

// newEventLog returns an empty log for the events of one leg.
func newEventLog(leg store.Leg) *eventLog { return &eventLog{leg: leg, encoder: wire.NewEncoder(nil)} }

// frames are the encoded events of a leg from an index on. They are kept in pieces that never move, so that the
// consumer and the log share them, and a long answer is not copied again and again while it grows.
type frames struct {
	first, count int
	full         [][]byte // pieces without room
	last         []byte   // the piece that is filled
}

// The sizes of a piece, in bytes. The first one has room for the few events before the model's answer: a stream that
// waits for its model should not hold more.
const minPiece, maxPiece = 1 << 10, 16 << 10

// add appends an event and returns its frame, or nil if it cannot be encoded.
func (f *frames) add(encoder *wire.Encoder, index int, e wire.Event) []byte {
	const ofToken = 512 // A frame of one token is shorter. A longer frame moves the piece once.
	if cap(f.last)-len(f.last) < ofToken {
		if len(f.last) > 0 {
			f.full = append(f.full, f.last)
		}
		f.last = make([]byte, 0, min(max(4*cap(f.last), minPiece), maxPiece))
	}
	from := len(f.last)
	all, err := encoder.Append(f.last, e)
	if err != nil {
		return nil
	}
	if clean := storable(all[from:]); len(clean) != len(all)-from || !bytes.Equal(clean, all[from:]) {
		all = append(all[:from], clean...)
	}
	if f.last = all; f.count == 0 {
		f.first = index
	}
	f.count++
	return all[from:len(all):len(all)]
}

// batch returns the frames as one batch, with more frames at its end.
func (f *frames) batch(leg store.Leg, more []byte) store.Events {
	size := len(f.last) + len(more)
	for _, piece := range f.full {
		size += len(piece)
	}
	var text strings.Builder
	text.Grow(size)
	for _, piece := range f.full {
		text.Write(piece)
	}
	text.Write(f.last)
	text.Write(more)
	return store.Events{
		RunID: leg.RunID, Attempt: leg.Attempt, First: f.first, Count: f.count, Frames: text.String(),
	}
}

// add keeps the frame of an event and returns it. Events are plain data that always encodes; if one did not, add would
// return nil and keep nothing.
func (l *eventLog) add(index int, e wire.Event) []byte {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open.add(l.encoder, index, e)
}

// pending makes a batch of the frames that are in none, and returns all batches that may not be stored yet.
func (l *eventLog) pending() []store.Events {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open.count > 0 && !l.ending {
		l.sealed = append(l.sealed, l.open.batch(l.leg, nil))
		l.open = frames{}
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

// withLast returns the batches that may not be stored yet, of which the last one ends with this event. The event is
// not kept in the log: if it cannot be stored, another event becomes the last one. frame is the encoded event. With
// stateInSession the stored one lacks the state, which the store adds when it reads the event.
//
// The last batch is in no other statement: otherwise that one could store it without the event, and this event
// would be taken for stored.
func (l *eventLog) withLast(index int, e wire.Event, stateInSession bool) (batches []store.Events, frame []byte) {
	if l == nil {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = true
	batches = l.sealed[:len(l.sealed):len(l.sealed)]
	var last frames
	if frame = last.add(l.encoder, index, e); frame == nil {
		return batches, nil
	}
	stored := frame
	if completed, ok := e.(wire.Completed); ok && stateInSession {
		completed.SessionState = store.EmptyState
		stored = last.add(l.encoder, index, completed)
	}
	all := l.open
	if all.count == 0 {
		all.first = index
	}
	all.count++
	return append(batches, all.batch(l.leg, stored)), frame
}
