package cli

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

func TestServeKeepsItsDecisions(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", modeltest.NewServer(t))
	dir := r.data
	var ids []string
	for _, request := range []struct{ sub, method, path string }{
		{"ann", "GET", "/agents"}, {"-", "GET", "/agents"}, {"-", "GET", "/health"}, {"nobody", "GET", "/agents/assistant"},
		{"ann", "GET", "/nope"}, {"ann", "OPTIONS", "/agents"}, {"ann", "PUT", "/agents"}, {"ann", "GET", "/sessions"},
	} {
		got := r.call(request.sub, request.method, request.path, nil)
		ids = append(ids, got.header.Get("X-Request-Id"))
	}
	want := []string{
		ids[0] + " true 0 GET /agents", ids[1] + " false 401 GET /agents", ids[3] + " false 403 GET /agents/{agent_id}",
		ids[4] + " false 404 ", ids[6] + " false 405 ", ids[7] + " true 0 GET /sessions",
	}
	if diff := cmp.Diff(want, decisionsIn(t, filepath.Join(dir, decisionsName))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(dir, decisionsName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, error %v", info.Mode(), err)
	}
	for _, id := range ids[:2] { // on standard error it stands beside the request's own line
		if n := strings.Count(r.stderr.String(), `"request_id":"`+id); n != 2 {
			t.Errorf("the log names %s %d times", id, n)
		}
	}
}

// decisionsIn reads a file: request, whether it was allowed, status and route of each line.
func decisionsIn(t *testing.T, path string) (out []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.Lines(string(data)) {
		var l struct {
			Msg       string
			RequestID string `json:"request_id"`
			Allow     bool
			Status    int
			Route     string
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.Msg != "decision" {
			t.Fatalf("%s: %v", text, err)
		}
		out = append(out, fmt.Sprintf("%s %t %d %s", l.RequestID, l.Allow, l.Status, l.Route))
	}
	return out
}

func TestServeGoesOnWhereDecisionsCantBeKept(t *testing.T) {
	t.Parallel()
	blocked := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stderr := &syncBuffer{}
	s := &server{env: env{err: stderr, cli: &cli{Data: blocked}}, log: slog.New(slog.NewJSONHandler(stderr, nil))}
	closeLog := s.logDecisions()
	s.decided.Info("decision")
	if err := closeLog(); err != nil {
		t.Error(err)
	}
	if log := stderr.String(); !strings.Contains(log, "make --data a directory that keyway can write to") || !strings.Contains(log, `"msg":"decision"`) {
		t.Errorf("log:\n%s", log)
	}
}

func TestAFullFileOfDecisionsMakesRoom(t *testing.T) {
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
		t.Errorf("%q, before it %q", read(decisionsName), read(olderDecisionsName))
	}
	if r, err = openDecisionLog(dir, 10); err != nil { // as after a restart
		t.Fatal(err)
	}
	for range 2 {
		_, _ = r.Write([]byte("next\n"))
	}
	if read(decisionsName) != "next\n" || read(olderDecisionsName) != "five\nnext\n" {
		t.Errorf("%q, before it %q", read(decisionsName), read(olderDecisionsName))
	}
	told := 0
	r.failed = func(error) { told++ }
	if err := r.f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := r.Write([]byte("lost\n")); err == nil {
			t.Error("written to a closed file")
		}
	}
	if told != 1 || r.close() != nil {
		t.Errorf("the failure was told %d times", told)
	}
}

func TestDecisionsMadeAtOnceStayWholeLines(t *testing.T) {
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
	if n := len(decisionsIn(t, filepath.Join(dir, decisionsName))); n != 1000 {
		t.Errorf("%d lines", n)
	}
}
