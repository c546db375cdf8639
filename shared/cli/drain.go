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
)

// tracked is the body of a request. It knows whether it was read, and whether to its end.
type tracked struct {
	io.ReadCloser
	begun, ended bool
}

// Read implements io.Reader.
func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.begun, t.ended = true, t.ended || err != nil
	return n, err
}

// answerEarly lets h answer before the client has sent the whole request, as with 401, 403 and
// 413. Then it reads the rest and drops it: many clients send all of a request before they
// read the answer, and a connection that is closed meanwhile is reset, which can take the
// answer away (RFC 9112, section 9.6). net/http reads no more than 256 KB.
func answerEarly(w http.ResponseWriter, r *http.Request, h http.Handler) {
	if r.ContentLength == 0 {
		h.ServeHTTP(w, r)
		return
	}
	body := &tracked{ReadCloser: r.Body}
	r.Body = body
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // otherwise net/http reads from the body before it sends the answer
	h.ServeHTTP(w, r)
	// A client that waits for 100 Continue has not begun to send, and will not.
	waits := !body.begun && strings.EqualFold(r.Header.Get("Expect"), "100-continue")
	if body.ended || waits || control.SetReadDeadline(time.Now().Add(drainPatience)) != nil {
		return
	}
	if w.Header().Get("Content-Length") != "" { // the end of any other answer is sent later anyway
		_ = control.Flush()
	}
	_, _ = io.CopyN(io.Discard, body, maxDrained)
}
