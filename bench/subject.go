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

const (
	keywayBinary = "bin/keyway"
	keywayConfig = "bench/keyway.yaml"
)

const (
	startPatience = time.Minute
	stopPatience  = 10 * time.Second
)

// subject is a server under measurement: a child process in a group of its own.
type subject struct {
	name    string
	command func(port string) []string
	env     []string
	token   string
	log     *os.File // its stderr
	client  *http.Client

	url  string
	cmd  *exec.Cmd     // nil: not running
	done chan struct{} // closed when cmd ended

	mu       sync.Mutex
	failed   int      // wrong answers
	examples []string // a few of them
}

// newClient keeps a connection for each caller.
func newClient() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: callersMost, DisableCompression: true}}
}

// started is how long after exec the first answers came.
type started struct{ health, agents time.Duration }

// start runs the server and waits until it lists its agents.
func (s *subject) start(ctx context.Context) (t started, err error) {
	port, err := freePort(ctx)
	if err != nil {
		return t, err
	}
	args := s.command(port)
	s.url = "http://127.0.0.1:" + port
	s.cmd = exec.CommandContext(ctx, args[0], args[1:]...) // #nosec G204 -- running what the user names is its job
	s.cmd.Cancel = func() error { endGroup(s.cmd, false); return os.ErrProcessDone }
	s.cmd.Env = append(s.env, "PORT="+port)
	s.cmd.Stderr, s.cmd.Stdout = s.log, s.log
	ownGroup(s.cmd)
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return t, fmt.Errorf("%s: %w", s.name, err)
	}
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

// await asks until the answer is right and tells how long after begin that was.
func (s *subject) await(ctx context.Context, begin time.Time, ask func(context.Context) error) (time.Duration, error) {
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return time.Since(begin), nil
		}
		if ctx.Err() == nil { // else it only says that time is up
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

// stop ends the server and every process of its group.
func (s *subject) stop() {
	if s.cmd == nil {
		return
	}
	s.client.CloseIdleConnections()
	endGroup(s.cmd, false)
	select {
	case <-s.done:
	case <-time.After(stopPatience):
	}
	endGroup(s.cmd, true) // also what the server left behind
	<-s.done
	s.cmd = nil
}

// wrong counts an answer that isn't right and keeps a few to show.
func (s *subject) wrong(err error) {
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

// tail is the end of what the server wrote.
func (s *subject) tail() string {
	const size = 2000
	end, err := s.log.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	text := make([]byte, size)
	n, _ := s.log.ReadAt(text, max(0, end-size))
	return strings.TrimSpace(string(text[:n]))
}

func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), l.Close()
}
