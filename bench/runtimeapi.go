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

// runtimeAPI is the part of the Lambda Runtime API that a function needs to handle one
// event after the other. See
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html.
type runtimeAPI struct {
	// address is the value of AWS_LAMBDA_RUNTIME_API.
	address string
	web     *http.Server
	// asked receives the time when a function asked for an event.
	asked chan time.Time
	// events are the events to hand out.
	events chan []byte
	// answers are what the function posted.
	answers chan posted
}

// posted is a function's answer to an event, or the error that it reported.
type posted struct {
	body []byte
	err  error
}

// serveRuntimeAPI starts a Runtime API on a free port, for one function at a time.
func serveRuntimeAPI(ctx context.Context) (*runtimeAPI, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &runtimeAPI{
		address: l.Addr().String(),
		asked:   make(chan time.Time, 1), events: make(chan []byte), answers: make(chan posted, 1),
	}
	a.web = &http.Server{Handler: a, ReadHeaderTimeout: startPatience}
	go func() { _ = a.web.Serve(l) }() // until close
	return a, nil
}

func (a *runtimeAPI) close() { _ = a.web.Close() }

// invocations is the path below which a function asks for events and posts answers.
const invocations = "/2018-06-01/runtime/invocation/"

// ServeHTTP hands out the next event, and waits for one if there is none. It receives the
// answers. A streamed answer that fails ends with a trailer that names the error.
func (a *runtimeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Before anything else, since it is the end of the measured start.
	now := time.Now()
	kind := strings.TrimPrefix(r.URL.Path, invocations+"bench/")
	switch {
	case r.Method == http.MethodGet && r.URL.Path == invocations+"next":
		// Only the first request matters, and nobody may be waiting for the later ones.
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

// invoke sends an event to the function and returns its answer. It fails when ended is
// closed, which means that the function's process has ended: without that, the benchmark
// would wait for an answer that never comes.
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

// start starts a program, returns the time from exec until it asks for its first event,
// and kills it. The end is the request for an event, since from then on Lambda can send
// the function one.
func (a *runtimeAPI) start(ctx context.Context, program string, env []string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program) // #nosec G204 -- built by the benchmark itself
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
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
		return 0, errors.Join(ctx.Err(),
			fmt.Errorf("it ended before it asked for an event (%s): %s", cmd.ProcessState, &stderr))
	}
}
