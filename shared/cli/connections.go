package cli

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// MinWait is how long a connection waits for its client at least before it can be closed for another one. A client
	// with a slow line needs a part of it to send its first bytes.
	MinWait = 500 * time.Millisecond
	// MinUpload is MinWait for a client whose token was accepted and who sends a body.
	MinUpload = 10 * time.Second
)

// connections is a listener with at most a number of open connections. Without it, a crowd
// of clients could use up the file descriptors, and then the runs in progress could reach
// neither their models nor the database. Further clients wait in the kernel's queue.
//
// A client must not keep others out: while no further connection can be opened, the one that has waited for its client
// the longest is closed. It waits while the client sends no request, sends one slowly, or does not read its answer. It
// doesn't wait while a request is worked on, or while a stream is sent.
type connections struct {
	net.Listener
	slots  chan struct{} // has an element for each open connection
	closed chan struct{}
	close  func()
	// minWait is how long a connection waits for each waiter at least before it is closed.
	minWait [2]time.Duration
	// changed has an element when a connection has begun to wait for its client.
	changed chan struct{}

	mu sync.Mutex
	// waiting are the connections that wait, by their waiter, each list from the longest wait to the shortest.
	waiting [2]list.List
}

// waiter is what is known of the client that a connection waits for. The order is that of closing.
type waiter int

const (
	// unknown is any other client.
	unknown waiter = iota
	// admitted is a client whose token was accepted, and whose body is being read.
	admitted
)

// minWaits are the bounds of a server, by waiter.
var minWaits = [2]time.Duration{unknown: MinWait, admitted: MinUpload}

func limitConnections(l net.Listener, limit int, minWait [2]time.Duration) *connections {
	closed := make(chan struct{})
	return &connections{
		Listener: l, slots: make(chan struct{}, limit), closed: closed, close: sync.OnceFunc(func() { close(closed) }),
		minWait: minWait, changed: make(chan struct{}, 1),
	}
}

// Accept implements net.Listener. A connection over the limit is accepted, and nothing is read from it until another
// one was closed.
func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if err := c.takeSlot(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	opened := &connection{Conn: conn, of: c, release: sync.OnceFunc(func() { <-c.slots })}
	opened.waits(unknown)
	return opened, nil
}

// takeSlot waits for a free slot, and makes one when a connection has waited for long enough.
func (c *connections) takeSlot() error {
	for {
		select {
		case c.slots <- struct{}{}:
			return nil
		default:
		}
		timer := time.NewTimer(c.makeRoom())
		select {
		case c.slots <- struct{}{}:
			timer.Stop()
			return nil
		case <-c.closed:
			timer.Stop()
			return net.ErrClosed
		case <-c.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Close implements net.Listener.
func (c *connections) Close() error {
	c.close()
	return c.Listener.Close()
}

// makeRoom closes the connection that has waited the longest, of an admitted client only if there is no other one. If
// none has waited for minWait, it returns after what time one will have, unless it is worked on then.
func (c *connections) makeRoom() time.Duration {
	longest, next := c.longest(time.Now())
	if longest != nil {
		_ = longest.Close()
	}
	return next
}

func (c *connections) longest(now time.Time) (_ *connection, next time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next = time.Hour
	for i := range c.waiting {
		first := c.waiting[i].Front()
		if first == nil {
			continue
		}
		conn := first.Value.(*connection) //nolint:forcetypeassert // the lists hold nothing else
		if left := c.minWait[i] - now.Sub(conn.since); left > 0 {
			next = min(next, left)
			continue
		}
		return conn, 0
	}
	return nil, next
}

// note is the ConnState of the http.Server.
func (c *connections) note(conn net.Conn, state http.ConnState) {
	if state == http.StateIdle || state == http.StateActive { // the first byte of a request, or none
		unwrap(conn).waits(unknown)
	}
}

// crowded reports that most connections are in use.
func (c *connections) crowded() bool { return len(c.slots) > cap(c.slots)*3/4 }

// connection is an open connection of a listener with a limit.
type connection struct {
	net.Conn
	of      *connections
	release func()

	// These are guarded by of.mu.
	since  time.Time
	among  *list.List // the list that place is in, or nil
	place  *list.Element
	closed bool
}

// waits notes that the client has to do something before the server can. It does nothing for a nil connection, which
// is one of another server.
func (c *connection) waits(who waiter) {
	if c == nil {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.closed {
		c.leave()
		return
	}
	c.since = time.Now()
	if list := &c.of.waiting[who]; c.among == list {
		list.MoveToBack(c.place) // without an allocation
	} else {
		c.leave()
		c.among, c.place = list, list.PushBack(c)
	}
	select {
	case c.of.changed <- struct{}{}:
	default:
	}
}

// works notes that the server has a request to work on, or a stream to send.
func (c *connection) works() {
	if c == nil {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.leave()
}

// leave removes the connection from those that wait. The caller holds of.mu.
func (c *connection) leave() {
	if c.among != nil {
		c.among.Remove(c.place)
		c.among, c.place = nil, nil
	}
}

// Close implements net.Conn. The slot is free when the descriptor is.
func (c *connection) Close() error {
	defer c.release()
	c.of.mu.Lock()
	c.leave()
	c.closed = true
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite is what http.Server uses to end an answer before the request has been read. A
// connection that is closed at once could lose the answer.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// unwrap returns the connection below TLS, or nil if it is of another listener.
func unwrap(conn net.Conn) *connection {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	c, _ := conn.(*connection)
	return c
}

type connectionKey struct{}

// withConnection is the ConnContext of the http.Server.
func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, unwrap(conn))
}

// connectionOf returns the connection of a request, or nil.
func connectionOf(r *http.Request) *connection {
	c, _ := r.Context().Value(connectionKey{}).(*connection)
	return c
}
