package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// tick is the unit of CPU time in /proc: USER_HZ is 100 wherever Go runs.
const tick = 10 * time.Millisecond

// ownGroup gives the command a process group, so that it ends as a whole and is
// not reached by the terminal's ctrl-C.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// endGroup asks the group to end, or kills it. One that is gone is fine.
func endGroup(c *exec.Cmd, kill bool) {
	signal := syscall.SIGTERM
	if kill {
		signal = syscall.SIGKILL
	}
	_ = syscall.Kill(-c.Process.Pid, signal)
}

// groupUsage adds up the processes of a group. CPU includes children that a
// process has waited for.
func groupUsage(group int) (u usage, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return u, err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		stat, err1 := os.ReadFile("/proc/" + e.Name() + "/stat")
		status, err2 := os.ReadFile("/proc/" + e.Name() + "/status")
		if err1 != nil || err2 != nil {
			continue // it ended meanwhile
		}
		of, cpu, err := parseStat(stat)
		if err != nil {
			return u, fmt.Errorf("/proc/%s/stat: %w", e.Name(), err)
		}
		if of == group {
			u.processes++
			u.cpu += cpu
			u.resident += kilobytes(status, "VmRSS:")
			u.peak += kilobytes(status, "VmHWM:")
		}
	}
	return u, nil
}

// parseStat reads a process's group and CPU time (proc(5): fields 5 and 14 to 17).
func parseStat(stat []byte) (group int, cpu time.Duration, err error) {
	// The command's name comes before, in parentheses, and may hold both kinds.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("%d fields after the name", len(fields))
	}
	if group, err = strconv.Atoi(string(fields[2])); err != nil {
		return 0, 0, err
	}
	for _, f := range fields[11:15] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		cpu += time.Duration(n) * tick
	}
	return group, cpu, nil
}

// kilobytes reads a line such as "VmRSS:    1234 kB"; 0 when there is none, as
// for a process that ended and was not waited for.
func kilobytes(status []byte, name string) int64 {
	for line := range bytes.Lines(status) {
		if fields := bytes.Fields(line); len(fields) == 3 && string(fields[0]) == name {
			n, _ := strconv.ParseInt(string(fields[1]), 10, 64)
			return n << 10
		}
	}
	return 0
}
