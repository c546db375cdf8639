package openai

import (
	"bufio"
	"bytes"
	"io"
)

// maxEvent bounds what one event, and so one JSON value, may hold in memory.
const maxEvent = 10 << 20

// events reads the data of server-sent events, one after the other, up to [DONE]
// (https://html.spec.whatwg.org/multipage/server-sent-events.html). Event names
// and ids are skipped: OpenAI repeats in the data what it says in them. Each Read
// gives bytes of one event at most.
type events struct {
	lines *bufio.Scanner
	data  []byte // of the current line, not yet read
	held  int    // bytes read since next
	any   bool   // at least one event was seen
	err   error  // why reading ended; io.EOF for a clean end
}

func newEvents(body io.Reader) *events {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEvent)
	return &events{lines: lines}
}

// next forgives what was read: the reader has taken a whole value out of it.
func (e *events) next() { e.held = 0 }

func (e *events) Read(p []byte) (int, error) {
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
	if e.held += n; e.held > maxEvent {
		e.err = bufio.ErrTooLong
		return 0, e.err
	}
	return n, nil
}

// line puts the next line's data, if it has any, into e.data.
func (e *events) line() error {
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
