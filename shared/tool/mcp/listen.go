package mcp

import (
	"context"
	"net/http"
	"time"
)

// A server of the older versions may ask its questions on a stream that the client opens
// with a GET, and not in the answer to the call that they belong to. The stream is open
// while a call is in progress and for some seconds after it, so that an unused session
// holds no connection.

// The times of the stream for a server's questions.
const (
	idleListening = 5 * time.Second        // how long it stays open after a call
	openListening = 500 * time.Millisecond // how long a call waits until it is open
)

// listening is the state of the stream for a server's questions. The session's mutex
// guards it.
type listening struct {
	calls  int           // in progress
	stop   func()        // ends the stream; nil if there is none
	open   chan struct{} // closed when the server has answered the GET
	idle   *time.Timer
	silent bool // the server offers no such stream
}

// listen makes sure that the stream is open, if the server has one. The returned
// function states that the call is over.
func (c *session) listen(ctx context.Context) (done func()) {
	if c.version == stateless || c.id == "" {
		return func() {}
	}
	c.mu.Lock()
	if c.silent {
		c.mu.Unlock()
		return func() {}
	}
	c.calls++ // quiet counts down
	if c.idle != nil {
		c.idle.Stop()
	}
	if c.stop == nil {
		own, cancel := context.WithCancel(c.s.life)
		open := make(chan struct{})
		c.stop, c.open = cancel, open
		c.s.background(func() { c.receive(own, open); c.stopped(open) })
	}
	open := c.open
	c.mu.Unlock()
	late := time.NewTimer(openListening)
	defer late.Stop()
	select {
	case <-open:
	case <-late.C: // some servers answer a GET only when they have something to send
	case <-ctx.Done():
	}
	return c.quiet
}

// quiet ends the stream some time after the last call.
func (c *session) quiet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls--; c.calls == 0 && c.stop != nil {
		c.idle = time.AfterFunc(idleListening, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.calls == 0 {
				c.close()
			}
		})
	}
}

// close ends the stream. The caller holds the mutex.
func (c *session) close() {
	if c.stop != nil {
		c.stop()
		c.stop = nil
	}
}

// stopped notes that the stream has ended, unless another one is open already.
func (c *session) stopped(open chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == open {
		c.close()
	}
}

// stopListening ends the stream for good.
func (c *session) stopListening() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = true
	c.close()
}

// receive opens the stream and handles what the server sends in it, until it ends. It
// closes open when the server has answered.
func (c *session) receive(ctx context.Context, open chan struct{}) {
	answered := func() {
		select {
		case <-open:
		default:
			close(open)
		}
	}
	defer answered()
	r, err := c.newRequest(ctx, http.MethodGet, nil)
	if err != nil {
		return
	}
	resp, err := c.s.client.Do(r)
	if err != nil {
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusMultipleChoices || mediaType(resp) != "text/event-stream" {
		// 405 is how a server says that it has no such stream. Whatever else it answers, asking again before each call
		// would not help, except when the stream of the call before is not closed yet (409).
		c.mu.Lock()
		c.silent = resp.StatusCode != http.StatusConflict
		c.mu.Unlock()
		return
	}
	answered()
	_, _ = c.newExchange("").streamed(ctx, resp.Body) // how it ends doesn't matter: the next call opens another one
}
