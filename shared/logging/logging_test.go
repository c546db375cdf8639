package logging_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
)

// site serves one handler on a real socket and collects its log.
type site struct {
	t      *testing.T
	server *httptest.Server
	mu     sync.Mutex
	log    bytes.Buffer
}

func (s *site) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.log.Write(p) }

func serve(t *testing.T, h http.HandlerFunc) *site {
	t.Helper()
	s := &site{t: t}
	s.server = httptest.NewUnstartedServer(logging.Requests(logging.NewLogger(s, false), h))
	s.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.server.Start()
	t.Cleanup(s.server.Close)
	return s
}

// reply is an answer that was read to its end. cut reports that it was incomplete.
type reply struct {
	status int
	header http.Header
	body   string
	cut    bool
}

func (s *site) post(path string, headers ...string) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "POST", s.server.URL+path, strings.NewReader("body-marker"))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.server.Client().Do(r) // not the default client: closing any test server closes its idle connections
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(data), err != nil}
}

// lines closes the server, so that every request has its line, and returns all lines.
func (s *site) lines() (out []map[string]any) {
	s.t.Helper()
	s.server.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for dec := json.NewDecoder(&s.log); ; {
		var line map[string]any
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, line)
	}
}

var moments = cmpopts.IgnoreMapEntries(func(name string, _ any) bool { return name == "time" || name == "ms" })

func TestRequestLogLineSharesResponseID(t *testing.T) {
	t.Parallel()
	var inside string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		inside = logging.RequestID(r.Context())
		logging.Note(r.Context(), "route", "GET /x")
		logging.Note(r.Context(), "run_id", "r-1")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short")
		_, _ = io.WriteString(w, " and stout")
	})
	got := s.post("/x", "X-Request-Id", "chosen by the client")
	id := got.header.Get("X-Request-Id")
	if id == "" || id != inside || strings.Contains(id, "client") || got.body != "short and stout" {
		t.Errorf("the answer has the id %q, the handler %q", id, inside)
	}
	want := []map[string]any{{
		"level": "INFO", "msg": "request", "request_id": id, "method": "POST", "status": 418.0, "bytes": 15.0,
		"route": "GET /x", "run_id": "r-1",
	}}
	lines := s.lines()
	if diff := cmp.Diff(want, lines, moments); diff != "" {
		t.Error(diff)
	}
	if ms, ok := lines[0]["ms"].(float64); !ok || ms < 0 {
		t.Errorf("it took %v ms", lines[0]["ms"])
	}
}

func TestRequestIDsAreUnique(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	seen := map[string]bool{}
	for range 20 {
		seen[s.post("/").header.Get("X-Request-Id")] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d ids for 20 requests", len(seen))
	}
}

func TestLoggedStatusIsTheSentOne(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		answer func(http.ResponseWriter)
		status int
	}{
		"nothing is written": {func(http.ResponseWriter) {}, 200},
		"only a body":        {func(w http.ResponseWriter) { _, _ = w.Write([]byte("x")) }, 200},
		"only a flush":       {func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }, 200},
		"a status after a flush": {func(w http.ResponseWriter) {
			_ = http.NewResponseController(w).Flush()
			w.WriteHeader(500)
		}, 200},
		"a status":     {func(w http.ResponseWriter) { w.WriteHeader(404) }, 404},
		"two statuses": {func(w http.ResponseWriter) { w.WriteHeader(404); w.WriteHeader(500) }, 404},
		"a fault":      {func(w http.ResponseWriter) { fault.Write(w, fault.Conflict) }, 409},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) { row.answer(w) })
			if got := s.post("/").status; got != row.status {
				t.Errorf("the client saw %d", got)
			}
			if line := s.lines()[0]; line["status"] != float64(row.status) {
				t.Errorf("the log says %v", line["status"])
			}
		})
	}
}

func TestLogHasNothingThatTheCallerSent(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body) // the answer contains it too
	})
	got := s.post("/path-marker?query=query-marker", "Authorization", "Bearer token-marker", "Cookie", "c=cookie-marker",
		"User-Agent", "agent-marker")
	if got.body != "body-marker" {
		t.Fatalf("answered %q", got.body)
	}
	lines := s.lines()
	text, err := json.Marshal(lines)
	if err != nil || len(lines) != 1 {
		t.Fatal(err, lines)
	}
	if strings.Contains(string(text), "marker") {
		t.Errorf("%s", text)
	}
}

func TestPanicIs500WithoutDetailAndItsStackIsLogged(t *testing.T) {
	t.Parallel()
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		logging.Note(r.Context(), "route", "GET /x")
		panicking()
	})
	got := s.post("/")
	if got.status != 500 || got.body != `{"detail":"Internal server error"}` ||
		got.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %s", got.status, got.body)
	}
	lines := s.lines()
	if len(lines) != 2 {
		t.Fatalf("%v", lines)
	}
	trouble, line, id := lines[0], lines[1], got.header.Get("X-Request-Id")
	if trouble["level"] != "ERROR" || trouble["request_id"] != id || trouble["panic"] != "a value of type string" ||
		!strings.Contains(trouble["stack"].(string), "logging_test.panicking") {
		t.Errorf("%v", trouble)
	}
	if line["msg"] != "request" || line["request_id"] != id || line["status"] != 500.0 || line["route"] != "GET /x" {
		t.Errorf("%v", line)
	}
}

func panicking() { panic("sesame") }

// A client must not mistake the first part of an answer for the whole.
func TestPanicAfterFirstByteAbortsResponse(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(http.ResponseWriter){
		"after a byte": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "event: x\n")
			_ = http.NewResponseController(w).Flush()
		},
		"after a status": func(w http.ResponseWriter) { w.WriteHeader(200); _ = http.NewResponseController(w).Flush() },
		"after a flush":  func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				first(w)
				panicking()
			})
			if got := s.post("/"); got.status != 200 || !got.cut || strings.Contains(got.body, "detail") {
				t.Errorf("%d %q, cut %t", got.status, got.body, got.cut)
			}
			lines := s.lines()
			if len(lines) != 2 || lines[0]["panic"] != "a value of type string" ||
				lines[1]["msg"] != "request" || lines[1]["status"] != 200.0 {
				t.Errorf("%v", lines)
			}
		})
	}
}

// The client receives the first bytes while the handler is still working.
func TestFlushReachesTheClient(t *testing.T) {
	t.Parallel()
	read := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		select {
		case <-read:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "second")
	})
	resp, err := s.server.Client().Get(s.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("%q %v", first, err)
	}
	close(read)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "second" {
		t.Errorf("then %q %v", rest, err)
	}
}

// The handler can use the connection's other features too, such as write deadlines.
func TestResponseControllerReachesConnection(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
	})
	s.post("/")
}

func TestNoteOutsideARequestDoesNothing(t *testing.T) {
	t.Parallel()
	logging.Note(context.Background(), "key", "value") // must not panic
	if id := logging.RequestID(context.Background()); id != "" {
		t.Errorf("the id of no request is %q", id)
	}
}

func TestNoteIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		var wg sync.WaitGroup
		for _, name := range []string{"a", "b", "c", "d"} {
			wg.Go(func() { logging.Note(r.Context(), name, 1) })
		}
		wg.Wait()
	})
	s.post("/")
	line := s.lines()[0]
	for _, name := range []string{"a", "b", "c", "d"} {
		if line[name] != 1.0 {
			t.Errorf("%s is missing in %v", name, line)
		}
	}
}

func TestTerminalLogIsText(t *testing.T) {
	t.Parallel()
	var text, machine bytes.Buffer
	logging.NewLogger(&text, true).Info("hello", "n", 1)
	logging.NewLogger(&machine, false).Info("hello", "n", 1)
	if !strings.Contains(text.String(), "msg=hello n=1") || !json.Valid(machine.Bytes()) {
		t.Errorf("%s%s", &text, &machine)
	}
}

// A line is found by the id that the caller gave the request, if it is short and plain. No other text of a caller gets
// into a line, and the answer has the server's own id.
func TestTheCallersRequestIDIsBesideTheServers(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("x", 128)
	for _, row := range []struct {
		sent []string
		want string
	}{
		{[]string{"a.B_9-z"}, "a.B_9-z"},
		{[]string{longest}, longest},
		{[]string{longest + "x"}, ""},
		{[]string{""}, ""},
		{nil, ""},
		{[]string{"one", "two"}, ""},
		{[]string{"a b"}, ""}, {[]string{"a\"b"}, ""}, {[]string{"a\nb"}, ""}, {[]string{"ann@example.org"}, ""},
		{[]string{"a/b"}, ""}, {[]string{"ä"}, ""}, {[]string{"a,b"}, ""}, {[]string{"\x00"}, ""},
	} {
		var out strings.Builder
		seen := "unset"
		h := logging.Requests(slog.New(slog.NewJSONHandler(&out, nil)), http.HandlerFunc(
			func(_ http.ResponseWriter, r *http.Request) { seen = logging.ClientRequestID(r.Context()) }))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		for _, id := range row.sent {
			r.Header.Add("X-Request-Id", id)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var line map[string]any
		if err := json.Unmarshal([]byte(out.String()), &line); err != nil {
			t.Fatal(err)
		}
		logged, _ := line["client_request_id"].(string)
		if seen != row.want || logged != row.want || row.want == "" && line["client_request_id"] != nil {
			t.Errorf("%q: %q in the context, %s", row.sent, seen, out.String())
		}
		if own := w.Header().Get("X-Request-Id"); own == "" || own == row.want || own != line["request_id"] ||
			len(w.Header().Values("X-Request-Id")) != 1 {
			t.Errorf("%q: the answer has %q, the line %s", row.sent, own, out.String())
		}
	}
}
