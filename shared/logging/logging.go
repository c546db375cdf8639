// Package logging is what Keyway says about itself: one log line a request, with an
// id that answers and logs share, and never a token, key, prompt or answer.
package logging

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// NewLogger writes text for a person's terminal, else JSON lines.
func NewLogger(w io.Writer, terminal bool) *slog.Logger {
	if terminal {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}

type contextKey struct{}

// line is the log line of a request while it is being answered.
type line struct {
	id    string
	mu    sync.Mutex
	attrs []any
}

// RequestID gives the id of the request in ctx; "" outside of one.
func RequestID(ctx context.Context) string {
	if l, ok := ctx.Value(contextKey{}).(*line); ok {
		return l.id
	}
	return ""
}

// Note adds a member to the request's log line.
func Note(ctx context.Context, key string, value any) {
	if l, ok := ctx.Value(contextKey{}).(*line); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.attrs = append(l.attrs, slog.Any(key, value))
	}
}

// Requests gives every request an id and, at its end, a log line. A panic below
// becomes a 500 without detail, and its stack goes to the log.
func Requests(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l := &line{id: rand.Text()}
		ctx := context.WithValue(r.Context(), contextKey{}, l)
		rec := &recorder{ResponseWriter: w}
		rec.Header().Set("X-Request-Id", l.id)
		start := time.Now()
		defer func() {
			p := recover()
			if p != nil {
				log.ErrorContext(ctx, "panic", "request_id", l.id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
			if p != nil && rec.status == 0 {
				fault.Write(rec, fault.Internal)
				p = nil
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			log.InfoContext(ctx, "request", append([]any{"request_id", l.id, "method", r.Method, "status", cmp.Or(rec.status, http.StatusOK),
				"bytes", rec.bytes, "ms", float64(time.Since(start).Microseconds()) / 1000}, l.attrs...)...)
			if p != nil { // too late for a status: cut the answer, so that it isn't taken for a whole one
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(rec, r.WithContext(ctx))
	})
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// FlushError sends what there is; the headers go out with it, and so the status.
func (r *recorder) FlushError() error {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach the connection (deadlines).
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
