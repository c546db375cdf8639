package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"time"
)

// runtimeAPI is as much of the Lambda Runtime API as a function sees that gets one
// event after the other.
type runtimeAPI struct {
	address string
	web     *http.Server
	asked   chan time.Time // when a function asked for an event
	events  chan []byte
	answers chan posted
}

// posted is what a function makes of an event.
type posted struct {
	body []byte
	err  error
}

func serveRuntimeAPI(ctx context.Context) (*runtimeAPI, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &runtimeAPI{address: l.Addr().String(), asked: make(chan time.Time, 1), events: make(chan []byte), answers: make(chan posted, 1)}
	a.web = &http.Server{Handler: a, ReadHeaderTimeout: startPatience}
	go func() { _ = a.web.Serve(l) }() // ends with close
	return a, nil
}

func (a *runtimeAPI) close() { _ = a.web.Close() }

const invocations = "/2018-06-01/runtime/invocation/"

// ServeHTTP lets the function wait for an event, and takes its answer.
func (a *runtimeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	kind := strings.TrimPrefix(r.URL.Path, invocations+"bench/")
	switch {
	case r.Method == http.MethodGet && r.URL.Path == invocations+"next":
		select {
		case a.asked <- now:
		default:
		}
		select {
		case e := <-a.events:
			h := w.Header()
			h.Set("Content-Type", "application/json")
			h.Set("Lambda-Runtime-Aws-Request-Id", "bench")
			h.Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(startPatience).UnixMilli()))
			h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-central-1:123456789012:function:bench")
			_, _ = w.Write(e)
		case <-r.Context().Done():
		}
	case r.Method == http.MethodPost && (kind == "response" || kind == "error"):
		var p posted
		p.body, p.err = io.ReadAll(r.Body)
		if failure := r.Trailer.Get("Lambda-Runtime-Function-Error-Type"); kind == "error" || failure != "" {
			p.err = errors.Join(p.err, fmt.Errorf("the function failed: %s %.300s", failure, p.body))
		}
		a.answers <- p
		w.WriteHeader(http.StatusAccepted)
	default:
		http.NotFound(w, r)
	}
}

// invoke sends an event and waits for what comes of it, until ended is closed.
func (a *runtimeAPI) invoke(ctx context.Context, event []byte, ended <-chan struct{}) ([]byte, error) {
	select {
	case a.events <- event:
	case <-ended:
		return nil, errors.New("the function ended before the event")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case p := <-a.answers:
		return p.body, p.err
	case <-ended:
		return nil, errors.New("the function ended before its answer")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start runs the program, tells how long after exec it asked for its first
// event, and kills it.
func (a *runtimeAPI) start(ctx context.Context, program string, env []string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program) // #nosec G204 -- built by the benchmark itself
	cmd.Env = env
	var said bytes.Buffer
	cmd.Stderr = &said
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	defer func() { cancel(); <-ended }()
	select {
	case at := <-a.asked:
		return at.Sub(begin), nil
	case <-ended:
		return 0, errors.Join(ctx.Err(), fmt.Errorf("it ended before it asked for an event (%s): %s", cmd.ProcessState, &said))
	}
}
