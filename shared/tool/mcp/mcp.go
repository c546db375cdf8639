// Package mcp offers the tools of an MCP server (streamable HTTP) to a model. It
// decides which of them are fit to be offered, when a session is made anew and
// what a result is as text. It knows nothing of who asks, and sends nothing of the
// caller but the arguments.
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

// Options name one server.
type Options struct {
	URL     string            // http or https
	Headers map[string]string // for the URL's origin only
	Allow   []string          // the tools to offer; none named is all
	Egress  tool.Egress       // where a redirect may lead
	Now     func() time.Time  // nil is time.Now
}

const (
	connectTime = 10 * time.Second // a session and the list of its tools
	callTime    = 60 * time.Second
	closeTime   = 2 * time.Second // to tell the server that the session is over
	listFor     = time.Minute     // how long a list of tools is believed
	maxBody     = 4 << 20         // of one answer
	maxListed   = 1000            // tools that are looked through
	maxOffered  = 128             // OpenAI takes no more
)

// Server is the set of one server's tools. It connects when they are first asked
// for, and keeps one session for all runs.
type Server struct {
	o      Options
	client *http.Client
	life   context.Context // ends with Close
	end    context.CancelFunc

	turn    chan struct{} // held by whoever connects or lists
	mu      sync.Mutex
	session *sdk.ClientSession
	tools   []tool.Tool
	listed  time.Time
	closing sync.WaitGroup // sessions that were given up
}

// New describes the server without asking it anything. A URL that isn't http or
// https is fault.Invalid.
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
	client.Transport = &bounded{client.Transport}
	s := &Server{o: o, client: client, turn: make(chan struct{}, 1)}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

var errClosed = fault.Public(fault.Unavailable, "The tool server's connection was closed", nil)

// Tools implements tool.Set. The list is at most a minute old. A server that is
// away is fault.Unavailable, one whose tools cannot be offered fault.Upstream.
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

// list asks again once, in a new session, when the old one failed: listing twice
// does no harm.
func (s *Server) list(ctx context.Context) ([]tool.Tool, error) {
	for again := true; ; again = false {
		had := s.current()
		session, err := s.connect(ctx)
		if err != nil {
			return nil, s.public(ctx, err)
		}
		listed, err := s.page(ctx, session)
		if err == nil {
			return s.offer(listed)
		}
		if !isAnswer(err) {
			s.drop(session)
		}
		if had == nil || !again || ctx.Err() != nil || isAnswer(err) {
			return nil, s.public(ctx, err)
		}
	}
}

// page reads the pages of the list until every allowed tool is found.
func (s *Server) page(ctx context.Context, session *sdk.ClientSession) (listed []*sdk.Tool, err error) {
	missing := make(map[string]bool, len(s.o.Allow))
	for _, name := range s.o.Allow {
		missing[name] = true
	}
	for t, err := range session.Tools(ctx, nil) {
		if err != nil {
			return nil, err
		}
		if len(listed) == maxListed {
			return nil, fault.Public(fault.Upstream, "The tool server lists more than 1000 tools; name those to use in mcp.allow", nil)
		}
		listed = append(listed, t)
		if delete(missing, t.Name); len(s.o.Allow) > 0 && len(missing) == 0 {
			break
		}
	}
	return listed, nil
}

// connect makes the session if there is none. Its context carries nothing of ctx
// but the end: the session outlives the run that happened to need it first.
func (s *Server) connect(ctx context.Context) (*sdk.ClientSession, error) {
	if session := s.current(); session != nil {
		return session, nil
	}
	own, cancel := context.WithCancel(s.life)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	client := sdk.NewClient(&sdk.Implementation{Name: "keyway", Version: "1"}, &sdk.ClientOptions{Capabilities: &sdk.ClientCapabilities{}})
	session, err := client.Connect(own, &sdk.StreamableClientTransport{
		Endpoint: s.o.URL, HTTPClient: s.client, DisableStandaloneSSE: true, MaxRetries: -1, MaxEventSize: -1, // bounded does it
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

func (s *Server) current() *sdk.ClientSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// drop forgets a session that failed, unless another one took its place already.
func (s *Server) drop(session *sdk.ClientSession) {
	s.mu.Lock()
	mine := s.session == session
	if mine {
		s.session, s.listed = nil, time.Time{}
	}
	s.mu.Unlock()
	if mine {
		s.closing.Go(func() { _ = session.Close() }) // waits for the session's other calls; that it is broken is known
	}
}

// within bounds ctx by time and by the life of s.
func (s *Server) within(ctx context.Context, limit time.Duration, slow string) (context.Context, context.CancelFunc) {
	ctx, closed := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { closed(errClosed) })
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fault.Public(fault.Unavailable, slow, nil))
	return ctx, func() { cancel(); stop(); closed(nil) }
}

func (s *Server) lock(ctx context.Context) error {
	if ctx.Err() != nil || s.life.Err() != nil {
		return cmp.Or(context.Cause(ctx), error(errClosed))
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Server) unlock() { <-s.turn }

// Close implements tool.Set: calls that are under way fail, and the server is told.
func (s *Server) Close() error {
	s.end()
	s.turn <- struct{}{}
	defer s.unlock()
	s.mu.Lock()
	session := s.session
	s.session, s.tools, s.listed = nil, nil, time.Time{}
	s.mu.Unlock()
	if session != nil {
		s.closing.Go(func() { _ = session.Close() }) // a server that is gone needs no telling
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

// public chooses what may be read of a failure: never an address.
func (s *Server) public(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if text, ok := answered(err); ok {
		return fault.Public(fault.Upstream, "The tool server refused: "+text, err)
	}
	return fault.Public(fault.Unavailable, "The tool server cannot be reached", err)
}
