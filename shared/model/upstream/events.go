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

// MaxEvent bounds what one event, and so one JSON value, may hold in memory.
const MaxEvent = 10 << 20

// Events reads the data of server-sent events, one after the other, up to [DONE]
// (https://html.spec.whatwg.org/multipage/server-sent-events.html). Event names
// and ids are skipped: vendors repeat in the data what they say in them. Each Read
// gives bytes of one event at most.
type Events struct {
	lines *bufio.Scanner
	data  []byte // of the current line, not yet read
	held  int    // bytes read since Next
	any   bool   // at least one event was seen
	err   error  // why reading ended; io.EOF for a clean end
}

// NewEvents reads events from body.
func NewEvents(body io.Reader) *Events {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, MaxEvent)
	return &Events{lines: lines}
}

// Next forgives what was read: the reader has taken a whole value out of it.
func (e *Events) Next() { e.held = 0 }

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

// line puts the next line's data, if it has any, into e.data.
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

// Ended reports whether there is no more to read, be it that the connection is lost.
// What is too long has not ended.
func (e *Events) Ended() bool { return e.err != nil && !errors.Is(e.err, bufio.ErrTooLong) }

// BrokeOff says why a stream ended before its end mark. err is the decoder's.
func (e *Events) BrokeOff(err error, contentType, mark string) error {
	switch lost := e.err; {
	case errors.Is(lost, bufio.ErrTooLong):
		return fault.Public(fault.Upstream, TooLong, err)
	case lost == nil: // there was more to read, but not JSON
		return fault.Public(fault.Upstream, NoAnswer, fmt.Errorf("event: %w", err))
	case lost != io.EOF: //nolint:errorlint // a wrapped EOF is a lost connection
		return Lost(lost)
	case !e.any && !strings.HasPrefix(contentType, "text/event-stream"):
		return fault.Public(fault.Upstream, NoStream, fmt.Errorf("content type %q", contentType))
	default:
		return fault.Public(fault.Upstream, CutShort, errors.New("no "+mark))
	}
}
