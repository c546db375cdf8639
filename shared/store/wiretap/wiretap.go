// Package wiretap stands between a client and PostgreSQL: it counts the connections,
// and how often the one waited for the other, and tells what the client says.
// It passes everything on as it is. It knows the frames of the protocol without TLS,
// and no SQL.
package wiretap

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync/atomic"
)

// Tap is a proxy on a loopback port.
type Tap struct {
	URL    string       // of the database, through it
	Opened atomic.Int64 // connections
	Trips  atomic.Int64 // times that an answer came to what was asked

	listen net.Listener
	hear   func(Message)
}

// Open leads to the database at address. hear is told what clients say before it is
// passed on, by several connections at once; with nil nothing is read.
func Open(ctx context.Context, address string, hear func(Message)) (*Tap, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	t := &Tap{hear: hear}
	if t.listen, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	to := u.Host
	u.Host = t.listen.Addr().String()
	t.URL = u.String()
	go func() {
		for {
			conn, err := t.listen.Accept()
			if err != nil {
				return // closed
			}
			t.Opened.Add(1)
			go t.lead(ctx, conn, to)
		}
	}()
	return t, nil
}

// Close ends the listening; connections live on until one of their ends is closed.
func (t *Tap) Close() { _ = t.listen.Close() }

// lead passes everything on. Requests that are sent together are one round trip;
// what is never answered, as a goodbye, is none.
func (t *Tap) lead(ctx context.Context, client net.Conn, to string) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	var waits atomic.Bool
	var said frames
	go func() {
		defer server.Close()
		_, _ = io.Copy(server, tell{client, func(p []byte) {
			if waits.Store(true); t.hear != nil {
				said.add(p, t.hear)
			}
		}})
	}()
	_, _ = io.Copy(client, tell{server, func([]byte) {
		if waits.Swap(false) {
			t.Trips.Add(1)
		}
	}})
}

// tell calls heard for everything that is read, before it is passed on.
type tell struct {
	io.Reader
	heard func([]byte)
}

func (t tell) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if n > 0 {
		t.heard(p[:n])
	}
	return n, err
}
