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

// quotaPeriod is how often a share is handed out: shorter than the kernel's 100 ms,
// in which a process that needs 29 ms would not notice a share of 0.29.
const quotaPeriod = 20 * time.Millisecond

// quota is a cgroup that holds what is started in it to a share of one processor.
type quota struct {
	dir string
	v2  bool
}

func newQuota(share float64) (q *quota, err error) {
	q = &quota{}
	period := quotaPeriod.Microseconds()
	own := int64(share * float64(period))
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
	if err != nil {
		return nil, errors.Join(err, q.remove())
	}
	return q, nil
}

// remove needs the processes to be gone, which takes the kernel a moment.
func (q *quota) remove() (err error) {
	for range 50 {
		if err = os.Remove(q.dir); err == nil {
			return nil
		}
		time.Sleep(stopPatience / 500)
	}
	return err
}

// start starts the command within the share; nil is no limit.
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
	// With cgroups v1 a child begins where the thread is that makes it.
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
	err = cmd.Start()
	return errors.Join(err, os.WriteFile(filepath.Join(home, "tasks"), thread, 0o600))
}

// cpuGroup is the directory of the cgroup v1 that this process belongs to.
func cpuGroup() (string, error) {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(groups) {
		fields := bytes.SplitN(bytes.TrimSpace(line), []byte(":"), 3)
		if len(fields) == 3 && bytes.Contains(append(append([]byte(","), fields[1]...), ','), []byte(",cpu,")) {
			return filepath.Join("/sys/fs/cgroup/cpu", string(fields[2])), nil
		}
	}
	return "", errors.New("/proc/self/cgroup names no group for cpu")
}
