// Package mcp offers the tools of an MCP server to a model, over the transport
// Streamable HTTP
// (https://modelcontextprotocol.io/specification/2025-11-25/basic/transports). It
// decides which tools are offered, when a new session is made, when a call is repeated
// and how a result becomes text. The server receives the arguments and the configured
// headers, but nothing about the caller. docs/adr/0016 says why the client is our own.
package mcp

// The files from the entry point down: mcp.go is the set of one server; session.go is
// one session at it; exchange.go sends one request and finds its answer, in a stream
// that may be resumed; listen.go reads what a server sends outside of answers; events.go
// reads server-sent events; failure.go says what an answer that is no result means;
// tools.go reads the list of tools, and result.go what a call returns.

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/trace"
)

// Options configure the connection to one server.
type Options struct {
	// URL is the server's endpoint, with http or https. Required.
	URL string
	// Headers are sent with each request to the URL's origin, and never to another.
	// Defaults to none.
	Headers map[string]string
	// Allow names the tools to offer. Defaults to all.
	Allow []string
	// Timeout limits the time of a call. Each progress notification of the server
	// starts it again, up to 10 minutes in all. Defaults to 60 seconds.
	Timeout time.Duration
	// Version is Keyway's version, for the server's log. Defaults to "dev".
	Version string
	// Egress decides where a redirect may lead. Defaults to public addresses only.
	Egress tool.Egress
	// Now returns the time, for the age of the list of tools. Defaults to time.Now.
	Now func() time.Time
}

// The limits protect a run from a server that is slow or sends too much.
const (
	connectTime = 10 * time.Second // for making a session and listing its tools
	callTime    = 60 * time.Second // for one call, unless Options.Timeout is set
	longestCall = 10 * time.Minute // for one call whose server reports progress
	closeTime   = 2 * time.Second  // for ending the session at the server
	listFor     = time.Minute      // how long a list of tools is used
	maxBody     = 4 << 20          // bytes of the responses to one request
	maxRefusal  = 64 << 10         // bytes that are read of an HTTP error response
)

// Server is the tool.Set of one MCP server. It connects when its tools are first needed
// and uses one session for all runs.
type Server struct {
	o       Options
	host    string   // host and port of the URL, for the log
	secrets []string // what no text may contain
	client  *http.Client
	life    context.Context // ends with Close
	end     context.CancelFunc

	// connecting is a lock that a context can interrupt. Its holder connects or lists.
	connecting chan struct{}

	mu      sync.Mutex // guards the fields below
	session *session
	tools   []tool.Tool
	listed  time.Time      // when tools were listed
	closing sync.WaitGroup // for what runs in the background
}

// New returns the set of a server's tools. It doesn't connect. A URL that isn't http or
// https is a fault.Invalid error.
func New(o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Timeout = cmp.Or(o.Timeout, callTime)
	o.Version = cmp.Or(o.Version, "dev")
	header := http.Header{}
	for name, value := range o.Headers {
		header.Set(name, value)
	}
	client, err := o.Egress.Origin(o.URL, header)
	if err != nil {
		return nil, err
	}
	client.Transport = trace.Outgoing(client.Transport)
	client.CheckRedirect = sameMethod
	s := &Server{o: o, client: client, connecting: make(chan struct{}, 1)}
	if u, err := url.Parse(o.URL); err == nil {
		s.host, s.secrets = u.Host, secretsOf(u, header)
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// sameMethod follows redirects that keep the method: 307 and 308. The others turn a
// request into a GET, whose answer is a page. The caller then gets the redirect itself.
func sameMethod(r *http.Request, via []*http.Request) error {
	if r.Method != via[0].Method || len(via) >= 10 {
		return http.ErrUseLastResponse
	}
	return nil
}

// errClosed is the error of calls after Close.
var errClosed = fault.Public(fault.Unavailable, "The tool server's connection was closed", nil)

// Tools implements tool.Set. The list is at most one minute old. If the server can't be
// reached or refuses, the error is fault.Unavailable or fault.Upstream, with the reason
// and a remedy.
func (s *Server) Tools(ctx context.Context) ([]tool.Tool, error) {
	ctx, stop := s.within(ctx, connectTime, connectTime)
	defer stop.end()
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	s.mu.Lock()
	tools, fresh := s.tools, !s.listed.IsZero() && s.o.Now().Sub(s.listed) < listFor
	s.mu.Unlock()
	if fresh {
		return tools, nil
	}
	var listed []json.RawMessage
	err := s.inSession(ctx, s.connect, func(c *session) (err error) {
		listed, err = c.listTools(ctx, s.o.Allow)
		return err
	})
	if err != nil {
		return nil, s.public(ctx, err)
	}
	if tools, err = s.offer(listed); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tools, s.listed = tools, s.o.Now()
	return tools, nil
}

// inSession calls do with the session. If the server answers that it doesn't know the
// session, it has executed nothing, so do is called once more with a new session.
func (s *Server) inSession(
	ctx context.Context, connect func(context.Context) (*session, error), do func(*session) error,
) error {
	for first := true; ; first = false {
		c, err := connect(ctx)
		if err == nil {
			err = do(c)
		}
		if err == nil {
			return nil
		}
		lost, ok := errors.AsType[*lostError](err)
		if ok && c != nil {
			s.forget(c)
		}
		if ok && !first {
			const text = "The tool server does not know the session that it has just made; if several instances serve " +
				"mcp.url, send the requests of a session to the same one"
			return fault.Public(fault.Upstream, text, lost)
		}
		if !ok || ctx.Err() != nil {
			return err
		}
	}
}

// connect returns the session and makes one if there is none. The caller holds the
// lock for connecting.
func (s *Server) connect(ctx context.Context) (*session, error) {
	s.mu.Lock()
	c := s.session
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	c, err := s.newSession(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		s.closing.Go(c.end)
		return nil, errClosed
	}
	s.session = c
	return c, nil
}

// connected is connect for a caller that doesn't hold the lock. It doesn't wait for the
// lock if there is a session: its holder may be waiting for a slow list of tools.
func (s *Server) connected(ctx context.Context) (*session, error) {
	s.mu.Lock()
	c := s.session
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	return s.connect(ctx)
}

// forget makes the next request use a new session. Calls that are in progress in this
// one may still end well, so it isn't ended at the server.
func (s *Server) forget(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == c {
		s.session, s.listed = nil, time.Time{}
		c.stopListening()
	}
}

// background runs f in a goroutine that Close waits for. It does nothing after Close.
func (s *Server) background(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() == nil {
		s.closing.Go(f)
	}
}

// patience limits how long something may take.
type patience struct {
	timer *time.Timer
	limit time.Duration
	last  time.Time // when it ends in any case
	end   context.CancelFunc
}

// within returns a context that ends with ctx, when nothing happened for limit, when
// most is over, or when s is closed. Its cause is then that of ctx, a fault.Unavailable
// error that names the limit, or errClosed.
func (s *Server) within(ctx context.Context, limit, most time.Duration) (context.Context, *patience) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { cancel(errClosed) })
	p := &patience{limit: limit, last: time.Now().Add(most)}
	p.timer = time.AfterFunc(limit, func() {
		text := fmt.Sprintf("The tool server did not answer within %g seconds", limit.Seconds())
		cancel(fault.Public(fault.Unavailable, text, fmt.Errorf("mcp server %s", s.host)))
	})
	p.end = func() { p.timer.Stop(); stop(); cancel(nil) }
	return ctx, p
}

// progress starts the limit again.
func (p *patience) progress() { p.timer.Reset(min(p.limit, time.Until(p.last))) }

// lock acquires the lock for connecting. If ctx ends first, the error is its cause. If s
// is closed, the error is errClosed.
func (s *Server) lock(ctx context.Context) error {
	if ctx.Err() != nil || s.life.Err() != nil {
		return cmp.Or(context.Cause(ctx), error(errClosed))
	}
	select {
	case s.connecting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// unlock releases the lock for connecting.
func (s *Server) unlock() { <-s.connecting }

// Close implements tool.Set. Calls in progress fail. It ends the session at the server
// and waits for that up to two seconds.
func (s *Server) Close() error {
	s.end()
	s.connecting <- struct{}{}
	defer s.unlock()
	s.mu.Lock()
	c := s.session
	s.session, s.tools, s.listed = nil, nil, time.Time{}
	s.mu.Unlock()
	if c != nil {
		s.closing.Go(c.end)
	}
	done := make(chan struct{})
	go func() { s.closing.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(closeTime):
	}
	s.client.CloseIdleConnections()
	return nil
}

// caller returns the Call of a tool. Empty arguments count as {}.
func (s *Server) caller(name string, headers []paramHeader) func(context.Context, json.RawMessage) (string, error) {
	return func(ctx context.Context, arguments json.RawMessage) (string, error) {
		if len(strings.TrimSpace(string(arguments))) == 0 {
			arguments = json.RawMessage("{}")
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(arguments, &object); err != nil || object == nil {
			return "", fmt.Errorf("arguments of %s: not a JSON object", name)
		}
		ctx, wait := s.within(ctx, s.o.Timeout, max(s.o.Timeout, longestCall))
		defer wait.end()
		var result json.RawMessage
		err := s.inSession(ctx, s.connected, func(c *session) (err error) {
			result, err = c.callTool(ctx, name, arguments, argumentHeaders(headers, object), wait.progress)
			return err
		})
		if err != nil {
			return "", s.public(ctx, err)
		}
		return resultText(result)
	}
}

// public returns the error that the caller and the model see. It never has the server's
// address, which may be an internal one. An error of the context is its cause.
func (s *Server) public(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if e, ok := errors.AsType[*rpcError](err); ok {
		return fault.Public(fault.Upstream, "The tool server returned an error: "+s.safe(e.Message, maxMessage), nil)
	}
	return s.unreachable(err)
}
