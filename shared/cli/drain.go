package cli

import (
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	// maxDrained is how many bytes of a request are read after its answer.
	maxDrained = 128 << 20
	// drainPatience is how long they are read.
	drainPatience = 10 * time.Second
	// bodyPatience is how long the body of a request may take to arrive. 10 MB, the largest
	// one, take 2 minutes at 700 kbit/s.
	bodyPatience = 2 * time.Minute
)

// tracked is the body of a request. It knows whether reading it began and ended, and whether
// it arrived whole.
type tracked struct {
	io.ReadCloser
	control             *http.ResponseController
	begun, ended, whole bool
}

// Read implements io.Reader.
func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.begun, t.ended = true, t.ended || err != nil
	if err == io.EOF { //nolint:errorlint // io.Reader's contract; the answer may take longer than the body
		t.whole = true
		_ = t.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// answerEarly lets h answer before the client has sent the whole request, as with 401, 403 and
// 413. Then it reads the rest and drops it: many clients send all of a request before they
// read the answer, and a connection that is closed meanwhile is reset, which can take the
// answer away (RFC 9112, section 9.6). net/http reads no more than 256 KB.
//
// A body that takes longer than patience is cut off: it would keep a connection for ever.
// After a body that did not arrive whole the connection is closed. Its rest would be taken
// for the next request, which a proxy may answer to another client (request smuggling).
func answerEarly(w http.ResponseWriter, r *http.Request, patience time.Duration, h http.Handler) {
	if r.ContentLength == 0 {
		h.ServeHTTP(w, r)
		return
	}
	control := http.NewResponseController(w)
	body := &tracked{ReadCloser: r.Body, control: control}
	r.Body = body
	_ = control.SetReadDeadline(time.Now().Add(patience))
	_ = control.EnableFullDuplex() // otherwise net/http reads from the body before it sends the answer
	h.ServeHTTP(w, r)
	// A client that waits for 100 Continue has not begun to send, and will not. net/http closes its connection.
	waits := !body.begun && strings.EqualFold(r.Header.Get("Expect"), "100-continue")
	if body.whole || waits {
		return
	}
	if w.Header().Get("Content-Length") != "" { // the end of any other answer is sent later anyway
		_ = control.Flush()
	}
	if !body.ended && control.SetReadDeadline(time.Now().Add(drainPatience)) == nil {
		_, _ = io.CopyN(io.Discard, body, maxDrained)
	}
	if !body.whole {
		_ = control.Flush()
		panic(http.ErrAbortHandler) // closes the connection
	}
}
