package main

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync/atomic"
)

// wire stands between a function and PostgreSQL and counts how often the one waited
// for the other. It reads nothing of what they say.
type wire struct {
	url    string // of the database, through it
	listen net.Listener
	opened atomic.Int64 // connections
	trips  atomic.Int64 // times that an answer came to what was asked
}

// serveWire leads to the database at address.
func serveWire(ctx context.Context, address string) (*wire, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	w := &wire{}
	if w.listen, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	to := u.Host
	u.Host = w.listen.Addr().String()
	w.url = u.String()
	go func() {
		for {
			conn, err := w.listen.Accept()
			if err != nil {
				return // closed
			}
			w.opened.Add(1)
			go w.lead(ctx, conn, to)
		}
	}()
	return w, nil
}

func (w *wire) close() { _ = w.listen.Close() }

// lead passes everything on. Requests that are sent together are one round trip;
// what is never answered, as a goodbye, is none.
func (w *wire) lead(ctx context.Context, client net.Conn, to string) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	var waits atomic.Bool
	go func() {
		defer server.Close()
		_, _ = io.Copy(server, tell{client, func() { waits.Store(true) }})
	}()
	_, _ = io.Copy(client, tell{server, func() {
		if waits.Swap(false) {
			w.trips.Add(1)
		}
	}})
}

// tell calls heard for everything that is read, before it is passed on.
type tell struct {
	io.Reader
	heard func()
}

func (t tell) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if n > 0 {
		t.heard()
	}
	return n, err
}
