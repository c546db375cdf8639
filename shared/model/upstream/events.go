package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
)

// MaxEvent is the size in bytes of the largest event that is read into memory. An event is
// one JSON value. Providers send far smaller ones; the limit protects this process from a
// provider that never ends an event.
const MaxEvent = 10 << 20

// Events is a reader of server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html). It yields the data
// of one event after the other, as one stream of JSON values for a json.Decoder, up to
// [DONE] or the end of the body. Event names and IDs are skipped, because the providers
// repeat them in the data. One call of Read returns data of one event at most.
type Events struct {
	lines *bufio.Scanner
	data  []byte // the unread data of the current line
	held  int    // bytes read since Next
	any   bool   // at least one event was read
	err   error  // why reading ended; io.EOF for a clean end
}

// NewEvents returns a reader of the events in body.
func NewEvents(body io.Reader) *Events {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, MaxEvent)
	return &Events{lines: lines}
}

// Next starts the count of MaxEvent anew. The caller calls it before it decodes a
// value. Events can't know where a value ends, since a value may stand on several data
// lines.
func (e *Events) Next() { e.held = 0 }

// Read implements io.Reader. It returns bufio.ErrTooLong when one line, or one value,
// has more than MaxEvent bytes.
func (e *Events) Read(p []byte) (int, error) {
	for len(e.data) == 0 {
		if e.err == nil {
			e.err = e.line()
		}
		if e.err != nil {
			return 0, e.err
		}
	}
	n := copy(p, e.data)
	e.data = e.data[n:]
	if e.held += n; e.held > MaxEvent {
		e.err = bufio.ErrTooLong
		return 0, e.err
	}
	return n, nil
}

// line reads the next line and puts its data, if it is a data line, into e.data.
func (e *Events) line() error {
	if !e.lines.Scan() {
		if err := e.lines.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	data, ok := bytes.CutPrefix(e.lines.Bytes(), []byte("data:"))
	if !ok {
		return nil
	}
	if data = bytes.TrimSpace(data); bytes.Equal(data, []byte("[DONE]")) {
		return io.EOF
	}
	e.any = e.any || len(data) > 0
	e.data = data
	return nil
}

// Ended reports whether the stream has ended, cleanly or by a lost connection. It is
// false after an event that is too long, because more would follow.
func (e *Events) Ended() bool { return e.err != nil && !errors.Is(e.err, bufio.ErrTooLong) }

// StreamError returns the fault.Upstream error for a stream that ended before its end
// mark. err is the error of the decoder that read from e; contentType is that of the
// response; mark names the missing end mark for the log.
func (e *Events) StreamError(err error, contentType, mark string) error {
	switch lost := e.err; {
	case errors.Is(lost, bufio.ErrTooLong):
		return fault.Public(fault.Upstream, TooLong, err)
	case lost == nil: // there was more to read, but it wasn't JSON
		return fault.Public(fault.Upstream, NoAnswer, fmt.Errorf("event: %w", err))
	case lost != io.EOF: //nolint:errorlint // a wrapped EOF is a lost connection
		return ConnectionError(lost)
	case !e.any && !strings.HasPrefix(contentType, "text/event-stream"):
		return fault.Public(fault.Upstream, NoStream, fmt.Errorf("content type %q", contentType))
	default:
		return fault.Public(fault.Upstream, CutShort, errors.New("no "+mark))
	}
}
