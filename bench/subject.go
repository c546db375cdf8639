package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The paths of what is measured, from the top of the repository.
const (
	keywayBinary = "bin/keyway"
	keywayConfig = "bench/keyway.yaml"
)

const (
	// startPatience is how long a server may take until it answers. A peer in Python may
	// need seconds on a busy machine.
	startPatience = time.Minute
	// stopPatience is how long a server may take to end after SIGTERM.
	stopPatience = 10 * time.Second
)

// subject is a server that is measured. It is a child process in a process group of its
// own, so that all of its processes are counted and stopped together. A subject runs
// outside the benchmark's process: its CPU and memory would otherwise include those of the
// callers and of the model.
type subject struct {
	name    string
	command func(port string) []string
	env     []string
	// token is the token that requests carry.
	token string
	// door is the API by which runs are asked for; nil for AgentOS's.
	door *door
	// log receives the server's stdout and stderr.
	log    *os.File
	client *http.Client

	url string
	// cmd is the process; nil if it does not run.
	cmd *exec.Cmd
	// done is closed when cmd has ended.
	done chan struct{}

	mu sync.Mutex
	// failed counts wrong answers; examples holds the texts of a few.
	failed   int
	examples []string
}

// newClient returns a client that keeps a connection for each caller. A new connection for
// each request would measure the kernel's TCP more than the server. The client asks for no
// compression: whether a server compresses is a matter of its settings, and the CPU for it
// would hide the rest.
func newClient() *http.Client {
	return &http.Client{
		Timeout:   time.Minute,
		Transport: &http.Transport{MaxIdleConnsPerHost: callersMost, DisableCompression: true},
	}
}

// started is the times from exec to the first right answers.
type started struct{ health, agents time.Duration }

// start starts the server on a free port and waits until it lists its agents.
func (s *subject) start(ctx context.Context) (t started, err error) {
	// A new port for each start: the previous one may still be in TIME_WAIT.
	port, err := freePort(ctx)
	if err != nil {
		return t, err
	}
	args := s.command(port)
	s.url = "http://127.0.0.1:" + port
	s.cmd = exec.CommandContext(ctx, args[0], args[1:]...) // #nosec G204 -- running what the user names is its job
	// The end of ctx stops the whole group. ErrProcessDone keeps Wait from returning ctx's
	// error instead of the process's own.
	s.cmd.Cancel = func() error { endGroup(s.cmd, false); return os.ErrProcessDone }
	s.cmd.Env = append(s.env, "PORT="+port)
	s.cmd.Stderr, s.cmd.Stdout = s.log, s.log
	ownGroup(s.cmd)
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return t, fmt.Errorf("%s: %w", s.name, err)
	}
	// The goroutine must not read s.cmd and s.done, which the next start replaces.
	done := make(chan struct{})
	s.done = done
	go func(c *exec.Cmd) { _ = c.Wait(); close(done) }(s.cmd)
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if t.health, err = s.await(ctx, begin, s.health); err == nil {
		t.agents, err = s.await(ctx, begin, s.listAgents)
	}
	if err != nil {
		s.stop()
		return t, fmt.Errorf("%s: %w; it wrote:\n%s", s.name, err, s.tail())
	}
	return t, nil
}

// await sends a request every millisecond until its answer is right, and returns the time
// from begin to that answer. So a start is measured to about a millisecond. The first 200
// is a better end than an open port: a server can listen before it is able to answer.
func (s *subject) await(ctx context.Context, begin time.Time, ask func(context.Context) error) (time.Duration, error) {
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return time.Since(begin), nil
		}
		if ctx.Err() == nil { // after the end of ctx, err only repeats that the time is over
			last = err
		}
		select {
		case <-s.done:
			return 0, fmt.Errorf("it ended before it served (%s)", s.cmd.ProcessState)
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), last)
		case <-time.After(time.Millisecond):
		}
	}
}

// stop stops the server, and then kills every process of its group that is left.
func (s *subject) stop() {
	if s.cmd == nil {
		return
	}
	// A server that shuts down gracefully would wait for open connections.
	s.client.CloseIdleConnections()
	endGroup(s.cmd, false)
	select {
	case <-s.done:
	case <-time.After(stopPatience):
	}
	endGroup(s.cmd, true)
	<-s.done
	s.cmd = nil
}

// wrong counts a wrong answer and keeps the texts of the first few different ones.
func (s *subject) wrong(err error) {
	// A url.Error repeats the method and the URL, which would make equal errors differ.
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed++
	if text := err.Error(); len(s.examples) < 3 && !slices.Contains(s.examples, text) {
		s.examples = append(s.examples, text)
	}
}

// tail returns the end of the server's log, for an error message.
func (s *subject) tail() string {
	const size = 2000
	end, err := s.log.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	// ReadAt does not change the position at which the server writes.
	text := make([]byte, size)
	n, _ := s.log.ReadAt(text, max(0, end-size))
	return strings.TrimSpace(string(text[:n]))
}

// freePort returns a port that was free a moment ago.
func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), l.Close()
}
