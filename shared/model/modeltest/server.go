package modeltest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server plays a provider over HTTP, on a loopback address. The path of a request
// determines the API: OpenAI's Chat Completions or Responses, Anthropic's Messages, or
// Bedrock's Converse. Each request is answered as a Script says.
type Server struct {
	// URL is the base URL of the API, "http://127.0.0.1:PORT/v1".
	URL string

	tb     testing.TB
	answer func(Request) (Script, bool)
	closed chan struct{} // ends every Wait

	mu       sync.Mutex
	requests []Request
	active   int
	quiet    chan struct{} // closed while active is 0
}

// Request is one request as the server received it.
type Request struct {
	// N counts the requests of a server from 1.
	N int
	// Path is "/v1/chat/completions", "/v1/responses", "/v1/messages",
	// "/v1/model/ID/converse-stream" or "/v1/model/ID/converse".
	Path string
	// Header has "***" in place of credentials.
	Header http.Header
	// Body is the decoded JSON object.
	Body map[string]any
}

// NewServer starts a server that answers each request with the next script. A request
// beyond the last script fails the test. The server stops with the test.
func NewServer(tb testing.TB, scripts ...Script) *Server {
	tb.Helper()
	return start(tb, nil, inOrder(scripts))
}

// newPipeServer starts a server like NewServer, whose connections come from pipes.
func newPipeServer(tb testing.TB, pipes *pipeListener, scripts []Script) *Server {
	tb.Helper()
	return start(tb, pipes, inOrder(scripts))
}

// inOrder answers request N with the N-th script.
func inOrder(scripts []Script) func(Request) (Script, bool) {
	return func(r Request) (Script, bool) {
		if r.N > len(scripts) {
			return Script{}, false
		}
		return scripts[r.N-1], true
	}
}

// NewServerFunc starts a server that calls answer for the script of each request.
// Several requests may call answer at once.
func NewServerFunc(tb testing.TB, answer func(Request) Script) *Server {
	tb.Helper()
	return start(tb, nil, func(r Request) (Script, bool) { return answer(r), true })
}

// start starts a server on pipes, or on a loopback address if pipes is nil.
func start(tb testing.TB, pipes *pipeListener, answer func(Request) (Script, bool)) *Server {
	tb.Helper()
	s := &Server{tb: tb, answer: answer, closed: make(chan struct{}), quiet: make(chan struct{})}
	close(s.quiet)
	h := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	if pipes != nil {
		_ = h.Listener.Close() // the one on the loopback address
		h.Listener = pipes
	}
	h.Start()
	s.URL = h.URL + "/v1"
	tb.Cleanup(func() {
		close(s.closed)
		h.Close()
	})
	return s
}

// Requests returns the requests so far, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Quiet returns when no request is being answered. The answer of a script that waits ends
// only when the client closes the connection, so a return of Quiet proves that the client
// has closed it. Quiet fails the test after patience.
func (s *Server) Quiet(tb testing.TB) {
	tb.Helper()
	s.mu.Lock()
	quiet := s.quiet
	s.mu.Unlock()
	select {
	case <-quiet:
	case <-time.After(patience):
		tb.Fatal("a request is still being answered: the client keeps the connection open")
	}
}

// patience limits how long a test waits for something that never happens. It is far longer
// than any step takes.
const patience = time.Minute

// The paths of the APIs, except Bedrock's, which contains the model's ID.
const (
	pathChat      = "/v1/chat/completions"
	pathResponses = "/v1/responses"
	pathMessages  = "/v1/messages"
)

// isConverse reports whether a path is Bedrock's Converse or ConverseStream, and which.
func isConverse(path string) (converse, streams bool) {
	if !strings.HasPrefix(path, "/v1/model/") {
		return false, false
	}
	streams = strings.HasSuffix(path, "/converse-stream")
	return streams || strings.HasSuffix(path, "/converse"), streams
}

// converseLatency is the time between a request of the Converse API and its answer. The AWS
// SDK closes the request's body when the response's header arrives. Without a network
// between both, net/http may still be reading that body to check its length, and would
// close the connection.
const converseLatency = time.Millisecond

// serve answers a request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	defer s.begin()()
	req, err := s.record(r)
	script := s.choose(req, err)
	if converse, _ := isConverse(req.Path); converse {
		time.Sleep(converseLatency)
	}
	if script.status != 0 {
		maps.Copy(w.Header(), script.header)
		refuse(w, script, req)
		return
	}
	contentType, play := player(w, req, script)
	w.Header().Set("Content-Type", contentType)
	maps.Copy(w.Header(), script.header)
	play(func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		case <-r.Context().Done():
		case <-s.closed:
		}
		return false
	})
	if script.linger > 0 {
		_ = http.NewResponseController(w).Flush() // the client may have closed the connection
		time.Sleep(script.linger)
	}
}

// player returns the function that plays a script in the form of the requested API.
func player(w http.ResponseWriter, r Request, s Script) (contentType string, play func(waiter)) {
	to := stream{out: w, flush: http.NewResponseController(w).Flush, request: r, script: s}
	streams := func(contentType string, e encoder) (string, func(waiter)) {
		return contentType, func(wait waiter) { perform(e, s, wait) }
	}
	const events = "text/event-stream; charset=utf-8"
	converse, streamed := isConverse(r.Path)
	asked := r.Body["stream"] == true
	if s.has(OtherForm) {
		asked = !asked
	}
	var body func(Script, Request) []byte
	switch {
	case streamed:
		return streams("application/vnd.amazon.eventstream", &converseStream{stream: to})
	case r.Path == pathResponses && asked:
		return streams(events, &responses{stream: to})
	case r.Path == pathMessages && asked:
		return streams(events, &messages{stream: to})
	case r.Path == pathChat && asked:
		return streams(events, &chat{stream: to})
	case converse:
		body = converseWhole
	case r.Path == pathMessages:
		body = messageWhole
	case r.Path == pathResponses:
		body = responseWhole
	default:
		body = chatCompletion
	}
	return "application/json", (&completion{to, body}).play
}

// choose returns the script for a request. err is why the request can't be decoded.
func (s *Server) choose(r Request, err error) Script {
	converse, _ := isConverse(r.Path)
	switch {
	case err != nil:
		s.tb.Errorf("request %d to %s: %v", r.N, r.Path, err)
		return Fail(http.StatusBadRequest, err.Error())
	case r.Path != pathChat && r.Path != pathResponses && r.Path != pathMessages && !converse:
		return Fail(http.StatusNotFound, "no such route")
	}
	script, ok := s.answer(r)
	if !ok {
		s.tb.Errorf("request %d to %s: no script is left for it", r.N, r.Path)
		return Fail(http.StatusInternalServerError, "no script is left")
	}
	return script
}

// begin counts a request as active until the returned function is called.
func (s *Server) begin() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active++; s.active == 1 {
		s.quiet = make(chan struct{})
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.active--; s.active == 0 {
			close(s.quiet)
		}
	}
}

// record keeps the request, without credentials, so that no failure message shows them.
func (s *Server) record(r *http.Request) (Request, error) {
	req := Request{Path: r.URL.Path, Header: r.Header.Clone()}
	for _, name := range []string{"Authorization", "Api-Key", "X-Api-Key", "X-Amz-Security-Token"} {
		if req.Header.Get(name) != "" {
			req.Header.Set(name, "***")
		}
	}
	raw, err := io.ReadAll(r.Body)
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &req.Body)
	}
	if err != nil {
		err = fmt.Errorf("decode: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	req.N = len(s.requests) + 1
	s.requests = append(s.requests, req)
	return req, err
}
