package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
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
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, error %v; want 0600", path, info.Mode(), err)
		}
	}
	if got := strings.Join(names, " "); got != "audit.1.jsonl audit.2.jsonl audit.3.jsonl audit.jsonl" {
		t.Error(got)
	}
}

// Two servers that share --data have files of their own for one log. While one begins a new file, the other one may
// write, or begin a new file too.
func TestTwoServersThatShareALogLoseNoLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const each = 500
	var all sync.WaitGroup
	for server := range 3 {
		l := &logFile{dir: dir, name: auditLog, max: 200, keep: true, log: slog.New(slog.DiscardHandler)}
		all.Go(func() {
			for i := range each {
				if _, err := fmt.Fprintf(l, "line %d of server %d\n", i, server); err != nil {
					t.Error(err)
				}
			}
			if err := l.close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	seen := map[string]int{}
	files := auditFiles(dir)
	for _, path := range files {
		for line := range strings.Lines(read(t, path)) {
			seen[line]++
		}
	}
	for server := range 3 {
		for i := range each {
			if n := seen[fmt.Sprintf("line %d of server %d\n", i, server)]; n != 1 {
				t.Errorf("line %d of server %d is there %d times", i, server, n)
			}
		}
	}
	if len(files) < 50 {
		t.Errorf("%d files: the servers have not begun enough new ones", len(files))
	}
}

// An operator archives the oldest files. The next file must not take the number of one that is gone, and a search must
// find the files that are left.
func TestAnArchivedFileLeavesAGapInTheNumbers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := &logFile{dir: dir, name: auditLog, max: 1, keep: true, log: slog.New(slog.DiscardHandler)}
	write := func(text string) {
		if _, err := l.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"one\n", "two\n", "three\n"} {
		write(text)
	}
	for _, name := range []string{"audit.1.jsonl", "audit.jsonl"} { // also the one that is written
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"audit.x.jsonl", "audit.03.jsonl", "audit.9.json", "audit..jsonl"} { // of somebody else
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("four\n")
	write("five\n")
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, path := range auditFiles(dir) {
		got = append(got, filepath.Base(path)+" "+strings.TrimSpace(read(t, path)))
	}
	if want := "audit.2.jsonl two, audit.3.jsonl four, audit.jsonl five"; strings.Join(got, ", ") != want {
		t.Errorf("%q, want %s", got, want)
	}
}

func TestFilesOfLogsAreRemovedAfterTheirTime(t *testing.T) {
	t.Parallel()
	now := time.Now()
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		keep config.Retention
		// want are the files that are left, of those of fill.
		want string
	}{
		"by default nothing": {want: "audit.1.jsonl audit.2.jsonl audit.jsonl decisions.1.jsonl decisions.jsonl " +
			"refusals.1.jsonl refusals.jsonl"},
		// decisions.1.jsonl is replaced by the earlier decisions.jsonl, whose last line is new.
		"decisions": {keep: config.Retention{Decisions: 30 * day}, want: "audit.1.jsonl audit.2.jsonl audit.jsonl " +
			"decisions.1.jsonl decisions.jsonl refusals.jsonl"},
		"the audit log by its own name": {keep: config.Retention{Audit: 30 * day}, want: "audit.2.jsonl audit.3.jsonl " +
			"audit.jsonl decisions.1.jsonl decisions.jsonl refusals.1.jsonl refusals.jsonl"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fill := func(name string, first, last time.Duration) {
				path := filepath.Join(dir, name)
				text := fmt.Sprintf("{\"time\":%q}\n{}\n", now.Add(-first).Format(time.RFC3339Nano))
				err := os.WriteFile(path, []byte(text), 0o600)
				if err := errors.Join(err, os.Chtimes(path, now, now.Add(-last))); err != nil {
					t.Fatal(err)
				}
			}
			fill("audit.1.jsonl", 90*day, 60*day)
			fill("audit.2.jsonl", 60*day, 29*day)
			fill("audit.jsonl", 31*day, 0)
			fill("decisions.1.jsonl", 90*day, 60*day)
			fill("decisions.jsonl", 60*day, 0)
			fill("refusals.1.jsonl", 90*day, 60*day)
			fill("refusals.jsonl", 29*day, 0)
			s, stderr, closeLogs := logsIn(t, dir)
			other, _, closeOther := logsIn(t, dir) // the sweeper of another server
			var both sync.WaitGroup
			both.Go(func() { s.expireLogs(test.keep) })
			both.Go(func() { other.expireLogs(test.keep) })
			both.Wait()
			for _, f := range s.logFiles {
				f.lookAgain = time.Time{} // as after lookEvery
			}
			s.decided.Info("decision")
			s.audited.Info("audit")
			if err := errors.Join(closeLogs(), closeOther()); err != nil {
				t.Error(err)
			}
			var left []string
			files, err := os.ReadDir(dir)
			for _, f := range files {
				if f.Name() != "rotate.lock" {
					left = append(left, f.Name())
				}
			}
			if got := strings.Join(left, " "); err != nil || got != test.want || strings.Contains(stderr.String(), "could not") {
				t.Errorf("%s is left, want %s; %v; log:\n%s", got, test.want, err, stderr)
			}
			if test.keep.Audit > 0 && !strings.Contains(read(t, dir, "audit.jsonl"), `"msg":"audit"`) {
				t.Error("the server writes to another file than the current one")
			}
		})
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

// A process that crashes can leave a part of a line.
func TestALineAfterATornOneIsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "audit.jsonl"), []byte(`{"torn`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _, closeLogs := logsIn(t, dir)
	s.audited.Info("one")
	s.audited.Info("two")
	if err := closeLogs(); err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSuffix(read(t, dir, "audit.jsonl"), "\n"), "\n")
	if len(lines) != 3 || lines[0] != `{"torn` || !json.Valid([]byte(lines[1])) || !json.Valid([]byte(lines[2])) {
		t.Errorf("%q", lines)
	}
}
