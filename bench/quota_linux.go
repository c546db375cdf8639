package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// quotaPeriod is how often the kernel hands out a share of CPU time. The kernel's default
// is 100 ms. With a share of 0.29, a process that needs less than 29 ms would then run
// without any limit, and our functions start in less.
const quotaPeriod = 20 * time.Millisecond

// quota is a cgroup that limits the processes in it to a share of one processor, as Lambda
// limits a function by its memory. A Go program uses several threads while it starts, so a
// start with a quota takes longer than the time on a whole processor would suggest.
type quota struct {
	// dir is the cgroup's directory.
	dir string
	// v2 reports cgroups version 2. Version 1 has other files.
	v2 bool
}

// newQuota creates the cgroup. It needs root.
func newQuota(share float64) (q *quota, err error) {
	q = &quota{}
	// The kernel takes both numbers in microseconds.
	period := quotaPeriod.Microseconds()
	own := int64(share * float64(period))
	// Only version 2 has cgroup.controllers at its root.
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		q.v2 = true
	} else {
		root = filepath.Join(root, "cpu")
	}
	q.dir = filepath.Join(root, fmt.Sprintf("keyway-bench-%d", os.Getpid()))
	if err := os.Mkdir(q.dir, 0o750); err != nil {
		return nil, err
	}
	write := func(file, text string) {
		err = cmp.Or(err, os.WriteFile(filepath.Join(q.dir, file), []byte(text), 0o600))
	}
	if q.v2 {
		write("cpu.max", fmt.Sprintf("%d %d", own, period))
	} else {
		write("cpu.cfs_period_us", fmt.Sprint(period))
		write("cpu.cfs_quota_us", fmt.Sprint(own))
	}
	// In version 2, cpu.max is missing if the cpu controller is not enabled for this level.
	if err != nil {
		return nil, errors.Join(err, q.remove())
	}
	return q, nil
}

// remove removes the cgroup. That fails while processes are in it, and the kernel needs a
// moment to remove one that has ended, so remove tries for a second.
func (q *quota) remove() (err error) {
	for range 50 {
		if err = os.Remove(q.dir); err == nil {
			return nil
		}
		time.Sleep(stopPatience / 500)
	}
	return err
}

// start starts the command inside the cgroup, so that its first instruction is limited
// too. A nil quota has no limit.
func (q *quota) start(cmd *exec.Cmd) error {
	if q == nil {
		return cmd.Start()
	}
	if q.v2 {
		dir, err := os.Open(q.dir)
		if err != nil {
			return err
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
		return cmd.Start()
	}
	// In version 1, a child starts in the cgroup of the thread that creates it. So this
	// thread joins the cgroup, starts the command, and goes back.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := []byte(strconv.Itoa(syscall.Gettid()))
	home, err := cpuGroup()
	if err == nil {
		err = os.WriteFile(filepath.Join(q.dir, "tasks"), thread, 0o600)
	}
	if err != nil {
		return err
	}
	// Go back even if the start failed: the Go runtime uses the thread again.
	err = cmd.Start()
	return errors.Join(err, os.WriteFile(filepath.Join(home, "tasks"), thread, 0o600))
}

// cpuGroup returns the directory of this process's cgroup, for version 1.
func cpuGroup() (string, error) {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	// A line is "ID:controllers:path", such as "4:cpu,cpuacct:/user.slice".
	for line := range bytes.Lines(groups) {
		fields := bytes.SplitN(bytes.TrimSpace(line), []byte(":"), 3)
		if len(fields) == 3 && bytes.Contains(append(append([]byte(","), fields[1]...), ','), []byte(",cpu,")) {
			return filepath.Join("/sys/fs/cgroup/cpu", string(fields[2])), nil
		}
	}
	return "", errors.New("/proc/self/cgroup names no group for cpu")
}
