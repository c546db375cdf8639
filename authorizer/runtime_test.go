package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// function is the program running on a Lambda Runtime API of the test's own.
type function struct {
	t       *testing.T
	events  chan []byte
	answers chan answer
	ended   chan struct{}
	stderr  *buffer
}

// answer is what the program posted, and where.
type answer struct {
	kind string // "response" or "error"
	body []byte
}

// start runs the program with the configuration in dir.
func start(t *testing.T, dir string, env ...string) *function {
	t.Helper()
	return startProgram(t, bootstrap, append(env, "LAMBDA_TASK_ROOT="+dir)...)
}

func startProgram(t *testing.T, program string, env ...string) *function {
	t.Helper()
	f := &function{t: t, events: make(chan []byte), answers: make(chan answer), ended: make(chan struct{}), stderr: &buffer{}}
	api := httptest.NewServer(f)
	t.Cleanup(api.Close)
	cmd := exec.Command(program)
	cmd.Env = append(env, "AWS_LAMBDA_RUNTIME_API="+strings.TrimPrefix(api.URL, "http://"))
	cmd.Stderr = f.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(f.ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-f.ended })
	return f
}

// ServeHTTP is the Runtime API: GET …/invocation/next waits for an event, POST
// …/invocation/{id}/response or /error ends it.
func (f *function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const invocation = "/2018-06-01/runtime/invocation/"
	switch kind := strings.TrimPrefix(r.URL.Path, invocation+"the-id/"); {
	case r.Method == "GET" && r.URL.Path == invocation+"next":
		select {
		case event := <-f.events:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "the-id")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(time.Minute).UnixMilli()))
			_, _ = w.Write(event)
		case <-r.Context().Done():
		}
	case r.Method == "POST" && (kind == "response" || kind == "error"):
		body, err := io.ReadAll(r.Body)
		if err != nil {
			f.t.Error(err)
		}
		w.WriteHeader(http.StatusAccepted)
		f.answers <- answer{kind, body}
	default:
		f.t.Errorf("the program asks for %s %s", r.Method, r.URL)
	}
}

// invoke sends an event and waits for what comes of it.
func (f *function) invoke(event []byte) answer {
	f.t.Helper()
	select {
	case f.events <- event:
	case <-f.ended:
		f.t.Fatalf("it ended: %s", f.stderr)
	}
	select {
	case a := <-f.answers:
		return a
	case <-f.ended:
		f.t.Fatalf("it ended: %s", f.stderr)
	}
	return answer{}
}

// policy is the answer to an event that must have one.
func (f *function) policy(event []byte) (out events.APIGatewayCustomAuthorizerResponse) {
	f.t.Helper()
	a := f.invoke(event)
	if err := json.Unmarshal(a.body, &out); err != nil || a.kind != "response" || out.PolicyDocument.Version != "2012-10-17" {
		f.t.Fatalf("%s %s: %v", a.kind, a.body, err)
	}
	return out
}

// refusal is the errorMessage for an event that must have one.
func (f *function) refusal(event []byte) string {
	f.t.Helper()
	a := f.invoke(event)
	var body struct{ ErrorMessage string }
	if err := json.Unmarshal(a.body, &body); err != nil || a.kind != "error" {
		f.t.Fatalf("%s %s: %v", a.kind, a.body, err)
	}
	return body.ErrorMessage
}

// buffer is a bytes.Buffer that is written while it is read.
type buffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
