//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// What the server may use. The flood of connections exceeds the files. The address space only saves the machine from a
// server without bounds: what the server must keep to is maxMemory.
const (
	fileLimit    = 512
	addressSpace = 6 << 30
)

// server is the keyway serve under test.
type server struct {
	url      string
	dir      string // its log and its --data
	database *url.URL
	cmd      *exec.Cmd
	ended    chan error // receives once

	mu sync.Mutex
	// peak is the most resident memory so far, and recent is that since the last takePeak, in bytes.
	peak, recent int64
}

// startServer starts the program with a keyway.yaml and waits until it serves.
func startServer(ctx context.Context, program, config, dir string, database *url.URL, m *model) (*server, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	s := &server{dir: dir, database: database, ended: make(chan error, 1)}
	log, err := os.Create(s.logFile())
	if err != nil {
		return nil, err
	}
	defer log.Close()
	script := fmt.Sprintf(`ulimit -n %d && ulimit -v %d && exec "$@"`, fileLimit, addressSpace>>10)
	// #nosec G204 -- built by the harness
	s.cmd = exec.CommandContext(ctx, "sh", "-c", script, "sh", program, "serve", "--config", config,
		"--data", filepath.Join(dir, "data"), "--addr", "127.0.0.1:0")
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = 30 * time.Second
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Env = append(os.Environ(), "DATABASE_URL="+database.String(), "JWT_VERIFICATION_KEY="+secret,
		"OPENAI_BASE_URL="+m.url, "OPENAI_API_KEY=sk-hostile", "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.ended <- s.cmd.Wait() }()
	for {
		if s.url = s.announced(); s.url != "" {
			return s, nil
		}
		select {
		case err := <-s.ended:
			return nil, fmt.Errorf("keyway serve ended: %w; its log is %s", err, s.logFile())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *server) logFile() string { return filepath.Join(s.dir, "server.log") }

// announced is the address that the log names, or "".
func (s *server) announced() string {
	log, err := os.Open(s.logFile())
	if err != nil {
		return ""
	}
	defer log.Close()
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if _, address, ok := strings.Cut(lines.Text(), "keyway serves hostile at "); ok {
			return address
		}
	}
	return ""
}

// stop sends SIGTERM and waits for the end. It returns how the server ended if that was not a good end.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // fails if the process has ended
	return <-s.ended
}

// watchPeak notes the most resident memory until ctx ends, for a server that crashes.
func (s *server) watchPeak(ctx context.Context) {
	for harness.Wait(ctx, 100*time.Millisecond) == nil {
		s.notePeak()
	}
}

func (s *server) notePeak() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent = max(s.recent, s.resident("VmHWM:"))
	s.peak = max(s.peak, s.recent)
	return s.recent
}

// takePeak returns the most resident memory since the last call, in bytes.
func (s *server) takePeak() int64 {
	peak := s.notePeak()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent = 0
	// 5 makes the kernel count the peak from now on (proc(5), clear_refs). A process that has ended has no such file.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte("5"), 0) // #nosec G306
	return peak
}

// resident reads a line of the process's status, in bytes. It is 0 if the process has ended.
func (s *server) resident(line string) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(status, []byte(line))
	if fields := bytes.Fields(rest[:min(len(rest), 100)]); len(fields) > 0 {
		n, _ := strconv.ParseInt(string(fields[0]), 10, 64)
		return n << 10
	}
	return 0
}

// disk is the size of the database, of the server's files and of its log together, in bytes.
func (s *server) disk(ctx context.Context) (size int64, err error) {
	conn, err := pgx.Connect(ctx, s.database.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&size); err != nil {
		return 0, err
	}
	err = filepath.WalkDir(s.dir, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if info, err := entry.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return size, err
}

// program returns the path of the program under test: the given one, or one that is built from this source.
func program(ctx context.Context, given, root, dir string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	built := filepath.Join(dir, "keyway")
	return built, harness.Build(ctx, root, "cmd/keyway", built)
}
