package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// MediaType is the content type of an event stream, as AgentOS writes it.
const MediaType = "text/event-stream; charset=utf-8"

// KeepAlive is a comment (HTML standard, "Server-sent events"). Clients ignore it. It shows the
// client and each proxy on the way that the connection is still in use, so that they
// don't close it while the model thinks.
const KeepAlive = ": keep-alive\n\n"

// RunContinues is the comment at the end of a stream whose run has not ended: the time
// limit of this request is over, or another process executes the run now. A person who
// reads the stream learns where the other events are.
const RunContinues = ": the run continues; its resume route sends the next events\n\n"

// Encoder writes events as frames: "event: NAME", "data: " with one line of JSON, and an
// empty line. It is for one stream, and keeps its buffer from event to event. It is not
// safe for concurrent use.
type Encoder struct {
	w    io.Writer
	buf  bytes.Buffer
	json *json.Encoder // writes to buf
}

// NewEncoder returns an Encoder that writes each frame to w with a single Write, so that a
// frame is never sent in part.
func NewEncoder(w io.Writer) *Encoder {
	e := &Encoder{w: w}
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	return e
}

// Encode writes one event. JSON escapes line ends, so that no text in an event can end its
// frame and begin another. If the event can't be encoded, nothing is written.
func (e *Encoder) Encode(event Event) error {
	e.buf.Reset()
	e.buf.WriteString("event: ")
	e.buf.WriteString(event.Name())
	e.buf.WriteString("\ndata: ")
	if err := e.json.Encode(event); err != nil { // it ends with a line end
		return fmt.Errorf("event %s: %w", event.Name(), err)
	}
	e.buf.WriteByte('\n')
	_, err := e.w.Write(e.buf.Bytes())
	return err
}
