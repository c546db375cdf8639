package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// /dev/full is a device whose disk is always full.
func TestAFullDiskDoesNotEndALog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "decisions.jsonl")
	if err := os.Symlink("/dev/full", file); err != nil {
		t.Fatal(err)
	}
	s, stderr, closeLogs := logsIn(t, dir)
	for range 3 {
		s.decided.Info("decision", "is", "lost")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.decided.Info("decision", "is", "written")
	}
	if err := closeLogs(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for text := range strings.Lines(read(t, file)) {
		var l struct {
			Msg   string
			Lines int
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		if got = append(got, l.Msg); l.Msg == "lost lines" && l.Lines != 3 {
			t.Errorf("%d lines are lost", l.Lines)
		}
	}
	if strings.Join(got, ", ") != "lost lines, decision, decision" {
		t.Error(got)
	}
	if n := s.lostLines.Load(); n != 3 { // keyway_lost shows it
		t.Errorf("%d lines are counted as lost", n)
	}
	log := stderr.String()
	if strings.Count(log, "decisions.jsonl can't be written and loses lines") != 1 ||
		strings.Count(log, `"msg":"decisions.jsonl is written again","lost_lines":3`) != 1 {
		t.Error(log)
	}
}
