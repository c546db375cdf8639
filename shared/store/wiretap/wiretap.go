// Package wiretap is a proxy between a client and PostgreSQL, for tests and benchmarks. It counts connections, round
// trips and bytes, and reports the client's messages. It forwards all bytes unchanged, but can also lose an answer, or
// forward nothing for a while. It parses the frames of the protocol without TLS, and no SQL.
package wiretap

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/url"
	"sync"
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
	lose    atomic.Bool
	frozen  sync.RWMutex // locked for writing while nothing is forwarded
}

// Open starts a proxy to the database at address. receive gets each message of a client before it is forwarded, from
// several connections at the same time. If receive is nil, nobody gets them.
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

// LoseAnswer loses the answer of the next statement: the server executes it, and then the client's connection is
// closed. To prepare a statement is not to execute it.
func (t *Tap) LoseAnswer() { t.lose.Store(true) }

// Freeze forwards nothing until Thaw is called, as if the server were stopped by a signal. Connections are accepted.
func (t *Tap) Freeze() { t.frozen.Lock() }

// Thaw ends Freeze. What was sent meanwhile is forwarded.
func (t *Tap) Thaw() { t.frozen.Unlock() }

// passed returns when the tap is not frozen.
func (t *Tap) passed() {
	t.frozen.RLock()
	defer t.frozen.RUnlock()
}

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
	var losing atomic.Bool  // the next answer is to be lost
	var sent frames
	go func() {
		defer server.Close()
		_, _ = io.Copy(server, observer{client, func(p []byte) error {
			t.passed()
			t.Sent.Add(int64(len(p)))
			pending.Store(true)
			sent.add(p, func(m Message) {
				if (m.Kind == 'E' || m.Kind == 'Q' && m.Text != ping) && t.lose.CompareAndSwap(true, false) {
					losing.Store(true)
				}
				if t.receive != nil {
					t.receive(m)
				}
			})
			return nil
		}})
	}()
	_, _ = io.Copy(client, observer{server, func(p []byte) error {
		t.passed()
		t.Received.Add(int64(len(p)))
		if pending.Swap(false) {
			t.Trips.Add(1)
		}
		if losing.Load() {
			return lose(server, p)
		}
		return nil
	}})
}

// ping is the query with which pgx looks whether a connection works.
const ping = "-- ping"

// lose reads an answer, which starts with p, up to its end. It returns an error, so that nothing is forwarded.
func lose(server io.Reader, p []byte) error {
	// The message ReadyForQuery ends an answer: its kind, its length and a letter. Only then the server has committed.
	end := []byte{'Z', 0, 0, 0, 5}
	answer, piece := bytes.Clone(p), make([]byte, 1<<10)
	for len(answer) < 6 || !bytes.Equal(answer[len(answer)-6:len(answer)-1], end) {
		n, err := server.Read(piece)
		if err != nil {
			return err
		}
		answer = append(answer, piece[:n]...)
	}
	return io.EOF
}

// observer is a Reader that calls observe with everything that is read. An error of observe is that of Read.
type observer struct {
	io.Reader
	observe func([]byte) error
}

func (o observer) Read(p []byte) (int, error) {
	n, err := o.Reader.Read(p)
	if n == 0 {
		return n, err
	}
	if failed := o.observe(p[:n]); failed != nil {
		return 0, failed
	}
	return n, err
}
