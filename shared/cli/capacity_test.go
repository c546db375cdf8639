package cli

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestCapacityFollowsFilesAndMemory(t *testing.T) {
	t.Parallel()
	const unlimited = math.MaxUint64
	for name, row := range map[string]struct {
		files, memory uint64
		want          capacity
	}{
		"few files":               {300, unlimited, capacity{conns: 104, runs: 52, background: 14}},
		"the fewest files":        {minFiles, unlimited, capacity{conns: 28, runs: 14, background: 4}},
		"a usual limit":           {1024, 8 << 30, capacity{conns: 448, runs: 224, background: 32}},
		"a small container":       {1 << 20, 256 << 20, capacity{conns: 1024, runs: 256, background: 32}},
		"hardly any memory":       {1 << 20, 1000, capacity{conns: minFiles, runs: 1, background: 32}},
		"many files, much memory": {unlimited, unlimited, capacity{conns: 4 * maxRuns, runs: maxRuns, background: 32}},
	} {
		got, err := capacityOf(row.files, row.memory)
		if err != nil || got != row.want {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, row.want)
		}
		used := uint64(got.conns + (got.runs+got.background)*filesOfRun + reservedFiles)
		if used > row.files {
			t.Errorf("%s: %d descriptors of %d", name, used, row.files)
		}
		if got.runs >= got.conns {
			t.Errorf("%s: no connection is left for a refused request: %+v", name, got)
		}
	}
	if _, err := capacityOf(minFiles-1, unlimited); err == nil || !strings.Contains(err.Error(), "ulimit -n") {
		t.Errorf("too few files: %v", err)
	}
	if files, memory := fileLimit(), memoryLimit(); files == 0 || memory < 1<<20 {
		t.Errorf("this process has %d files and %d bytes of memory", files, memory)
	}
}

// One client keeps its connection; others still get theirs, although the listener has only
// one, and none of them is refused.
func TestAnIdleConnectionMakesRoomForAnotherClient(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := limitConnections(l, 1, [2]time.Duration{})
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			connectionOf(r).works()
			if !conns.crowded() {
				t.Error("the only connection is in use, and the listener is not crowded")
			}
			_, _ = io.WriteString(w, "hello")
		}),
		ConnState: conns.note, ConnContext: withConnection,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), ReadHeaderTimeout: httpWait,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(conns) }()
	for range 3 {
		client := &http.Client{Transport: &http.Transport{}} // keeps its connection until the end
		for range 2 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != "hello" {
				t.Fatalf("%q, %v", body, err)
			}
		}
	}
	// Close ends an Accept that waits for a free connection.
	held, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	_ = server.Close()
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("the server ended with %v", err)
	}
}

// httpWait bounds what a client may do slowly in this test.
const httpWait = 10e9

// An answer that is sent before the request was read must reach its client. net/http closes
// such a connection in two steps, for which it needs CloseWrite.
func TestAnEarlyAnswerReachesTheClientOfALimitedConnection(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusRequestEntityTooLarge)
	}))
	conns := limitConnections(server.Listener, 4, minWaits)
	server.Listener, server.Config.ConnState = conns, conns.note
	server.Start()
	defer server.Close()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", conns.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The server answers after the header, while most of the body is still unread.
	head := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
	if _, err := io.WriteString(conn, head+strings.Repeat("x", 300_000)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 413 ") {
		t.Errorf("%q, %v", got, err)
	}
}

// limited serves requests on a few connections. A request for /read reads the body, one for /work blocks until release
// is called, and any other one is answered 401.
func limited(t *testing.T, limit int) (address string, release func()) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := limitConnections(l, limit, [2]time.Duration{10 * time.Millisecond, time.Minute})
	released := make(chan struct{})
	server := &http.Server{
		ConnState: conns.note, ConnContext: withConnection, ReadHeaderTimeout: httpWait,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			serveInTime(w, r, pace{grace: httpWait, drain: httpWait},
				http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/read":
						_, _ = io.Copy(io.Discard, r.Body)
					case "/work":
						<-released
					default:
						w.WriteHeader(http.StatusUnauthorized)
					}
				}))
		}),
	}
	go func() { _ = server.Serve(conns) }()
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(func() { release(); _ = server.Close() })
	return l.Addr().String(), release
}

// Clients without a token send no request, a part of one, or no body, and don't read answers. Another client is
// answered, although they have all connections, and open more.
func TestAFloodOfConnectionsKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	address, _ := limited(t, 4)
	for range 3 {
		for _, sent := range []string{
			"", "GET / HT", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		} {
			send(t, address, sent, 0)
		}
		conn := send(t, address, "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", 10)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
}

// The connections of requests that are worked on stay, and so does the upload of an admitted client while
// others without a token wait.
func TestAFloodClosesNoConnectionThatWorks(t *testing.T) {
	t.Parallel()
	address, release := limited(t, 3)
	working := send(t, address, "GET /work HTTP/1.1\r\nHost: x\r\n\r\n", 0)
	upload := send(t, address, "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", 5)
	for range 10 {
		answers := bufio.NewReader(send(t, address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0))
		if resp, err := http.ReadResponse(answers, nil); err != nil {
			t.Fatal(err)
		} else if resp.Body.Close(); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	release()
	if _, err := io.WriteString(upload, "12345"); err != nil {
		t.Fatal(err)
	}
	for what, conn := range map[string]net.Conn{"work": working, "an upload": upload} {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		resp.Body.Close()
	}
}
