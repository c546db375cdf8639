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

func TestServeWorksWithoutADecisionLog(t *testing.T) {
	t.Parallel()
	blocked := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stderr := &bytes.Buffer{}
	s := &server{env: env{err: stderr, cli: &cli{Data: blocked}}, log: slog.New(slog.NewJSONHandler(stderr, nil))}
	closeLog := s.logDecisions()
	s.decided.Info("decision")
	if err := closeLog(); err != nil {
		t.Error(err)
	}
	if log := stderr.String(); !strings.Contains(log, "make --data a directory that keyway can write to") ||
		!strings.Contains(log, `"msg":"decision"`) {
		t.Errorf("log:\n%s", log)
	}
}

func TestFullDecisionLogIsRotated(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "data")
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	r, err := openDecisionLog(dir, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one\n", "two\n", "three\n", "longer than the limit\n", "five\n"} {
		if _, err := r.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if read(decisionsName) != "five\n" || read(olderDecisionsName) != "longer than the limit\n" {
		t.Errorf("the log is %q, the older one %q", read(decisionsName), read(olderDecisionsName))
	}
	if r, err = openDecisionLog(dir, 10); err != nil { // like a restart
		t.Fatal(err)
	}
	for range 2 {
		_, _ = r.Write([]byte("next\n"))
	}
	if read(decisionsName) != "next\n" || read(olderDecisionsName) != "five\nnext\n" {
		t.Errorf("the log is %q, the older one %q", read(decisionsName), read(olderDecisionsName))
	}
	reported := 0
	r.failed = func(error) { reported++ }
	if err := r.f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := r.Write([]byte("lost\n")); err == nil {
			t.Error("a write to a closed file succeeds")
		}
	}
	if reported != 1 || r.close() != nil {
		t.Errorf("the failure was reported %d times", reported)
	}
}

func TestConcurrentDecisionsAreWholeLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &server{env: env{cli: &cli{Data: dir}}, log: slog.New(slog.DiscardHandler)}
	closeLog := s.logDecisions()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 50 {
				s.decided.Info("decision", "route", strings.Repeat("x", 300))
			}
		})
	}
	all.Wait()
	if err := closeLog(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, decisionsName))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for text := range strings.Lines(string(data)) {
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
