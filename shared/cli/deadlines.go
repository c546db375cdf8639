package cli

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/wire"
)

// These are the bounds of one connection. A run may take any time between the end of its request and the beginning of
// its answer, and each write of a stream has a deadline of its own (package api).
const (
	// MaxHeader is the size of a request's first line and headers together, in bytes. A token of 64 KB, the longest one
	// that is accepted, leaves 16 KB for the others. A longer one is answered 431.
	MaxHeader = 80 << 10
	// HeaderTime is how long the headers of a request may take to arrive, counted from their first byte, and for a new
	// connection from the beginning of the TLS handshake.
	HeaderTime = 10 * time.Second
	// IdleTime is how long a connection stays open without a request.
	IdleTime = 2 * time.Minute
	// TransferGrace is how long a body or an answer may take, besides the time that its bytes need at SlowestRate.
	TransferGrace = 20 * time.Second
	// SlowestRate is the slowest line that is served, in bytes in a second: 262 kbit/s. A body of 10 MB may take 340 s.
	SlowestRate = 32 << 10
	// DrainTime is how long the rest of a body is read after its answer.
	DrainTime = 10 * time.Second
	// MaxDrained is how many bytes of that rest are read.
	MaxDrained = 128 << 20
)

// pace are the times that a client has for a body, for the rest of one, and for an answer.
type pace struct{ grace, drain time.Duration }

// allowed is how long n bytes may take.
func (p pace) allowed(n int64) time.Duration {
	return p.grace + time.Duration(float64(n)/SlowestRate*float64(time.Second))
}

// serveInTime serves one request. The client must send its body, and take the answer, within the time that allowed
// gives for their size. Otherwise it would keep a connection for ever.
//
// h may answer before the client has sent the whole request, as with 401, 403 and
// 413. serveInTime reads the rest and drops it: many clients send all of a request before they
// read the answer, and a connection that is closed meanwhile is reset, which can take the
// answer away (RFC 9112, section 9.6). net/http reads no more than 256 KB.
//
// After a body that did not arrive whole the connection is closed. Its rest would be taken
// for the next request, which a proxy may answer to another client (request smuggling).
func serveInTime(w http.ResponseWriter, r *http.Request, p pace, h http.Handler) {
	control, conn := http.NewResponseController(w), connectionOf(r)
	// An answer that was written before, also a stream, has left its deadline on the connection.
	_ = control.SetWriteDeadline(time.Time{})
	answer := &answer{ResponseWriter: w, control: control, conn: conn, pace: p}
	defer answer.begin() // net/http sends an answer that the handler has not begun
	if r.ContentLength == 0 {
		conn.works()
		h.ServeHTTP(answer, r)
		return
	}
	if len(r.TransferEncoding) > 0 {
		// A request with Transfer-Encoding may also have had a Content-Length, which net/http removes. Then another server
		// on the way may see another end of the body, so the connection must be closed (RFC 9112, section 6.1).
		w.Header().Set("Connection", "close")
	}
	body := &body{ReadCloser: r.Body, control: control, conn: conn, pace: p, start: time.Now()}
	r.Body = body
	end := body.start.Add(p.allowed(0))
	_ = control.SetReadDeadline(end)
	_ = control.SetWriteDeadline(end) // of 100 Continue
	_ = control.EnableFullDuplex()    // otherwise net/http reads from the body before it sends the answer
	h.ServeHTTP(answer, r)
	answer.begin()
	// A client that waits for 100 Continue has not begun to send, and will not. net/http closes its connection.
	waits := !body.begun && strings.EqualFold(r.Header.Get("Expect"), "100-continue")
	if body.whole || waits {
		return
	}
	if w.Header().Get("Content-Length") != "" { // the end of any other answer is sent later anyway
		_ = control.Flush()
	}
	if !body.ended {
		body.drains()
	}
	if !body.whole {
		_ = control.Flush()
		panic(http.ErrAbortHandler) // closes the connection
	}
}

// body is the body of a request. It knows whether reading it began and ended, and whether
// it arrived whole.
type body struct {
	io.ReadCloser
	control             *http.ResponseController
	conn                *connection
	pace                pace
	start               time.Time
	bytes               int64
	begun, ended, whole bool
	drained             bool // the deadline is that of drains
}

// Read implements io.Reader. It gives the client more time for what follows. Only an admitted request is read: the
// token has been checked by then.
func (b *body) Read(p []byte) (int, error) {
	if !b.begun && !b.drained {
		b.conn.waits(admitted)
	}
	n, err := b.ReadCloser.Read(p)
	b.begun, b.ended, b.bytes = true, b.ended || err != nil, b.bytes+int64(n)
	switch {
	case err == io.EOF: //nolint:errorlint // io.Reader's contract; the answer may take longer than the body
		b.whole = true
		_ = b.control.SetReadDeadline(time.Time{})
		if !b.drained {
			_ = b.control.SetWriteDeadline(time.Time{})
			b.conn.works()
		}
	case n > 0 && !b.drained:
		_ = b.control.SetReadDeadline(b.start.Add(b.pace.allowed(b.bytes)))
	}
	return n, err
}

// drains reads the rest of the body after the answer.
func (b *body) drains() {
	b.drained = true
	b.conn.waits(unknown)
	if b.control.SetReadDeadline(time.Now().Add(b.pace.drain)) == nil {
		_, _ = io.CopyN(io.Discard, b, MaxDrained)
	}
}

// answer is the answer to a request. Its client has the time of pace to take it, from its first byte. A stream sets its
// own deadlines after the first one.
type answer struct {
	http.ResponseWriter
	control *http.ResponseController
	conn    *connection
	pace    pace
	start   time.Time
	bytes   int64
	streams bool
}

// begin starts the time of the answer, once.
func (a *answer) begin() {
	if !a.start.IsZero() {
		return
	}
	a.start = time.Now()
	_ = a.control.SetWriteDeadline(a.start.Add(a.pace.allowed(0)))
	if a.streams = a.Header().Get("Content-Type") == wire.MediaType; a.streams {
		a.conn.works()
	} else {
		a.conn.waits(unknown)
	}
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.begin()
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.begin()
	if a.bytes += int64(len(p)); !a.streams && len(p) > 0 {
		_ = a.control.SetWriteDeadline(a.start.Add(a.pace.allowed(a.bytes)))
	}
	return a.ResponseWriter.Write(p)
}

// FlushError sends what is buffered, and the headers.
func (a *answer) FlushError() error {
	a.begin()
	return a.control.Flush()
}

// Unwrap returns the underlying writer, for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
