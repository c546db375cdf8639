package cli

import (
	"net"
	"net/http"
	"sync"
)

// connections is a listener with at most a number of open connections. Without it, a crowd
// of clients could use up the file descriptors, and then the runs in progress could reach
// neither their models nor the database. Further clients wait in the kernel's queue.
//
// A client that keeps its connection between two requests must not keep others out: while
// no further connection can be opened, idle ones are closed.
type connections struct {
	net.Listener
	// slots has an element for each open connection, and one while Accept waits.
	slots  chan struct{}
	closed chan struct{}
	close  func()

	mu   sync.Mutex
	idle map[net.Conn]struct{}
	// needed reports that Accept waits for the next connection that becomes idle.
	needed bool
}

func limitConnections(l net.Listener, limit int) *connections {
	closed := make(chan struct{})
	return &connections{
		Listener: l, slots: make(chan struct{}, limit), closed: closed, close: sync.OnceFunc(func() { close(closed) }),
		idle: map[net.Conn]struct{}{},
	}
}

// Accept implements net.Listener.
func (c *connections) Accept() (net.Conn, error) {
	select {
	case c.slots <- struct{}{}:
	default:
		c.makeRoom()
		select {
		case c.slots <- struct{}{}:
		case <-c.closed:
			return nil, net.ErrClosed
		}
	}
	conn, err := c.Listener.Accept()
	if err != nil {
		<-c.slots
		return nil, err
	}
	return &connection{conn, sync.OnceFunc(func() { <-c.slots })}, nil
}

// Close implements net.Listener.
func (c *connections) Close() error {
	c.close()
	return c.Listener.Close()
}

// makeRoom closes an idle connection, now or as soon as there is one.
func (c *connections) makeRoom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.idle {
		delete(c.idle, conn)
		_ = conn.Close()
		return
	}
	c.needed = true
}

// note is the ConnState of the http.Server.
func (c *connections) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case state != http.StateIdle:
		delete(c.idle, conn)
	case c.needed:
		c.needed = false
		_ = conn.Close()
	default:
		c.idle[conn] = struct{}{}
	}
}

// crowded reports that most connections are in use.
func (c *connections) crowded() bool { return len(c.slots) > cap(c.slots)*3/4 }

// connection is an open connection of a listener with a limit.
type connection struct {
	net.Conn
	release func()
}

// Close implements net.Conn. The slot is free when the descriptor is.
func (c *connection) Close() error {
	defer c.release()
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
