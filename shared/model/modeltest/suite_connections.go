package modeltest

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
)

// The rules about connections and repeated requests depend on time. They run in a
// bubble (testing/synctest), where pauses take no real time, against a server whose
// connections are pipes.
var connectionRules = []rule{
	{"a connection is used again", connectionReused},
	{"a body that is kept open does not delay the answer", bodyKeptOpen},
	{"a request is tried three times before the first byte", threeAttempts},
	{"a request is not repeated after the first byte", noRepeatedAnswer},
}

// inBubble runs check in a bubble, with a server on pipes and a model that is opened as
// in production.
func (p Provider) inBubble(
	t *testing.T, scripts []Script, check func(t *testing.T, srv *Server, pipes *pipeListener, m model.Model),
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		srv := newPipeServer(t, pipes, scripts)
		transport := &http.Transport{DialContext: pipes.dial}
		t.Cleanup(transport.CloseIdleConnections)
		check(t, srv, pipes, p.Open(srv.URL, &http.Client{Transport: transport}))
	})
}

// connectionReused sends three requests to a server that ends each body 50 ms after the
// end mark. A model that closes the body at the end mark would need a connection for
// each.
func connectionReused(t *testing.T, p Provider) {
	linger := Text("a").Linger(50 * time.Millisecond)
	p.inBubble(t, []Script{linger, linger, linger}, func(t *testing.T, _ *Server, pipes *pipeListener, m model.Model) {
		for _, whole := range []bool{false, true, false} {
			r := Ask("hello")
			r.Whole = whole
			Collect(t.Context(), t, m, r).mustEnd(t)
		}
		if n := pipes.dials.Load(); n != 1 {
			t.Errorf("%d connections for 3 requests, want 1", n)
		}
	})
}

// bodyKeptOpen keeps the body open for an hour after the end mark.
func bodyKeptOpen(t *testing.T, p Provider) {
	scripts := []Script{Text("a").Linger(time.Hour)}
	p.inBubble(t, scripts, func(t *testing.T, _ *Server, _ *pipeListener, m model.Model) {
		start := time.Now()
		Collect(t.Context(), t, m, Ask("hello")).mustEnd(t)
		if took := time.Since(start); took > time.Second {
			t.Errorf("the answer took %v", took)
		}
	})
}

// threeAttempts uses a server that refuses two requests as busy and accepts the third, and
// one that refuses all three.
func threeAttempts(t *testing.T, p Provider) {
	busy := Fail(http.StatusServiceUnavailable, "busy").Header("X-Should-Retry", "true")
	for last, want := range map[string]Script{"": Text("at last"), "busy": busy} {
		p.inBubble(t, []Script{busy, busy, want}, func(t *testing.T, _ *Server, _ *pipeListener, m model.Model) {
			a := Collect(t.Context(), t, m, Ask("hello"))
			if a.Err == nil && a.Text != "at last" || a.Err != nil && fault.Detail(a.Err) != last {
				t.Errorf("text %q, error %v", a.Text, a.Err)
			}
		})
	}
}

// noRepeatedAnswer breaks the connection within an answer. The run loop has already sent
// the first part to the client, so a second answer would be appended to it.
func noRepeatedAnswer(t *testing.T, p Provider) {
	for _, whole := range []bool{false, true} {
		broken := []Script{Text("hello").Drop()}
		p.inBubble(t, broken, func(t *testing.T, srv *Server, _ *pipeListener, m model.Model) {
			r := Ask("hello")
			r.Whole = whole
			Collect(t.Context(), t, m, r).mustFail(t, fault.Upstream, connectionText)
			if n := len(srv.Requests()); n != 1 {
				t.Errorf("whole %t: %d requests, want 1", whole, n)
			}
		})
	}
}

// pipeListener is a net.Listener whose connections are pipes in memory. A synctest
// bubble needs it: its clock advances only when all of its goroutines wait for each
// other, and a goroutine that waits for the network counts as running.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	dials  atomic.Int32
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		l.dials.Add(1)
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "provider.test" }
