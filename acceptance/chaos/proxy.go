//go:build unix

package main

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// proxy passes a process's connections on to the database, and disturbs them as the harness asks.
type proxy struct {
	target   string
	listener net.Listener

	mu    sync.Mutex
	links map[*link]bool
	// frozen is closed when the traffic continues. nil: it is not stopped.
	frozen chan struct{}
	// refusing means that new connections are closed at once.
	refusing bool
	// delay is how long each piece is held back.
	delay time.Duration
	// lose is what is lost, with this probability, and what happens to its connection then.
	lose loss
}

// loss says which pieces a proxy loses.
type loss struct {
	// Answers and Requests are the probabilities that a piece from and to the database is lost.
	Answers, Requests float64
	// Hang keeps a connection that has lost a piece open and silent. Otherwise it is closed.
	Hang bool
}

// link is a connection of the process, and the one to the database that belongs to it.
type link struct {
	client, server net.Conn
	mu             sync.Mutex
	silent         bool // nothing more is passed on
}

// openProxy listens on a free port and passes connections on to target.
func openProxy(ctx context.Context, target string) (*proxy, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{target: target, listener: l, links: map[*link]bool{}}
	go p.accept()
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) close() {
	p.listener.Close()
	p.thaw()
	p.cut()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.connect(client)
	}
}

// connect serves a connection of the process.
func (p *proxy) connect(client net.Conn) {
	p.passes()
	p.mu.Lock()
	refusing := p.refusing
	p.mu.Unlock()
	var server net.Conn
	var err error
	if !refusing {
		server, err = (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", p.target)
	}
	if refusing || err != nil {
		client.Close()
		return
	}
	l := &link{client: client, server: server}
	p.mu.Lock()
	p.links[l] = true
	p.mu.Unlock()
	go p.pump(l, client, server, func(o loss) float64 { return o.Requests })
	p.pump(l, server, client, func(o loss) float64 { return o.Answers })
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// pump passes pieces from one side to the other until one of them is closed.
func (p *proxy) pump(l *link, from, to net.Conn, probability func(loss) float64) {
	defer l.close()
	piece := make([]byte, 64<<10)
	for {
		n, err := from.Read(piece)
		if n > 0 && !p.pass(l, to, piece[:n], probability) {
			return
		}
		if err != nil {
			return
		}
	}
}

// pass passes a piece on, or loses it. It returns false if the connection is to be closed.
func (p *proxy) pass(l *link, to net.Conn, piece []byte, probability func(loss) float64) bool {
	delay := p.passes()
	time.Sleep(delay)
	p.mu.Lock()
	lose := p.lose
	p.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.silent && rand.Float64() < probability(lose) { // #nosec G404 -- which piece is lost decides no secret
		if !lose.Hang {
			return false
		}
		l.silent = true
	}
	if l.silent {
		return true // the piece is read and dropped
	}
	_, err := to.Write(piece)
	return err == nil
}

// passes waits until the traffic is not frozen, and returns the delay.
func (p *proxy) passes() time.Duration {
	for {
		p.mu.Lock()
		frozen, delay := p.frozen, p.delay
		p.mu.Unlock()
		if frozen == nil {
			return delay
		}
		<-frozen
	}
}

// close closes both connections. The process gets a reset, as after the failure of a machine.
func (l *link) close() {
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

// freeze stops the traffic in both directions. The connections stay open.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen = make(chan struct{})
	}
}

// thaw lets the traffic continue.
func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
}

// set changes how the proxy disturbs the traffic.
func (p *proxy) set(change func(*proxy)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// calm ends every disturbance. Connections that have lost a piece and were kept open are closed.
func (p *proxy) calm() {
	p.set(func(p *proxy) { p.refusing, p.delay, p.lose = false, 0, loss{} })
	p.thaw()
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.mu.Lock()
		if l.silent {
			l.close()
		}
		l.mu.Unlock()
	}
}
