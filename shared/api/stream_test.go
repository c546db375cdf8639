package api

import (
	"errors"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/wire"
)

// one yields one item.
func one(e run.Event, err error) iter.Seq2[run.Event, error] {
	return func(yield func(run.Event, error) bool) { yield(e, err) }
}

func TestARunThatAnotherProcessContinuesIsAccepted(t *testing.T) {
	t.Parallel()
	over := one(run.Event{HandedOver: &wire.Accepted{RunID: "r", SessionID: "s", Status: "RUNNING"}}, nil)
	for name, row := range map[string]struct {
		streamed bool
		status   int
		body     string
	}{
		"whole":    {false, 202, `{"run_id":"r","session_id":"s","status":"RUNNING"}`},
		"streamed": {true, 200, wire.RunContinues},
	} {
		w := httptest.NewRecorder()
		r := &request{Request: httptest.NewRequest("POST", "/", nil)}
		err := (Runs{}).respond(w, r, over, row.streamed)
		if err != nil || w.Code != row.status || w.Body.String() != row.body {
			t.Errorf("%s: %v %d %q", name, err, w.Code, w.Body)
		}
	}
}

func TestARunThatIsRejectedHasAStatus(t *testing.T) {
	t.Parallel()
	full := &fault.Error{Kind: fault.Unavailable, Detail: "too many runs", RetryAfter: 1500 * time.Millisecond}
	for _, streamed := range []bool{false, true} {
		w := httptest.NewRecorder()
		r := &request{Request: httptest.NewRequest("POST", "/", nil)}
		err := (Runs{}).respond(w, r, one(run.Event{}, full), streamed)
		if !errors.Is(err, full) || len(w.Header()) > 0 || w.Body.Len() > 0 {
			t.Fatalf("streamed %t: %v %v %q", streamed, err, w.Header(), w.Body)
		}
		fault.Write(w, err)
		if w.Code != 503 || w.Header().Get("Retry-After") != "2" {
			t.Errorf("streamed %t: %d %v", streamed, w.Code, w.Header())
		}
	}
}

// deadlines is a ResponseWriter that counts the deadlines and the bytes after the last one.
type deadlines struct {
	*httptest.ResponseRecorder
	set         int
	after, most int
}

func (d *deadlines) SetWriteDeadline(time.Time) error { d.set++; d.after = 0; return nil }

func (d *deadlines) Write(p []byte) (int, error) {
	d.after += len(p)
	d.most = max(d.most, d.after)
	return d.ResponseRecorder.Write(p)
}

func TestASlowClientHasTimeForEachPartOfALargeEvent(t *testing.T) {
	t.Parallel()
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	s := openStream(w)
	frame := strings.Repeat("x", 1<<20) + "\n\n"
	s.sendFrame([]byte(frame))
	s.close()
	if w.Body.String() != frame || w.most > maxWrite || w.set < len(frame)/maxWrite {
		t.Errorf("%d bytes with %d deadlines, %d bytes without one", w.Body.Len(), w.set, w.most)
	}
}

func TestAStreamReportsThatItsClientHasDisconnected(t *testing.T) {
	t.Parallel()
	failed := 0
	s := openStream(broken{})
	s.failed = func() { failed++ }
	s.send(wire.Meta{Event: "subscribed"})
	s.comment(wire.KeepAlive)
	s.close()
	if failed != 1 {
		t.Errorf("reported %d times", failed)
	}
}

// An empty line would end an event without data, which some clients dispatch.
func TestASilentStreamGetsLinesOfComments(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		s := openStream(w)
		s.send(wire.Meta{Event: "a"})
		time.Sleep(2*keepAlive + time.Second)
		s.send(wire.Meta{Event: "b"})
		s.close()
		const want = "event: a\ndata: {\"event\":\"a\"}\n\n" + wire.KeepAlive + wire.KeepAlive +
			"event: b\ndata: {\"event\":\"b\"}\n\n"
		if w.Body.String() != want {
			t.Errorf("%q", w.Body)
		}
	})
}

// broken is the ResponseWriter of a client that has disconnected.
type broken struct{}

func (broken) Header() http.Header       { return http.Header{} }
func (broken) WriteHeader(int)           {}
func (broken) Write([]byte) (int, error) { return 0, http.ErrHandlerTimeout }

// discarded is a ResponseWriter that counts what is written.
type discarded struct{ bytes int }

func (*discarded) Header() http.Header           { return http.Header{} }
func (*discarded) WriteHeader(int)               {}
func (d *discarded) Write(p []byte) (int, error) { d.bytes += len(p); return len(p), nil }
func (*discarded) Flush()                        {}

// A long answer has thousands of tokens, and each is sent by the same timers and from the same buffer.
func TestATokenIsSentWithoutAnAllocation(t *testing.T) { //nolint:paralleltest // others would allocate meanwhile
	w := &discarded{}
	s := openStream(w)
	frame := []byte("event: RunContent\ndata: {}\n\n")
	n := testing.AllocsPerRun(2000, func() { s.sendFrame(frame) })
	s.close()
	if n >= 1 || w.bytes != 2001*len(frame) {
		t.Errorf("%v allocations, %d bytes", n, w.bytes)
	}
}
