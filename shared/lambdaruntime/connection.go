package lambdaruntime

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"strconv"
	"time"
)

// errClosed means that the other side closed the connection between two events.
var errClosed = errors.New("the Runtime API has closed the connection")

const (
	// path is where the Runtime API is found, in its only version.
	path = "/2018-06-01/runtime/invocation/"
	// bufferSize is enough for most events and for the headers of an answer. Larger events are read into memory of
	// their own.
	bufferSize = 64 << 10
	// joined is the largest body that is copied behind its head, so that both are one write.
	joined = 32 << 10
	// maxEvent bounds what the Runtime API can make this process read. Lambda's own limit is 6 MB, or 20 MB for
	// streamed payloads.
	maxEvent = 64 << 20
	// traceVariable is where AWS's SDKs look for the trace of the invocation.
	traceVariable = "_X_AMZN_TRACE_ID"
)

// connection is a connection of HTTP/1.1 (RFC 9112) that carries one request at a time. It needs no goroutine of its
// own, unlike net/http's client: a goroutine that waits for another costs more than the work of either.
type connection struct {
	net.Conn
	in      *bufio.Reader
	asking  []byte // the request for an event
	between []byte // of a POST: what is between the id and the body, without the length
	out     []byte // the head that is written, and small bodies
	closing bool   // the other side closes the connection after this response
	failed  error  // the first write that failed
	unread  int    // how much of in is the current event
	trace   string
	posted  Invocation
}

func newConnection(conn net.Conn, host string) *connection {
	const agent = "keyway"
	return &connection{
		Conn: conn, in: bufio.NewReaderSize(conn, bufferSize),
		asking:  []byte("GET " + path + "next HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: " + agent + "\r\n\r\n"),
		between: []byte(" HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: " + agent + "\r\nContent-Type: "),
	}
}

// head is what is used of a response's status and headers.
type head struct {
	status   int
	length   int64 // -1 if there is no Content-Length
	chunked  bool
	id       string
	deadline time.Time
	trace    string
}

// next asks for an event and waits for it. It is errClosed if the connection was closed before any byte.
func (c *connection) next(alone bool) (*Invocation, error) {
	if _, err := c.Write(c.asking); err != nil {
		return nil, fmt.Errorf("%w: %w", errClosed, err)
	}
	h, err := c.readHead()
	if err != nil {
		return nil, err
	}
	event, err := c.body(h)
	if err != nil {
		return nil, err
	}
	if h.status != 200 || h.id == "" {
		return nil, fmt.Errorf("status %d: %.200q", h.status, event)
	}
	if alone && h.trace != c.trace {
		c.trace = h.trace
		if err := os.Setenv(traceVariable, h.trace); err != nil {
			return nil, err
		}
	}
	c.posted = Invocation{ID: h.id, Event: event, Deadline: h.deadline, c: c}
	return &c.posted, nil
}

// readHead reads a status line and the headers.
func (c *connection) readHead() (h head, err error) {
	if _, err := c.in.Peek(1); err != nil {
		return h, fmt.Errorf("%w: %w", errClosed, err)
	}
	line, err := c.line()
	if err != nil {
		return h, err
	}
	// "HTTP/1.1 200 OK"
	if len(line) < 12 || string(line[:7]) != "HTTP/1." {
		return h, fmt.Errorf("no HTTP: %.100q", line)
	}
	if h.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return h, fmt.Errorf("no HTTP: %.100q", line)
	}
	c.closing = line[7] == '0'
	h.length = -1
	for {
		if line, err = c.line(); err != nil || len(line) == 0 {
			return h, err
		}
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			return h, fmt.Errorf("no header: %.100q", line)
		}
		if err := c.header(&h, name, bytes.TrimSpace(value)); err != nil {
			return h, err
		}
	}
}

// header reads one header of a response.
func (c *connection) header(h *head, name, value []byte) (err error) {
	is := func(want string) bool { return len(name) == len(want) && bytes.EqualFold(name, []byte(want)) }
	switch {
	case is("Content-Length"):
		h.length, err = strconv.ParseInt(string(value), 10, 64)
		if err != nil || h.length < 0 || h.length > maxEvent {
			return fmt.Errorf("Content-Length %.100q", value)
		}
	case is("Transfer-Encoding"):
		h.chunked = bytes.EqualFold(value, []byte("chunked"))
		if !h.chunked {
			return fmt.Errorf("Transfer-Encoding %.100q", value)
		}
	case is("Connection"):
		c.closing = c.closing || bytes.EqualFold(value, []byte("close"))
	case is("Lambda-Runtime-Aws-Request-Id"):
		h.id = string(value)
	case is("Lambda-Runtime-Deadline-Ms"):
		ms, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			return fmt.Errorf("Lambda-Runtime-Deadline-Ms %.100q", value)
		}
		h.deadline = time.UnixMilli(ms)
	case is("Lambda-Runtime-Trace-Id"):
		if h.trace = c.trace; string(value) != c.trace {
			h.trace = string(value)
		}
	}
	return nil
}

// line reads a line without its end. It is valid until the next read.
func (c *connection) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// body reads the body of a response. One that fits stays in the buffer of in, without a copy, until release.
func (c *connection) body(h head) (data []byte, err error) {
	switch {
	case h.chunked:
		data, err = io.ReadAll(io.LimitReader(httputil.NewChunkedReader(c.in), maxEvent+1))
		if err == nil && len(data) > maxEvent {
			err = errors.New("the event is too large")
		}
		if err == nil {
			err = c.trailer()
		}
		return data, err
	case h.length < 0:
		// RFC 9112, section 6.3: the body ends with the connection.
		c.closing = true
		return io.ReadAll(io.LimitReader(c.in, maxEvent))
	case h.length <= bufferSize:
		data, err = c.in.Peek(int(h.length))
		c.unread = len(data)
		return data, err
	}
	data = make([]byte, h.length)
	_, err = io.ReadFull(c.in, data)
	return data, err
}

// trailer reads the trailer of a chunked body, of which nothing is used.
func (c *connection) trailer() error {
	for {
		if line, err := c.line(); err != nil || len(line) == 0 {
			return err
		}
	}
}

// release gives up the body that is in the buffer of in.
func (c *connection) release() {
	_, _ = c.in.Discard(c.unread) // Peek has shown that they are there
	c.unread = 0
}

// accepted reads the response to a POST.
func (c *connection) accepted() error {
	c.release()
	h, err := c.readHead()
	if err != nil {
		return err
	}
	said, err := c.body(h)
	if err == nil && h.status != 202 {
		err = fmt.Errorf("status %d: %.200q", h.status, said)
	}
	c.release()
	return err
}

// start begins the head of a POST in out.
func (c *connection) start(id, kind, contentType string) {
	c.out = append(append(append(append(append(c.out[:0], "POST "+path...), id...), '/'), kind...), c.between...)
	c.out = append(append(c.out, contentType...), "\r\n"...)
}

// post sends a whole body.
func (c *connection) post(id, kind string, body []byte) error {
	c.start(id, kind, "application/json")
	c.out = append(strconv.AppendInt(append(c.out, "Content-Length: "...), int64(len(body)), 10), "\r\n\r\n"...)
	return c.send(body)
}

// begin sends the head of a streamed answer, which names its trailers, and the first chunks.
func (c *connection) begin(id, contentType string, chunks [][]byte) error {
	c.start(id, "response", contentType)
	c.out = append(c.out, "Transfer-Encoding: chunked\r\nTrailer: "+errorType+", "+errorBody+"\r\n\r\n"...)
	for _, data := range chunks {
		if err := c.append(data); err != nil {
			return err
		}
	}
	return c.send(nil)
}

// The trailers of an answer that was aborted.
const (
	errorType = "Lambda-Runtime-Function-Error-Type"
	errorBody = "Lambda-Runtime-Function-Error-Body"
)

// append adds a chunk to out, or sends both if it is large. An empty one would end the answer and is left out.
func (c *connection) append(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	c.out = append(strconv.AppendUint(c.out, uint64(len(data)), 16), "\r\n"...)
	if len(data) > joined {
		if err := c.send(data); err != nil {
			return err
		}
		c.out = append(c.out[:0], "\r\n"...)
		return nil
	}
	c.out = append(append(c.out, data...), "\r\n"...)
	return nil
}

// chunk sends a chunk.
func (c *connection) chunk(data []byte) error {
	if len(data) == 0 {
		return c.failed
	}
	c.out = c.out[:0]
	if err := c.append(data); err != nil {
		return err
	}
	return c.send(nil)
}

// last sends the last chunk and ends a streamed answer, with the trailers of an error or without.
func (c *connection) last(data []byte, kind, text string) error {
	c.out = c.out[:0]
	if err := c.append(data); err != nil {
		return err
	}
	c.out = append(c.out, "0\r\n"...)
	if kind != "" {
		c.out = append(c.out, errorType+": "+kind+"\r\n"+errorBody+": "+text+"\r\n"...)
	}
	c.out = append(c.out, "\r\n"...)
	return c.send(nil)
}

// send writes out and then a body, with one system call.
func (c *connection) send(body []byte) error {
	switch {
	case c.failed != nil:
	case len(body) <= joined:
		c.out = append(c.out, body...)
		_, c.failed = c.Write(c.out)
	default:
		all := net.Buffers{c.out, body}
		_, c.failed = all.WriteTo(c.Conn)
	}
	return c.failed
}
