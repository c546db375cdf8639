package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"time"
)

// runtimeAPI is as much of the Lambda Runtime API as a function sees before its
// first event.
type runtimeAPI struct {
	address string
	web     *http.Server
	asked   chan time.Time // when a function asked for its first event
}

func serveRuntimeAPI(ctx context.Context) (*runtimeAPI, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &runtimeAPI{address: l.Addr().String(), asked: make(chan time.Time, 1)}
	a.web = &http.Server{Handler: a, ReadHeaderTimeout: startPatience}
	go func() { _ = a.web.Serve(l) }() // ends with close
	return a, nil
}

func (a *runtimeAPI) close() { _ = a.web.Close() }

// ServeHTTP lets the function wait for an event that never comes.
func (a *runtimeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	if r.Method != http.MethodGet || r.URL.Path != "/2018-06-01/runtime/invocation/next" {
		http.NotFound(w, r)
		return
	}
	select {
	case a.asked <- now:
	default:
	}
	<-r.Context().Done()
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
