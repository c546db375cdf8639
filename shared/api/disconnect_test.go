package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/logging"
)

// logLines is a log that a test reads.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// logged returns the service as ann reaches it through logging.Requests, and its log.
func (s *service) logged() (http.Handler, *logLines) {
	lines := &logLines{}
	log := slog.New(slog.NewJSONHandler(lines, nil))
	server := *s.handler
	server.Log = log
	return logging.Requests(log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), callers["ann"])))
	})), lines
}

func TestAClientThatDisconnectsIsNoError(t *testing.T) {
	t.Parallel()
	s := newService(t, callTool("door"))
	paused := s.run("ann", "s", "m")
	for _, request := range []string{
		"GET /sessions", "GET /sessions/s", "GET /agents/a/runs?session_id=s", "GET /memories", "DELETE /sessions/s",
		"POST /agents/a/runs message=m", "POST /agents/a/runs message=m&stream=false",
		"POST /agents/a/runs message=m&stream=false&background=true",
		"POST /agents/a/runs/" + paused + "/resume x=", "POST /agents/a/runs/" + paused + "/cancel x=",
		"POST /agents/a/runs/" + paused + "/continue session_id=s",
		"POST /agents/a/runs/" + paused + "/continue session_id=s&stream=false",
	} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			handler, lines := s.logged()
			words := append(strings.Fields(request), "")
			ctx, leave := context.WithCancel(t.Context())
			leave()
			r := httptest.NewRequestWithContext(ctx, words[0], words[1], strings.NewReader(words[2]))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			handler.ServeHTTP(httptest.NewRecorder(), r)
			var line struct {
				Level, Msg, Err string
				Status          int
			}
			if err := json.Unmarshal([]byte(lines.String()), &line); err != nil {
				t.Fatalf("%v: %s", err, lines)
			}
			if line.Level != "INFO" || line.Status != 499 || line.Err != "the client has disconnected" {
				t.Errorf("%s", lines)
			}
		})
	}
}

// The same over a connection: the client leaves while the server waits for the model, for
// the run's events and for the rest of the body.
func TestAConnectionThatBreaksIsNoError(t *testing.T) {
	t.Parallel()
	goAhead := make(chan struct{})
	s := newService(t, waitFor(goAhead))
	handler, lines := s.logged()
	server := httptest.NewServer(handler)
	defer server.Close()
	send := func(path, body string, length int) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
			"Content-Length: %d\r\n\r\n%s", path, length, body)
		return conn
	}
	whole := "message=m&stream=false&session_id=s"
	run := send("/agents/a/runs", whole, len(whole))
	id := s.running("s")
	follower := send("/agents/a/runs/"+id+"/resume", "", 0)
	first := make([]byte, 1)
	if _, err := follower.Read(first); err != nil {
		t.Fatal(err)
	}
	upload := send("/agents/a/runs", "message=m", 1000)
	for _, conn := range []net.Conn{run, follower, upload} {
		conn.Close()
	}
	close(goAhead)
	server.Close() // It waits for the requests.
	if text := lines.String(); strings.Contains(text, "ERROR") || strings.Contains(text, "context canceled") {
		t.Errorf("%s", text)
	}
}

func TestADatabaseThatIsNotAvailableIsA503BeforeTheFirstByte(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.run("ann", "s", "m")
	s.db.Close()
	for _, request := range []string{
		"ann POST /agents/a/runs message=m", "ann POST /agents/a/runs message=m&stream=false",
		"ann POST /agents/a/runs message=m&stream=false&background=true", "ann POST /agents/a/runs/" + id + "/resume x=",
		"ann POST /agents/a/runs/" + id + "/continue session_id=s",
		"ann POST /agents/a/runs/" + id + "/continue session_id=s&stream=false",
	} {
		cut := strings.LastIndex(request, " ")
		got := s.do(request[:cut], request[cut+1:]).want(t, 503, `{"detail":"The database is not available, try again"}`)
		if got.Header().Get("Retry-After") != "2" || got.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", request, got.Header())
		}
	}
}
