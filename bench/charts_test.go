package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAReportHasAChartForEachKindOfFigure(t *testing.T) {
	t.Parallel()
	r := report{Subjects: []string{"before", "after"}, Errors: []int{0, 0}, Rounds: 2, Seconds: 1, Tokens: 200}
	r.About.CPU, r.About.Load = "a processor", "0.10 0.20 0.30"
	for _, v := range []float64{1, 2} {
		r.add(0, "CPU of GET /agents, ms", v)
		r.add(1, "CPU of GET /agents, ms", v/2)
		r.add(0, "WAL of a run, bytes", 100*v)
		r.add(1, "WAL of a run, bytes", 75*v)
	}
	r.add(1, "memory that only one has, MiB", 3)
	dir := t.TempDir()
	if err := r.publish(dir); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	if err != nil || !strings.Contains(string(page), "![Processor time of the server](benchmarks/cpu.svg)") ||
		strings.Contains(string(page), "first-text.svg") || !strings.Contains(string(page), "| 0.500 |") {
		t.Errorf("%v:\n%s", err, page)
	}
	for file, text := range map[string]string{"cpu.svg": "GET /agents", "memory.svg": "WAL of a run"} {
		svg, err := os.ReadFile(filepath.Join(dir, "benchmarks", file))
		if err != nil || !strings.HasPrefix(string(svg), "<?xml") || !strings.Contains(string(svg), text) ||
			!strings.Contains(string(svg), "a processor, load before 0.10 0.20 0.30") {
			t.Errorf("%s: %v: %.300s", file, err, svg)
		}
	}
	if err := (&report{Subjects: []string{"keyway"}}).publish(dir); err == nil {
		t.Error("a report of one server")
	}
}
