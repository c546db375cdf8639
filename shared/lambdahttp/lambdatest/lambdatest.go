// Package lambdatest runs built Lambda functions on a Runtime API of its own, and shows
// what they post as it arrives, chunk by chunk.
// It knows the protocol, no function.
package lambdatest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Build compiles the package pkg as the Makefile does; env may name another machine.
func Build(pkg, to string, env ...string) error {
	cmd := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-tags", "lambda.norpc,nethttpomithttp2", "-ldflags", "-s -w", "-o", to, pkg) // #nosec G204 -- a test names the package
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// Function is a running program.
type Function struct {
	Stderr *Buffer
	Ended  chan struct{} // closed when the process has ended

	t       testing.TB
	process *os.Process
	killed  atomic.Bool
	events  chan invocation
	answers chan *Answer
}

type invocation struct {
	event []byte
	limit time.Duration
}

// Answer is what a program posts for an event.
type Answer struct {
	Kind    string // "response" or "error"
	Header  http.Header
	Chunks  <-chan []byte // as they arrive; a body with a length is one
	Trailer http.Header   // once Chunks is closed
	f       *Function
}

// Start runs the program with nothing but env in its environment, until the test ends.
func Start(t testing.TB, program string, env ...string) *Function {
	t.Helper()
	f := &Function{
		t: t, Stderr: newBuffer(), Ended: make(chan struct{}), events: make(chan invocation), answers: make(chan *Answer),
	}
	api := httptest.NewServer(f)
	t.Cleanup(api.Close)
	cmd := exec.CommandContext(context.Background(), program) // #nosec G204 -- a test names the program
	cmd.Env = append(env, "AWS_LAMBDA_RUNTIME_API="+strings.TrimPrefix(api.URL, "http://"))
	cmd.Stderr = f.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.process = cmd.Process
	go func() { _ = cmd.Wait(); close(f.Ended) }()
	t.Cleanup(func() { // nobody may have wanted the rest of an answer
		f.killed.Store(true)
		_ = cmd.Process.Kill()
		<-f.Ended
	})
	return f
}

// Signal sends the process a signal: SIGSTOP freezes it as Lambda does.
func (f *Function) Signal(s os.Signal) {
	f.t.Helper()
	if err := f.process.Signal(s); err != nil {
		f.t.Fatal(err)
	}
}

// Kill ends the process in the middle of whatever it does. What it was posting breaks
// off.
func (f *Function) Kill() {
	f.t.Helper()
	f.killed.Store(true)
	f.Signal(os.Kill)
	<-f.Ended
}

// ServeHTTP is the Runtime API: GET …/invocation/next waits for an event, POST
// …/invocation/{id}/response or /error answers it.
func (f *Function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const invoked = "/2018-06-01/runtime/invocation/"
	switch kind := strings.TrimPrefix(r.URL.Path, invoked+"the-id/"); {
	case r.Method == "GET" && r.URL.Path == invoked+"next":
		select {
		case i := <-f.events:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "the-id")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(i.limit).UnixMilli()))
			_, _ = w.Write(i.event)
		case <-r.Context().Done():
		}
	case r.Method == "POST" && (kind == "response" || kind == "error"):
		f.posted(w, r, kind)
	default:
		f.t.Errorf("the program asks for %s %s", r.Method, r.URL)
	}
}

// posted reads a body below net/http, which would join chunks that arrive together.
func (f *Function) posted(w http.ResponseWriter, r *http.Request, kind string) {
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		f.t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	chunks := make(chan []byte)
	a := &Answer{Kind: kind, Header: r.Header, Chunks: chunks, Trailer: http.Header{}, f: f}
	f.answers <- a
	if err := a.read(buffered.Reader, r, chunks); err != nil && !f.killed.Load() {
		f.t.Errorf("the body that it posts: %v", err)
	}
	close(chunks)
	accept(conn)
}

func accept(conn net.Conn) {
	_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

func (a *Answer) read(r *bufio.Reader, head *http.Request, chunks chan<- []byte) error {
	if len(head.TransferEncoding) == 0 {
		body := make([]byte, head.ContentLength)
		_, err := io.ReadFull(r, body)
		chunks <- body
		return err
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseUint(strings.TrimSpace(line), 16, 31)
		if err != nil {
			return err
		}
		if size == 0 {
			return a.trailer(r)
		}
		chunk := make([]byte, size+2)
		if _, err := io.ReadFull(r, chunk); err != nil {
			return err
		}
		chunks <- chunk[:size]
	}
}

func (a *Answer) trailer(r *bufio.Reader) error {
	for {
		line, err := r.ReadString('\n')
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if err != nil || name == "" {
			return err
		}
		a.Trailer.Add(name, value)
	}
}

// Invoke sends an event with this much time until its deadline, and waits for the
// beginning of what comes of it.
func (f *Function) Invoke(event []byte, limit time.Duration) *Answer {
	f.t.Helper()
	f.Send(event, limit)
	return f.Answer()
}

// Send is the first half of Invoke: it returns when the program has the event.
func (f *Function) Send(event []byte, limit time.Duration) {
	f.t.Helper()
	select {
	case f.events <- invocation{event, limit}:
	case <-f.Ended:
		f.t.Fatalf("it ended: %s", f.Stderr)
	}
}

// Answer is the second half of Invoke.
func (f *Function) Answer() *Answer {
	f.t.Helper()
	select {
	case a := <-f.answers:
		return a
	case <-f.Ended:
		f.t.Fatalf("it ended: %s", f.Stderr)
	}
	return nil
}

// Next is the next chunk; ok is false at the end.
func (a *Answer) Next() (chunk []byte, ok bool) {
	a.f.t.Helper()
	select {
	case chunk, ok = <-a.Chunks:
		return chunk, ok
	case <-time.After(2 * time.Minute):
		a.f.t.Fatalf("nothing for two minutes; its log is\n%s", a.f.Stderr)
	}
	return nil, false
}

// Body is all that is left of the body.
func (a *Answer) Body() (body []byte) {
	a.f.t.Helper()
	for {
		chunk, ok := a.Next()
		if !ok {
			return body
		}
		body = append(body, chunk...)
	}
}

// Said waits until the program's log holds text; what it writes arrives after a while.
func (f *Function) Said(text string) {
	f.t.Helper()
	var late bool
	f.Stderr.mu.Lock()
	defer f.Stderr.mu.Unlock()
	timer := time.AfterFunc(time.Minute, func() {
		f.Stderr.mu.Lock()
		defer f.Stderr.mu.Unlock()
		late = true
		f.Stderr.grown.Broadcast()
	})
	defer timer.Stop()
	for !late && !strings.Contains(f.Stderr.all.String(), text) {
		f.Stderr.grown.Wait()
	}
	if late {
		f.t.Errorf("the log does not say %s:\n%s", text, f.Stderr.all.String())
	}
}

// Buffer is a bytes.Buffer that is written while it is read.
type Buffer struct {
	mu    sync.Mutex
	all   bytes.Buffer
	grown *sync.Cond
}

func newBuffer() *Buffer {
	b := &Buffer{}
	b.grown = sync.NewCond(&b.mu)
	return b
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.grown.Broadcast()
	return b.all.Write(p)
}

// String is everything that was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
