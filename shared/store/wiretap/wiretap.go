// Package wiretap is a proxy between a client and PostgreSQL, for tests and benchmarks. It counts connections, round
// trips and bytes, and reports the client's messages. It forwards all bytes unchanged. It parses the frames of the
// protocol without TLS, and no SQL.
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
	// URL is the address of the database through the proxy.
	URL string
	// Opened counts the connections of clients.
	Opened atomic.Int64
	// Trips counts the round trips: how often the server has answered after the client had sent something.
	Trips atomic.Int64
	// Sent counts the bytes from clients to the server, and Received those from the server to clients.
	Sent, Received atomic.Int64

	listen  net.Listener
	receive func(Message)
}

// Open starts a proxy to the database at address. receive gets each message of a client before it is forwarded, from
// several connections at the same time. If receive is nil, messages are not parsed.
func Open(ctx context.Context, address string, receive func(Message)) (*Tap, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	t := &Tap{receive: receive}
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
				return // Close was called.
			}
			t.Opened.Add(1)
			go t.forward(ctx, conn, to)
		}
	}()
	return t, nil
}

// Close stops the proxy from accepting connections. Open connections stay until one of their ends is closed.
func (t *Tap) Close() { _ = t.listen.Close() }

// forward connects a client with the server. Requests that are sent together count as one round trip. A message
// without an answer, such as Terminate, counts as none.
func (t *Tap) forward(ctx context.Context, client net.Conn, to string) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	var pending atomic.Bool // the client has sent something since the last answer
	var sent frames
	go func() {
		defer server.Close()
		_, _ = io.Copy(server, observer{client, func(p []byte) {
			t.Sent.Add(int64(len(p)))
			if pending.Store(true); t.receive != nil {
				sent.add(p, t.receive)
			}
		}})
	}()
	_, _ = io.Copy(client, observer{server, func(p []byte) {
		t.Received.Add(int64(len(p)))
		if pending.Swap(false) {
			t.Trips.Add(1)
		}
	}})
}

// observer is a Reader that calls observe with everything that is read.
type observer struct {
	io.Reader
	observe func([]byte)
}

func (o observer) Read(p []byte) (int, error) {
	n, err := o.Reader.Read(p)
	if n > 0 {
		o.observe(p[:n])
	}
	return n, err
}
