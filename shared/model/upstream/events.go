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
//
// The one exception is an event named error. Servers put anything into its data, also
// plain text, so Events reads it itself and ends: KeyedProvider.StreamError returns what it
// reports. Earlier versions of llama.cpp's server send a field "error" in place of an
// event, which Events treats the same way.
type Events struct {
	lines    *bufio.Scanner
	data     []byte  // the unread data of the current line
	last     []byte  // all data of the current line
	held     int     // bytes read since Next
	given    int64   // bytes that Read has returned
	begun    bool    // the first line was read
	any      bool    // at least one event was read
	err      error   // why reading ended; io.EOF for a clean end
	reported *Report // of an event named error
}

// firstBuffer is the size in bytes of the buffer for lines. It grows with a longer line. Nearly all lines are shorter,
// and a stream that waits for its model should hold no more.
const firstBuffer = 1 << 10

// NewEvents returns a reader of the events in body.
func NewEvents(body io.Reader) *Events {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, firstBuffer), MaxEvent)
	lines.Split(splitLines())
	return &Events{lines: lines}
}

// splitLines is bufio.ScanLines, except that it searches each byte only once. A server may send a line of many MB in
// small pieces, and bufio.ScanLines would search all of it again with each piece.
func splitLines() bufio.SplitFunc {
	searched := 0 // how much of the data has no line end
	return func(data []byte, atEOF bool) (advance int, line []byte, err error) {
		if i := bytes.IndexByte(data[searched:], '\n'); i >= 0 {
			end := searched + i
			searched = 0
			return end + 1, bytes.TrimSuffix(data[:end], []byte("\r")), nil
		}
		if atEOF && len(data) > 0 {
			searched = 0
			return len(data), bytes.TrimSuffix(data, []byte("\r")), nil
		}
		searched = len(data)
		return 0, nil, nil
	}
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
	e.data, e.given = e.data[n:], e.given+int64(n)
	if e.held += n; e.held > MaxEvent {
		e.err = bufio.ErrTooLong
		return 0, e.err
	}
	return n, nil
}

// Peek reads the next data line, which Last returns then, without taking it from what Read returns. It reports
// false if there is none, or if more than the first decoded bytes were read from e: then the line continues a value
// that has begun. Skip takes the line.
func (e *Events) Peek(decoded int64) bool {
	if e.given != decoded {
		return false
	}
	for len(e.data) == 0 && e.err == nil {
		e.err = e.line()
	}
	return e.err == nil && len(e.data) == len(e.last)
}

// Skip takes the line that Peek has read.
func (e *Events) Skip() { e.data = nil }

// line reads the next line and puts its data, if it is a data line, into e.data.
func (e *Events) line() error {
	if !e.lines.Scan() {
		if err := e.lines.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	line := e.lines.Bytes()
	if !e.begun {
		e.begun, line = true, bytes.TrimPrefix(line, byteOrderMark)
	}
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	if !ok {
		return e.field(line)
	}
	if data = bytes.TrimSpace(data); bytes.Equal(data, []byte("[DONE]")) {
		return io.EOF
	}
	e.any = e.any || len(data) > 0
	e.data, e.last = data, data
	return nil
}

// byteOrderMark may stand at the beginning of a stream, and doesn't belong to it.
var byteOrderMark = []byte("\ufeff")

// field reads a line other than data. It returns errReported after an error.
func (e *Events) field(line []byte) error {
	if text, ok := bytes.CutPrefix(line, []byte("error:")); ok {
		return e.report(text)
	}
	if name, ok := bytes.CutPrefix(line, []byte("event:")); !ok || string(bytes.TrimSpace(name)) != "error" {
		return nil
	}
	var data []byte
	for e.lines.Scan() && len(e.lines.Bytes()) > 0 && len(data) < maxErrorBody {
		if d, ok := bytes.CutPrefix(e.lines.Bytes(), []byte("data:")); ok {
			data = append(append(data, bytes.TrimSpace(d)...), '\n')
		}
	}
	return e.report(data)
}

// report keeps what an error event reports.
func (e *Events) report(data []byte) error {
	r := ReportIn(data[:min(len(data), maxErrorBody)])
	e.reported = &r
	return errReported
}

// errReported ends a stream at an error event.
var errReported = errors.New("an error within the stream")

// Last returns the data of the last line that has some, until the next call of Read. For an
// event on one line, as all servers send them, it is the event that was decoded last.
func (e *Events) Last() []byte { return e.last }

// Ended reports whether the stream has ended, cleanly or by a lost connection. It is
// false after an event that is too long, because more would follow, and after one that
// reports an error.
func (e *Events) Ended() bool {
	return e.err != nil && e.reported == nil && !errors.Is(e.err, bufio.ErrTooLong)
}

// StreamError returns the error for a stream that ended before its end mark: what the
// server reported, or a fault.Upstream error with one of this package's texts. err is the
// error of the decoder that read from e; contentType is that of the response; mark names
// the missing end mark for the log.
func (p KeyedProvider) StreamError(e *Events, err error, contentType, mark string) error {
	switch lost := e.err; {
	case e.reported != nil:
		return p.ReportError(*e.reported)
	case errors.Is(lost, bufio.ErrTooLong):
		return fault.Public(fault.Upstream, TooLong, err)
	case lost == nil: // there was more to read, but it was no event of this API
		return p.decodeError(e.last, fmt.Errorf("event: %w", err), NoAnswer)
	case lost != io.EOF: //nolint:errorlint // a wrapped EOF is a lost connection
		return ConnectionError(lost)
	case !e.any && !strings.HasPrefix(contentType, "text/event-stream"):
		return fault.Public(fault.Upstream, NoStream, fmt.Errorf("content type %q", contentType))
	default:
		return fault.Public(fault.Upstream, CutShort, errors.New("no "+mark))
	}
}
