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

// tick is the unit of CPU time in /proc: 1/USER_HZ of a second. USER_HZ is 100 on every
// platform that Go supports.
const tick = 10 * time.Millisecond

// ownGroup gives the command a process group of its own. All of its processes can then be
// stopped together, and a ctrl-C in the terminal reaches the benchmark only.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// endGroup sends SIGTERM to the group, or SIGKILL. It ignores the error, which means that
// the group has ended.
func endGroup(c *exec.Cmd, kill bool) {
	signal := syscall.SIGTERM
	if kill {
		signal = syscall.SIGKILL
	}
	_ = syscall.Kill(-c.Process.Pid, signal)
}

// groupUsage adds up what the processes of a group use, because a server may have several
// (the peer's command can be a shell, and uvicorn can start workers). CPU includes the
// children that a process has waited for.
func groupUsage(group int) (u usage, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return u, err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		// Two files, since stat has the CPU time and status the memory with its peak.
		stat, err1 := os.ReadFile("/proc/" + e.Name() + "/stat")
		status, err2 := os.ReadFile("/proc/" + e.Name() + "/status")
		if err1 != nil || err2 != nil {
			continue // the process ended since ReadDir
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
	// Field 2 is the command's name in parentheses, and the name may hold spaces and
	// parentheses. So the fields are counted from the last closing one.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("%d fields after the name", len(fields))
	}
	if group, err = strconv.Atoi(string(fields[2])); err != nil {
		return 0, 0, err
	}
	// utime, stime, cutime and cstime.
	for _, f := range fields[11:15] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		cpu += time.Duration(n) * tick
	}
	return group, cpu, nil
}

// kilobytes returns the bytes of a line such as "VmRSS:    1234 kB", or 0 if there is no
// such line. A process that has ended and was not waited for has none.
func kilobytes(status []byte, name string) int64 {
	for line := range bytes.Lines(status) {
		if fields := bytes.Fields(line); len(fields) == 3 && string(fields[0]) == name {
			n, _ := strconv.ParseInt(string(fields[1]), 10, 64)
			return n << 10
		}
	}
	return 0
}
