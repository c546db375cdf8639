package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/wire"
)

// early serves a handler that answers 401 before it has read the body, or 413 when it has
// read a megabyte.
func early(t *testing.T) (address string) {
	t.Helper()
	return earlyWithin(t, pace{grace: TransferGrace, drain: DrainTime})
}

// earlyWithin is early for clients with another pace.
func earlyWithin(t *testing.T, p pace) (address string) {
	t.Helper()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := fault.Public(fault.Unauthenticated, "no token", nil)
		switch r.URL.Path {
		case "/413":
			if _, large := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20)); large != nil {
				err = fault.Public(fault.TooLarge, "too large", nil)
			}
		case "/read":
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				w.Header().Set("X-Cut", "yes")
			}
		case "/stream":
			w.Header().Set("Content-Type", wire.MediaType)
			w.WriteHeader(http.StatusUnauthorized)
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(p.grace))
			_, _ = io.WriteString(w, `{"detail":""}`)
			return
		case "/slow":
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done(): // as if the client had disconnected
				return
			case <-time.After(3 * p.grace):
			}
		}
		fault.Write(w, err)
	})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serveInTime(w, r, p, h)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// send writes a request's head, and size bytes of its body. It reads nothing meanwhile.
func send(t *testing.T, address, head string, size int) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err = io.WriteString(conn, head); err == nil {
		_, err = io.CopyN(conn, strings.NewReader(strings.Repeat("x", size)), int64(size))
	}
	if err != nil {
		t.Fatalf("%.40q: the body could not be sent: %v", head, err)
	}
	return conn
}

func wantStatus(t *testing.T, what string, answers *bufio.Reader, status int) {
	t.Helper()
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || !strings.Contains(string(body), `"detail"`) {
		t.Errorf("%s: %d %s %v, want %d", what, resp.StatusCode, body, err, status)
	}
}

func TestAClientThatSendsEverythingFirstGetsAnEarlyAnswer(t *testing.T) {
	t.Parallel()
	address := early(t)
	const size = 64 << 20
	for path, status := range map[string]int{"/": 401, "/413": 413, "/read": 401} {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", path, size)
		answers := bufio.NewReader(send(t, address, head, size))
		wantStatus(t, path, answers, status)
	}
}

// The connection can be used again, because nothing of the body is left on it.
func TestAConnectionIsUsedAgainAfterAnEarlyAnswer(t *testing.T) {
	t.Parallel()
	address := early(t)
	const head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
	conn := send(t, address, head, 1_000_000)
	answers := bufio.NewReader(conn)
	wantStatus(t, "the first", answers, 401)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "the second", answers, 401)
}

// A client that reads while it sends need not send the rest.
func TestTheAnswerIsSentBeforeTheBodyIsRead(t *testing.T) {
	t.Parallel()
	address := early(t)
	for name, head := range map[string]string{
		"a length":          "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx",
		"chunks":            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
		"a wait for 100":    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n",
		"no body, a length": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
	} {
		began := time.Now()
		wantStatus(t, name, bufio.NewReader(send(t, address, head, 0)), 401)
		if took := time.Since(began); took > DrainTime/2 {
			t.Errorf("%s: the answer came after %s", name, took)
		}
	}
}

// What a client can make the server read is limited.
func TestAnEndlessBodyIsNotReadForever(t *testing.T) {
	t.Parallel()
	conn := send(t, early(t), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000000000\r\n\r\n", 0)
	_ = conn.SetDeadline(time.Now().Add(3 * time.Minute))
	part, sent := make([]byte, 1<<20), 0
	for {
		n, err := conn.Write(part)
		if sent += n; err != nil {
			break
		}
	}
	if sent < 64<<20 || sent > MaxDrained+64<<20 {
		t.Errorf("the server took %d bytes", sent)
	}
}

func TestABodyThatDoesNotArriveIsCutOff(t *testing.T) {
	t.Parallel()
	const head = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
	conn := send(t, earlyWithin(t, pace{grace: 200 * time.Millisecond, drain: DrainTime}), head, 10)
	wantClosed(t, "a slow body", conn)
}

// The rest of such a body would be taken for the next request.
func TestAConnectionIsClosedAfterABodyThatIsNotWhole(t *testing.T) {
	t.Parallel()
	const chunked = " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	const next = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	address := earlyWithin(t, pace{grace: TransferGrace, drain: 300 * time.Millisecond})
	for what, head := range map[string]string{
		"a chunk without a size, read":     "POST /read" + chunked + "x\r\n" + next,
		"a chunk without a size, not read": "POST /" + chunked + "x\r\n" + next,
		"a rest that comes too late":       "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			wantClosed(t, what, send(t, address, head, 0))
		})
	}
}

// wantClosed checks that a connection has one answer, and is closed after it.
func wantClosed(t *testing.T, what string, conn net.Conn) {
	t.Helper()
	answers := bufio.NewReader(conn)
	wantStatus(t, what, answers, http.StatusUnauthorized)
	_, err := answers.ReadByte()
	if timeout, ok := errors.AsType[net.Error](err); err == nil || ok && timeout.Timeout() {
		t.Errorf("%s: the connection stays open: %v", what, err)
	}
}

func TestAnAnswerMayTakeLongerThanTheBody(t *testing.T) {
	t.Parallel()
	const head = "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
	conn := send(t, earlyWithin(t, pace{grace: 300 * time.Millisecond, drain: DrainTime}), head, 10)
	wantStatus(t, "a slow answer", bufio.NewReader(conn), http.StatusUnauthorized)
}

// Each byte gives the client more time, so that a slow line can send a large body.
func TestASlowBodyIsReadAtTheSlowestRate(t *testing.T) {
	t.Parallel()
	const head = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
	conn := send(t, earlyWithin(t, pace{grace: 200 * time.Millisecond, drain: DrainTime}), head, 99_000)
	time.Sleep(400 * time.Millisecond) // longer than the grace; 99,000 bytes may take 3 s
	if _, err := io.WriteString(conn, strings.Repeat("x", 1000)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.Header.Get("X-Cut") != "" {
		t.Error("the body was cut off")
	}
}

// A stream sets deadlines of its own. They must not end the next answer on its connection.
func TestTheDeadlineOfAnAnswerDoesNotEndTheNextOne(t *testing.T) {
	t.Parallel()
	const host = " HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, first := range []string{"GET /stream" + host, "GET /" + host} {
		conn := send(t, earlyWithin(t, pace{grace: 100 * time.Millisecond, drain: DrainTime}), first, 0)
		answers := bufio.NewReader(conn)
		wantStatus(t, first, answers, http.StatusUnauthorized)
		if _, err := io.WriteString(conn, "GET /slow"+host); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, "after "+first, answers, http.StatusUnauthorized)
	}
}

// The client sends many requests and reads no answer. When the buffers of both sides are full, the server waits, but
// not for ever.
func TestAnAnswerThatIsNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serveInTime(w, r, pace{grace: 100 * time.Millisecond, drain: DrainTime},
			http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, strings.Repeat("x", 1000))
			}))
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(closed)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	conn := send(t, server.Listener.Addr().String(), "", 0)
	go func() {
		for {
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				return
			}
		}
	}()
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("the connection stays open")
	}
}

// Another server on the way may have read the length, and taken what follows for the body of this request.
func TestALengthBesideATransferEncodingEndsTheConnection(t *testing.T) {
	t.Parallel()
	for what, head := range map[string]string{
		"both":       "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"in reverse": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n",
	} {
		wantClosed(t, what, send(t, early(t), head+"0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 0))
	}
}

// 10 MB is the largest body, and its sender may have a slow line.
func TestThePaceOfALargeBodyIsTheOneOfTheDocuments(t *testing.T) {
	t.Parallel()
	p := pace{grace: TransferGrace, drain: DrainTime}
	if got := p.allowed(int64(bound.Body.Default)); got != 340*time.Second || p.allowed(0) != 20*time.Second {
		t.Errorf("the largest body may take %s, an empty one %s", got, p.allowed(0))
	}
	if kbit := SlowestRate * 8 / 1000; kbit != 262 {
		t.Errorf("the slowest line has %d kbit/s", kbit)
	}
}
