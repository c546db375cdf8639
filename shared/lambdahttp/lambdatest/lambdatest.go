// Package lambdatest builds Lambda functions as the Makefile does and runs them against
// its own implementation of Lambda's Runtime API. A test sends events and reads what the
// program posts, chunk by chunk and as it arrives.
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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Tags are the build tags of a deployed function. lambda.norpc removes the RPC server of
// the old go1.x runtime. nethttpomithttp2 removes HTTP/2, which no peer of a function
// needs, and which would be 0.3 MB more to load at each cold start.
const Tags = "lambda.norpc,nethttpomithttp2"

// BuildFlags are the flags of go build for a deployed function. The Makefile has them
// too, because sam build runs make; a test compares the two.
var BuildFlags = []string{"-trimpath", "-tags", Tags, "-ldflags", "-s -w"}

// Build compiles the package pkg to the file to, with BuildFlags and CGO_ENABLED=0. env
// can add variables such as GOARCH=arm64. The error contains the compiler's output.
func Build(ctx context.Context, pkg, to string, env ...string) error {
	args := slices.Concat([]string{"build"}, BuildFlags, []string{"-o", to, pkg})
	cmd := exec.CommandContext(ctx, "go", args...) // #nosec G204 -- a test or a benchmark names the package
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Function is a running program. Its methods fail the test if the program ends early.
type Function struct {
	// Stderr holds what the program has logged so far.
	Stderr *Buffer
	// Ended is closed when the process has ended.
	Ended chan struct{}

	t       testing.TB
	process *os.Process
	killed  atomic.Bool
	events  chan invocation
	answers chan *Answer
}

// invocation is an event, and the time until its deadline.
type invocation struct {
	event []byte
	limit time.Duration
}

// Answer is what the program posts for an event.
type Answer struct {
	// Kind is "response" or "error", the last segment of the path that it is posted to.
	Kind string
	// Header is the header of the POST, such as the content type of a streamed answer.
	Header http.Header
	// Chunks delivers the chunks of the body as they arrive, and is closed at its end. A
	// body with a Content-Length is a single chunk.
	Chunks <-chan []byte
	// Trailer is complete when Chunks is closed. It holds the error of an aborted stream.
	Trailer http.Header

	f *Function
}

// Start runs the program until the test ends. Its environment is env and the address of
// the Runtime API, and nothing of the test's own.
func Start(t testing.TB, program string, env ...string) *Function {
	t.Helper()
	f := &Function{
		t: t, Stderr: newBuffer(), Ended: make(chan struct{}), events: make(chan invocation), answers: make(chan *Answer),
	}
	api := httptest.NewServer(f)
	t.Cleanup(api.Close)
	cmd := exec.CommandContext(context.Background(), program) // #nosec G204 -- a test names the program
	cmd.Env = append(env, "AWS_LAMBDA_RUNTIME_API="+strings.TrimPrefix(api.URL, "http://"))
	cmd.Stdout, cmd.Stderr = f.Stderr, f.Stderr // Lambda puts both into one log.
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.process = cmd.Process
	go func() { _ = cmd.Wait(); close(f.Ended) }()
	t.Cleanup(func() { // the test need not have read an answer to its end
		f.killed.Store(true)
		_ = cmd.Process.Kill()
		<-f.Ended
	})
	return f
}

// Signal sends a signal to the process. SIGSTOP and SIGCONT freeze and thaw it, as
// Lambda does between two invocations.
func (f *Function) Signal(s os.Signal) {
	f.t.Helper()
	if err := f.process.Signal(s); err != nil {
		f.t.Fatal(err)
	}
}

// Kill ends the process at once, as a crash does, and waits until it has ended. An answer
// that it was posting stays incomplete.
func (f *Function) Kill() {
	f.t.Helper()
	f.killed.Store(true)
	f.Signal(os.Kill)
	<-f.Ended
}

// ServeHTTP implements the Runtime API: GET …/invocation/next waits for an event, and
// POST …/invocation/{id}/response or /error answers it. The request id is always
// "the-id", since a function handles one event at a time.
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
		f.t.Errorf("the Runtime API has no %s %s", r.Method, r.URL)
	}
}

// posted reads the body from the connection itself. net/http would join chunks that
// arrive together, and a test could not see which writes the program made.
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
		f.t.Errorf("the program's answer: %v", err)
	}
	close(chunks)
	accept(conn)
}

// accept answers a POST as the Runtime API does, with 202.
func accept(conn net.Conn) {
	_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

// read reads the body: as a whole if head has a Content-Length, else in the chunks of
// HTTP/1.1 (RFC 9112, section 7.1), the trailer included.
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

// trailer reads the trailer fields up to the empty line that ends them.
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

// Invoke sends an event whose deadline is limit from now, and waits for the beginning of
// its answer.
func (f *Function) Invoke(event []byte, limit time.Duration) *Answer {
	f.t.Helper()
	f.Send(event, limit)
	return f.Answer()
}

// Send is the first half of Invoke. It returns when the program has received the event.
func (f *Function) Send(event []byte, limit time.Duration) {
	f.t.Helper()
	select {
	case f.events <- invocation{event, limit}:
	case <-f.Ended:
		f.t.Fatalf("the program ended; its log is\n%s", f.Stderr)
	}
}

// Answer is the second half of Invoke. It waits for the beginning of the next answer.
func (f *Function) Answer() *Answer {
	f.t.Helper()
	select {
	case a := <-f.answers:
		return a
	case <-f.Ended:
		f.t.Fatalf("the program ended; its log is\n%s", f.Stderr)
	}
	return nil
}

// Next waits for the next chunk. ok is false at the end of the body.
func (a *Answer) Next() (chunk []byte, ok bool) {
	a.f.t.Helper()
	select {
	case chunk, ok = <-a.Chunks:
		return chunk, ok
	case <-time.After(2 * time.Minute):
		a.f.t.Fatalf("no chunk for two minutes; the program's log is\n%s", a.f.Stderr)
	}
	return nil, false
}

// Body reads the rest of the body.
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

// WaitForLog waits up to a minute until the program's log contains text. The log arrives
// through a pipe, and can be later than the answer of the same request.
func (f *Function) WaitForLog(text string) {
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
		f.t.Errorf("the log does not contain %s:\n%s", text, f.Stderr.all.String())
	}
}

// Buffer is a bytes.Buffer for one goroutine that writes and another that reads.
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

// String returns everything that was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
