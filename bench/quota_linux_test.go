package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestAQuotaLimitsTheCPUOfWhatIsStartedInIt(t *testing.T) {
	t.Parallel()
	q, err := newQuota(0.1)
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("needs root and cgroups:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	ownGroup(c)
	if err := q.start(c); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	var used time.Duration
	// With 0.1 of a processor, 100 ms of CPU take about a second.
	for used < 100*time.Millisecond {
		used = measured(t, c).cpu
	}
	endGroup(c, true)
	_ = c.Wait()
	if took := time.Since(begin); took < 500*time.Millisecond {
		t.Errorf("%s of CPU in %s", used, took)
	}
	if err := q.remove(); err != nil {
		t.Error(err)
	}
}
