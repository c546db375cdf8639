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

// Server stands in for a vendor on a loopback address. It speaks the streams of
// OpenAI's chat completions, of its Responses API, of Anthropic's Messages API and of
// Bedrock's Converse API, by the path, over real HTTP, and does with each request what
// a Script says.
type Server struct {
	URL string // base URL of the API, "http://127.0.0.1:PORT/v1"

	tb     testing.TB
	answer func(Request) (Script, bool)
	closed chan struct{} // ends every Wait

	mu       sync.Mutex
	requests []Request
	active   int
	quiet    chan struct{} // closed while active is 0
}

// Request is one request as the server got it.
type Request struct {
	N      int         // counts from 1
	Path   string      // "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/model/ID/converse-stream"
	Header http.Header // credentials are replaced by "***"
	Body   map[string]any
}

// NewServer starts a server that answers each request with the next script. A
// request beyond the last script fails the test. The server stops with the test.
func NewServer(tb testing.TB, scripts ...Script) *Server {
	tb.Helper()
	return start(tb, func(r Request) (Script, bool) {
		if r.N > len(scripts) {
			return Script{}, false
		}
		return scripts[r.N-1], true
	})
}

// NewServerFunc starts a server that asks answer what to do with each request.
// answer may be called by several requests at once.
func NewServerFunc(tb testing.TB, answer func(Request) Script) *Server {
	tb.Helper()
	return start(tb, func(r Request) (Script, bool) { return answer(r), true })
}

func start(tb testing.TB, answer func(Request) (Script, bool)) *Server {
	tb.Helper()
	s := &Server{tb: tb, answer: answer, closed: make(chan struct{}), quiet: make(chan struct{})}
	close(s.quiet)
	h := httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = h.URL + "/v1"
	tb.Cleanup(func() {
		close(s.closed)
		h.Close()
	})
	return s
}

// Requests are the requests so far, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Quiet returns when no request is being answered. A script that waits is being
// answered until the client lets go of the connection, so Quiet proves that it
// did. It fails the test when that takes longer than patience.
func (s *Server) Quiet(tb testing.TB) {
	tb.Helper()
	s.mu.Lock()
	quiet := s.quiet
	s.mu.Unlock()
	select {
	case <-quiet:
	case <-time.After(patience):
		tb.Fatal("a request is still being answered: the client holds on to the connection")
	}
}

// patience bounds what would otherwise hang; nothing that works comes near it.
const patience = time.Minute

const (
	pathChat      = "/v1/chat/completions"
	pathResponses = "/v1/responses"
	pathMessages  = "/v1/messages"
)

// isConverse says whether a path is Bedrock's Converse or ConverseStream.
func isConverse(path string) (converses, streams bool) {
	if !strings.HasPrefix(path, "/v1/model/") {
		return false, false
	}
	streams = strings.HasSuffix(path, "/converse-stream")
	return streams || strings.HasSuffix(path, "/converse"), streams
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	defer s.begin()()
	req, err := s.record(r)
	script := s.choose(req, err)
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
}

// player is what answers in the words of the API that was asked.
func player(w http.ResponseWriter, r Request, s Script) (contentType string, play func(holder)) {
	to := stream{out: w, flush: http.NewResponseController(w).Flush, request: r, script: s}
	streams := func(contentType string, v speaker) (string, func(holder)) {
		return contentType, func(hold holder) { perform(v, s, hold) }
	}
	const events = "text/event-stream; charset=utf-8"
	converses, streamed := isConverse(r.Path)
	var body func(Script, Request) []byte
	switch {
	case streamed:
		return streams("application/vnd.amazon.eventstream", &converse{stream: to})
	case r.Path == pathResponses:
		return streams(events, &responses{stream: to})
	case r.Path == pathMessages && r.Body["stream"] == true:
		return streams(events, &messages{stream: to})
	case r.Path == pathChat && r.Body["stream"] == true:
		return streams(events, &chat{stream: to})
	case converses:
		body = converseWhole
	case r.Path == pathMessages:
		body = messageWhole
	default:
		body = chatCompletion
	}
	return "application/json", (&completion{to, body}).play
}

// choose finds the script for a request; err is why the request can't be read.
func (s *Server) choose(r Request, err error) Script {
	converses, _ := isConverse(r.Path)
	switch {
	case err != nil:
		s.tb.Errorf("request %d to %s: %v", r.N, r.Path, err)
		return Fail(http.StatusBadRequest, err.Error())
	case r.Path != pathChat && r.Path != pathResponses && r.Path != pathMessages && !converses:
		return Fail(http.StatusNotFound, "no such route")
	}
	script, ok := s.answer(r)
	if !ok {
		s.tb.Errorf("request %d to %s: no script is left for it", r.N, r.Path)
		return Fail(http.StatusInternalServerError, "no script is left")
	}
	return script
}

// begin counts a request in and returns what counts it out.
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
