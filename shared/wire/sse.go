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
//
// No comment is followed by an empty line. An empty line ends an event, and some clients
// dispatch an event without data: @microsoft/fetch-event-source 2.0.1 passes it to the page,
// whose JSON.parse then fails, and sends the POST again.
const KeepAlive = ": keep-alive\n"

// RunContinues is the comment at the end of a stream whose run has not ended: the time
// limit of this request is over, or another process executes the run now. A person who
// reads the stream learns where the other events are.
const RunContinues = ": the run continues; its resume route sends the next events\n"

// Encoder encodes events as frames: "event: NAME", "data: " with one line of JSON, and an
// empty line. It is for one stream, and keeps its buffers from event to event. It is not
// safe for concurrent use.
type Encoder struct {
	w    io.Writer
	last repeated
	buf  []byte        // a frame of Encode
	json *json.Encoder // of the events that append does not know itself; writes to rest
	rest bytes.Buffer
}

// NewEncoder returns an Encoder whose Encode writes each frame to w with a single Write, so that a
// frame is never sent in part. For an Encoder of which only Append is used, w may be nil.
func NewEncoder(w io.Writer) *Encoder { return &Encoder{w: w} }

// Encode writes one event. If the event can't be encoded, nothing is written.
func (e *Encoder) Encode(event Event) (err error) {
	if e.buf, err = e.Append(e.buf[:0], event); err != nil {
		return err
	}
	_, err = e.w.Write(e.buf)
	return err
}

// Append appends the frame of an event to dst. JSON escapes line ends, so that no text in an event can end its
// frame and begin another; see EscapeLines. If the event can't be encoded, dst is returned as it was.
func (e *Encoder) Append(dst []byte, event Event) ([]byte, error) {
	before := dst
	dst = append(append(append(dst, "event: "...), event.Name()...), "\ndata: "...)
	if content, ok := event.(Content); ok {
		if all, ok := e.last.appendContent(dst, &content); ok {
			return append(all, "\n\n"...), nil
		}
	}
	if e.json == nil {
		e.json = json.NewEncoder(&e.rest)
		e.json.SetEscapeHTML(false)
	}
	e.rest.Reset()
	if err := e.json.Encode(event); err != nil { // it ends with a line end
		return before, fmt.Errorf("event %s: %w", event.Name(), err)
	}
	return append(append(dst, EscapeLines(e.rest.Bytes())...), '\n'), nil
}

// ParseFrame is the reverse of Encode for the events of a run. An unknown event is an error.
func ParseFrame(frame []byte) (Event, error) {
	head, data, _ := bytes.Cut(frame, []byte("\ndata: "))
	name, named := bytes.CutPrefix(head, []byte("event: "))
	if !named {
		return nil, fmt.Errorf("frame without a name")
	}
	switch string(name) {
	case EventRunStarted, EventModelRequestStarted:
		return parse[Started](data)
	case EventRunContent:
		return parse[Content](data) // a ContentOpened is a Content without a text
	case EventModelRequestCompleted:
		return parse[ModelCompleted](data)
	case EventRunContentCompleted, EventRunContinued:
		return parse[ContentCompleted](data)
	case EventToolCallStarted:
		return parse[ToolStarted](data)
	case EventToolCallCompleted:
		return parse[ToolCompleted](data)
	case EventToolCallError:
		return parse[ToolFailed](data)
	case EventRunPaused:
		return parse[Paused](data)
	case EventRunCompleted:
		return parse[Completed](data)
	case EventRunError:
		return parse[Failed](data)
	case EventRunCancelled:
		return parse[Cancelled](data)
	}
	return nil, fmt.Errorf("unknown event %q", name)
}

func parse[T Event](data []byte) (Event, error) {
	var e T
	err := json.Unmarshal(data, &e)
	return e, err
}

// lineEnds are the characters beyond ASCII at which Python's str.splitlines ends a line. JSON
// and server-sent events don't end a line there, and encoding/json escapes only some of them.
var lineEnds = []struct{ raw, escaped []byte }{
	{[]byte("\u0085"), []byte(`\u0085`)}, {[]byte("\u2028"), []byte(`\u2028`)}, {[]byte("\u2029"), []byte(`\u2029`)},
}

// EscapeLines escapes the line ends beyond ASCII in frames whose data is JSON. AgentOS's
// Python client splits a stream with str.splitlines, and would lose the event. Outside of
// its strings JSON is ASCII, so the meaning stays the same. Frames without such characters
// are returned as they are.
func EscapeLines(frames []byte) []byte {
	for _, end := range lineEnds {
		if bytes.Contains(frames, end.raw) {
			frames = bytes.ReplaceAll(frames, end.raw, end.escaped)
		}
	}
	return frames
}
