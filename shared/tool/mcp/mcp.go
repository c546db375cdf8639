// Package mcp offers the tools of an MCP server to a model, over the transport
// Streamable HTTP
// (https://modelcontextprotocol.io/specification/2025-06-18/basic/transports). It
// decides which tools are offered, when a new session is made, when a call is repeated
// and how a result becomes text. The server receives the arguments and the configured
// headers, but nothing about the caller.
package mcp

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
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
	// Egress decides where a redirect may lead. Defaults to public addresses only.
	Egress tool.Egress
	// Now returns the time, for the age of the list of tools. Defaults to time.Now.
	Now func() time.Time
}

// The limits protect a run from a server that is slow or sends too much.
const (
	connectTime = 10 * time.Second // for making a session and listing its tools
	callTime    = 60 * time.Second // for one call
	closeTime   = 2 * time.Second  // for ending the session at the server
	listFor     = time.Minute      // how long a list of tools is used
	maxBody     = 4 << 20          // bytes of one response
	maxListed   = 1000             // how many listed tools are read
	maxOffered  = 128              // OpenAI's limit of tools in one request
)

// Server is the tool.Set of one MCP server. It connects when its tools are first needed
// and uses one session for all runs.
type Server struct {
	o      Options
	client *http.Client
	life   context.Context // ends with Close
	end    context.CancelFunc

	// connecting is a lock that a context can interrupt. Its holder connects or lists.
	connecting chan struct{}

	mu      sync.Mutex // guards the fields below
	session *sdk.ClientSession
	tools   []tool.Tool
	listed  time.Time      // when tools were listed
	closing sync.WaitGroup // sessions that are being closed
}

// New returns the set of a server's tools. It doesn't connect. A URL that isn't http or
// https is a fault.Invalid error.
func New(o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	header := http.Header{}
	for name, value := range o.Headers {
		header.Set(name, value)
	}
	client, err := o.Egress.Origin(o.URL, header)
	if err != nil {
		return nil, err
	}
	client.Transport = &limitedTransport{client.Transport}
	s := &Server{o: o, client: client, connecting: make(chan struct{}, 1)}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// errClosed is the error of calls after Close.
var errClosed = fault.Public(fault.Unavailable, "The tool server's connection was closed", nil)

// Tools implements tool.Set. The list is at most one minute old. If the server can't be
// reached, the error is fault.Unavailable; if its tools can't be offered,
// fault.Upstream.
func (s *Server) Tools(ctx context.Context) ([]tool.Tool, error) {
	ctx, cancel := s.within(ctx, connectTime, "The tool server did not answer within 10 seconds")
	defer cancel()
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
	tools, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tools, s.listed = tools, s.o.Now()
	return tools, nil
}

// list lists the tools. If an existing session fails, it repeats the request once in a
// new session, since listing has no effect on the server.
func (s *Server) list(ctx context.Context) ([]tool.Tool, error) {
	for first := true; ; first = false {
		had := s.current()
		session, err := s.connect(ctx)
		if err != nil {
			return nil, s.public(ctx, err)
		}
		listed, err := s.readPages(ctx, session)
		if err == nil {
			return s.offer(listed)
		}
		if !isAnswer(err) {
			s.drop(session)
		}
		if had == nil || !first || ctx.Err() != nil || isAnswer(err) {
			return nil, s.public(ctx, err)
		}
	}
}

// readPages reads the pages of the list. It stops when every tool in Allow is found, so
// that a server with many tools can be used by naming some of them.
func (s *Server) readPages(ctx context.Context, session *sdk.ClientSession) (listed []*sdk.Tool, err error) {
	missing := make(map[string]bool, len(s.o.Allow))
	for _, name := range s.o.Allow {
		missing[name] = true
	}
	for t, err := range session.Tools(ctx, nil) {
		if err != nil {
			return nil, err
		}
		if len(listed) == maxListed {
			const text = "The tool server lists more than 1000 tools; name those to use in mcp.allow"
			return nil, fault.Public(fault.Upstream, text, nil)
		}
		listed = append(listed, t)
		if delete(missing, t.Name); len(s.o.Allow) > 0 && len(missing) == 0 {
			break
		}
	}
	return listed, nil
}

// connect returns the session and makes one if there is none. ctx limits only the time for
// connecting. The session's own context is that of the Server, because the session is
// used longer than the run that needed it first. The SDK's own retries are off, because it would
// repeat a call that may have had an effect; its limit for an event is off too, since
// limitedTransport limits the whole response. No standalone stream is opened, because
// this client handles no requests or notifications of the server.
func (s *Server) connect(ctx context.Context) (*sdk.ClientSession, error) {
	if session := s.current(); session != nil {
		return session, nil
	}
	own, cancel := context.WithCancel(s.life)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	about := &sdk.Implementation{Name: "keyway", Version: "1"}
	client := sdk.NewClient(about, &sdk.ClientOptions{Capabilities: &sdk.ClientCapabilities{}})
	session, err := client.Connect(own, &sdk.StreamableClientTransport{
		Endpoint: s.o.URL, HTTPClient: s.client, DisableStandaloneSSE: true, MaxRetries: -1, MaxEventSize: -1,
	}, nil)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		s.closing.Go(func() { _ = session.Close() })
		return nil, errClosed
	}
	s.session = session
	return session, nil
}

// current returns the session, or nil if there is none.
func (s *Server) current() *sdk.ClientSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// drop discards a session that failed, unless another one has replaced it already. It
// closes the session in the background, because closing waits for the session's other
// calls. The error of closing a broken session doesn't matter.
func (s *Server) drop(session *sdk.ClientSession) {
	s.mu.Lock()
	current := s.session == session
	if current {
		s.session, s.listed = nil, time.Time{}
	}
	s.mu.Unlock()
	if current {
		s.closing.Go(func() { _ = session.Close() })
	}
}

// within returns a context that ends with ctx, after limit, or when s is closed. Its cause
// is then that of ctx, a fault.Unavailable error with the text slow, or errClosed.
func (s *Server) within(ctx context.Context, limit time.Duration, slow string) (context.Context, context.CancelFunc) {
	ctx, closed := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { closed(errClosed) })
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fault.Public(fault.Unavailable, slow, nil))
	return ctx, func() { cancel(); stop(); closed(nil) }
}

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
	session := s.session
	s.session, s.tools, s.listed = nil, nil, time.Time{}
	s.mu.Unlock()
	if session != nil {
		s.closing.Go(func() { _ = session.Close() }) // an error means that the server has no session any more
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

// public returns the error that the caller and the model see. It never has the server's
// address, which may be an internal one. An error of the context is its cause.
func (s *Server) public(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if text, ok := answered(err); ok {
		return fault.Public(fault.Upstream, "The tool server returned an error: "+text, err)
	}
	return fault.Public(fault.Unavailable, "The tool server cannot be reached", err)
}
