package cli

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// logsIn returns a server with its logs below dir, and what it logs to stderr.
func logsIn(t *testing.T, dir string) (s *server, stderr *bytes.Buffer, closeLogs func() error) {
	t.Helper()
	stderr = &bytes.Buffer{}
	s = &server{env: env{err: stderr, cli: &cli{Data: dir}}, log: slog.New(slog.NewJSONHandler(stderr, nil))}
	return s, stderr, s.openLogs()
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestServeWorksWithoutFilesOfLogs(t *testing.T) {
	t.Parallel()
	blocked := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, stderr, closeLogs := logsIn(t, blocked)
	s.decided.Info("decision")
	if err := closeLogs(); err != nil {
		t.Error(err)
	}
	if log := stderr.String(); !strings.Contains(log, "make --data a directory that keyway can write to") ||
		!strings.Contains(log, `"msg":"decision"`) {
		t.Errorf("log:\n%s", log)
	}
}

func TestAFullLogBeginsANewFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "data")
	write := func(keep bool, name string, lines ...string) {
		l := &logFile{dir: dir, name: name, max: 10, keep: keep, log: slog.New(slog.DiscardHandler)}
		for _, text := range lines {
			if _, err := l.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
	}
	want := func(name, text string) {
		if got := read(t, dir, name); got != text {
			t.Errorf("%s is %q, want %q", name, got, text)
		}
	}
	write(false, "d", "one\n", "two\n", "three\n", "longer than the limit\n", "five\n")
	want("d.jsonl", "five\n")
	want("d.1.jsonl", "longer than the limit\n")
	write(false, "d", "next\n", "next\n") // like a restart
	want("d.jsonl", "next\n")
	want("d.1.jsonl", "five\nnext\n")
	// Nothing of the audit log is ever removed.
	write(true, auditLog, "one\n", "two\n", "three\n", "longer than the limit\n")
	write(true, auditLog, "five\n")
	want("audit.jsonl", "five\n")
	want("audit.3.jsonl", "longer than the limit\n")
	want("audit.2.jsonl", "three\n")
	want("audit.1.jsonl", "one\ntwo\n")
	var names []string
	for _, path := range auditFiles(dir) {
		names = append(names, filepath.Base(path))
	}
	if got := strings.Join(names, " "); got != "audit.1.jsonl audit.2.jsonl audit.3.jsonl audit.jsonl" {
		t.Error(got)
	}
}

func TestConcurrentDecisionsAreWholeLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _, closeLogs := logsIn(t, dir)
	s.log = slog.New(slog.DiscardHandler)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 50 {
				s.decided.Info("decision", "route", strings.Repeat("x", 300))
			}
		})
	}
	all.Wait()
	if err := closeLogs(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for text := range strings.Lines(read(t, dir, "decisions.jsonl")) {
		var line struct{ Msg string }
		if err := json.Unmarshal([]byte(text), &line); err != nil || line.Msg != "decision" {
			t.Fatalf("%s: %v", text, err)
		}
		n++
	}
	if n != 1000 {
		t.Errorf("the log has %d lines, want 1000", n)
	}
}
