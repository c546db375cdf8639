package mcp

import (
	"bufio"
	"bytes"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
)

// event is one server-sent event
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
type event struct {
	id, name, data string
	retry          time.Duration
	hasRetry       bool
}

// events yields the events of a stream. The reader limits its size. An event that the
// stream's end cuts off is yielded too: what it holds is read only if it is whole JSON.
// The last pair has an error unless the stream ended cleanly.
func events(body io.Reader) iter.Seq2[event, error] {
	return func(yield func(event, error) bool) {
		lines := bufio.NewScanner(body)
		lines.Buffer(nil, maxBody+1)
		lines.Split(lineSplitter())
		var e event
		var data []string
		flush := func() bool {
			e.data = strings.Join(data, "\n")
			ok := e == event{} || yield(e, nil)
			e, data = event{}, nil
			return ok
		}
		for first := true; lines.Scan(); first = false {
			line := lines.Text()
			if first {
				line = strings.TrimPrefix(line, "\ufeff")
			}
			name, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch name {
			case "data":
				data = append(data, value)
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "retry":
				if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
					e.retry, e.hasRetry = time.Duration(ms)*time.Millisecond, true
				}
			case "":
				if line == "" && !flush() {
					return
				}
			}
		}
		if err := lines.Err(); err != nil {
			yield(event{}, err)
			return
		}
		flush()
	}
}

// lineSplitter returns bufio.ScanLines for lines that end with \n, \r\n or \r. It searches
// each byte once: a line of 4 MiB can arrive in very small pieces.
func lineSplitter() bufio.SplitFunc {
	searched := 0 // bytes at the beginning of data that have no line end
	return func(data []byte, atEOF bool) (advance int, line []byte, err error) {
		i := bytes.IndexAny(data[searched:], "\r\n")
		if i < 0 && !(atEOF && len(data) > 0) {
			searched = len(data)
			return 0, nil, nil
		}
		if i += searched; i < searched {
			searched = 0
			return len(data), data, nil
		}
		if data[i] == '\r' && i+1 == len(data) && !atEOF {
			searched = i // whether a \n follows is not known yet
			return 0, nil, nil
		}
		searched, advance = 0, i+1
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			advance++
		}
		return advance, data[:i], nil
	}
}
