package main

import (
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestStatIsParsedWhateverTheProcessIsCalled(t *testing.T) {
	t.Parallel()
	group, cpu, err := parseStat([]byte("42 (a) b (c) S 1 77 77 0 -1 4194304 900 0 0 0 12 3 400 5 20 0 1 0 9000 1 2"))
	if err != nil || group != 77 || cpu != 420*tick {
		t.Errorf("got group %d, %s, %v", group, cpu, err)
	}
	if _, _, err := parseStat([]byte("42 (cut) S 1 77")); err == nil {
		t.Error("an incomplete line is accepted")
	}
}

func TestAllProcessesOfAGroupAreMeasuredAndStopped(t *testing.T) {
	t.Parallel()
	// The shell ends when its input ends. The sleeping child has no input and keeps running.
	c := exec.CommandContext(t.Context(), "sh", "-c", "sleep 600 <&- >&- 2>&- & echo ready; cat")
	ownGroup(c)
	stdin, err1 := c.StdinPipe()
	stdout, err2 := c.StdoutPipe()
	if err := c.Start(); err != nil || err1 != nil || err2 != nil {
		t.Fatal(err, err1, err2)
	}
	if _, err := stdout.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	whole := measured(t, c)
	if whole.processes < 2 || whole.resident == 0 || whole.peak < whole.resident {
		t.Errorf("the group uses %+v", whole)
	}
	_ = stdin.Close()
	_ = c.Wait()
	if child := measured(t, c); child.processes != 1 || child.resident == 0 {
		t.Errorf("the group without its leader uses %+v, with it %+v", child, whole)
	}
	endGroup(c, true)
	deadline := time.Now().Add(10 * time.Second)
	for syscall.Kill(-c.Process.Pid, 0) == nil && measured(t, c).resident > 0 {
		if time.Now().After(deadline) {
			t.Fatal("the group is still there after 10 s")
		}
	}
}

func measured(t *testing.T, c *exec.Cmd) usage {
	t.Helper()
	u, err := groupUsage(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
