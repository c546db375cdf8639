// Package logging makes the logger and writes one log line per request. The line and
// the response share a request id. A line never contains a token, key, prompt or answer, nor an id or another text that
// the caller chose, except a request id of the caller's that is short and plain.
package logging

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// NewLogger returns a logger that writes to w: text if a person reads it in a
// terminal, and otherwise one JSON object per line, which CloudWatch Logs can query.
func NewLogger(w io.Writer, terminal bool) *slog.Logger {
	if terminal {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return NewJSON(w)
}

// Exit logs that the program can't start and ends the process with code 1. An error
// of several lines becomes a list, one entry for each error. A panic instead would make
// Lambda print a stack trace, and hide the errors in it.
func Exit(log *slog.Logger, program string, err error) {
	log.Error(program+" can't start", "faults", strings.Split(err.Error(), "\n"))
	os.Exit(1)
}

// contextKey is the key of the request's *line in its context.
type contextKey struct{}

// line collects the attributes of one request until its log line is written.
type line struct {
	id     string
	client string // see ClientRequestID
	source string
	mu     sync.Mutex
	attrs  []slog.Attr
}

// RequestID returns the id of the request that ctx belongs to, or "" if it belongs to
// none. Requests sends it as X-Request-Id.
func RequestID(ctx context.Context) string {
	if l, ok := ctx.Value(contextKey{}).(*line); ok {
		return l.id
	}
	return ""
}

// maxClientID is how many bytes a request id of a caller can have.
const maxClientID = 128

// ClientRequestID returns the X-Request-Id that the caller of the request of ctx has sent, so that a line is found by
// it too, or "" without a valid one. It names the request for logs only: the answer has this server's own id, and no
// model, tool or database gets the caller's.
func ClientRequestID(ctx context.Context) string {
	if l, ok := ctx.Value(contextKey{}).(*line); ok {
		return l.client
	}
	return ""
}

// clientID returns the request id in the headers of a request: one of at most maxClientID bytes of [A-Za-z0-9._-]. Any
// other text is ignored, because it could forge parts of a line, or have personal data.
func clientID(h http.Header) string {
	sent := h.Values("X-Request-Id")
	if len(sent) != 1 || len(sent[0]) > maxClientID {
		return ""
	}
	for _, c := range []byte(sent[0]) {
		if !('A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return ""
		}
	}
	return sent[0]
}

// Source returns the address that the request of ctx came from, or "" if it is not known. On AWS it is the one that API
// Gateway has seen; on a local server behind a proxy it is the proxy's.
func Source(ctx context.Context) string {
	if l, ok := ctx.Value(contextKey{}).(*line); ok {
		return l.source
	}
	return ""
}

// Address returns the IP address in an address with or without a port. It is "" for any other text.
func Address(text string) string {
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	if ip, err := netip.ParseAddr(text); err == nil {
		return ip.WithZone("").String()
	}
	return ""
}

// Method returns the method of a request for a log, and "other" for one that HTTP doesn't define: a client can send any
// text in its place.
func Method(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method
	}
	return "other"
}

// Panicked describes the value of a panic for a log. The texts of Go's runtime have no data. Any other value may have
// some, so only its type is logged; the stack shows where it is from.
func Panicked(value any) string {
	if err, ok := value.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("a value of type %T", value)
}

// Note adds an attribute to the log line of the request that ctx belongs to. Outside
// of a request it does nothing, nor with the text "". It is safe for concurrent use.
func Note(ctx context.Context, key string, value any) {
	if l, ok := ctx.Value(contextKey{}).(*line); ok && value != "" {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.attrs = append(l.attrs, slog.Any(key, value))
	}
}

// Requests is middleware that gives every request an id and writes its log line when
// next returns. A panic in next is answered with a 500 without detail, and its stack is
// logged. If the status has been sent already, Requests panics with
// http.ErrAbortHandler after it has logged, so that the server aborts the response: the
// client must not mistake the part that it received for the whole.
func Requests(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l := &line{id: rand.Text(), client: clientID(r.Header), source: Address(r.RemoteAddr)}
		ctx := context.WithValue(r.Context(), contextKey{}, l)
		rec := &recorder{ResponseWriter: w}
		rec.Header().Set("X-Request-Id", l.id)
		start := time.Now()
		defer func() {
			p := recover()
			if p != nil {
				log.ErrorContext(ctx, "panic", "request_id", l.id, "panic", Panicked(p), "stack", string(debug.Stack()))
			}
			if p != nil && rec.status == 0 {
				fault.Write(rec, fault.Internal)
				p = nil
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.client != "" {
				l.attrs = append(l.attrs, slog.String("client_request_id", l.client))
			}
			var room [16]slog.Attr // on the stack
			Write(ctx, log, slog.LevelInfo, "request", append(append(room[:0],
				slog.String("request_id", l.id), slog.String("method", Method(r.Method)),
				slog.Int("status", cmp.Or(rec.status, http.StatusOK)), slog.Int64("bytes", rec.bytes),
				slog.Float64("ms", float64(time.Since(start).Microseconds())/1000),
			), l.attrs...)...)
			if p != nil {
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(rec, r.WithContext(ctx))
	})
}

// recorder records the status and the size of a response for the log line. As with
// net/http, only the first status counts.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// FlushError sends the buffered part of the response. It sends the headers as well, so
// the status is 200 from then on unless one was set before.
func (r *recorder) FlushError() error {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// Unwrap returns the underlying writer. http.ResponseController needs it to set the
// deadlines of the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
