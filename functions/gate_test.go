package functions_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// gate is a proxy between functions and their database. While it is shut it accepts no
// connection, and shutting it closes the open ones.
type gate struct {
	t    *testing.T
	to   string
	mu   sync.Mutex
	shut bool
	cut  context.CancelFunc
	open context.Context // until the gate is shut
}

// gated returns the database's URL through a new, open gate.
func gated(t *testing.T, database string) (address string, g *gate) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g = &gate{t: t, to: u.Host}
	g.set(false)
	t.Cleanup(func() { l.Close(); g.set(true) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go g.pass(conn)
		}
	}()
	u.Host = l.Addr().String()
	return u.String(), g
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut = shut; shut {
		g.cut()
		return
	}
	g.open, g.cut = context.WithCancel(context.Background())
}

// pass copies bytes in both directions until a side closes or the gate is shut.
func (g *gate) pass(client net.Conn) {
	defer client.Close()
	g.mu.Lock()
	shut, open := g.shut, g.open
	g.mu.Unlock()
	if shut {
		return
	}
	server, err := new(net.Dialer).DialContext(open, "tcp", g.to)
	if err != nil {
		return
	}
	defer server.Close()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() { _, _ = io.Copy(way[0], way[1]); ended <- struct{}{} }()
	}
	select {
	case <-ended:
	case <-open.Done():
	}
}
