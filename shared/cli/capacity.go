package cli

import (
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// capacity is how much this process works on at the same time. A run that is accepted needs
// file descriptors and memory until its end, so the bounds follow from the limits that the
// operator has set for the process: a run that is refused can be sent again, and one that
// fails in the middle can not.
type capacity struct {
	// conns is the maximum number of connections of clients.
	conns int
	// runs is the maximum number of runs that requests execute. It is smaller than conns, so
	// that a refused request has a connection to be refused on.
	runs int
	// background is the maximum number of runs from the queue. The others stay pending, for
	// this process or for another server.
	background int
}

const (
	// reservedFiles are for the connections to the database, which are at most 18, for the log,
	// the listener, the embedded PostgreSQL, the resolver of names, and the Go runtime.
	reservedFiles = 64
	// minFiles is the smallest limit with which a server is useful.
	minFiles = 128
	// filesOfRun are the descriptors of a run beside the connection of its client: the
	// connection to the model, and one for a tool.
	filesOfRun = 2
	// memoryOfRun is how much memory the process must have for each run. A run with its stream
	// needs about 0.25 MB; the rest is for long messages and for everything else.
	memoryOfRun = 1 << 20
	// maxBackgroundRuns bounds the runs from the queue where files and memory allow more.
	maxBackgroundRuns = 32
	// maxRuns bounds the runs where files and memory allow more, or are not known.
	maxRuns = 16384
)

// capacityOf returns the bounds for a limit of open files and an amount of memory in bytes.
// Either may be math.MaxUint64: no limit, or unknown.
func capacityOf(files, memory uint64) (c capacity, err error) {
	if files < minFiles {
		return c, usage("the limit of open files is %d, and keyway serve needs at least %d; raise it with ulimit -n 1024",
			files, minFiles)
	}
	free := int(min(files, math.MaxInt32)) - reservedFiles
	c.background = min(maxBackgroundRuns, free/16)
	free -= c.background * filesOfRun
	// Of each four descriptors, one is for the client of a run, two are for the run, and one is
	// for a client without a run.
	c.runs = min(free/(2+filesOfRun), int(min(memory/memoryOfRun, maxRuns)))
	c.runs = max(c.runs, 1)
	c.conns = min(free-c.runs*filesOfRun, max(4*c.runs, minFiles))
	return c, nil
}

// memoryLimit returns how many bytes of memory this process may use: the smallest of
// GOMEMLIMIT, the limits of its control groups and the machine's memory. It is
// math.MaxUint64 where none is known.
func memoryLimit() uint64 {
	limit := uint64(debug.SetMemoryLimit(-1)) // #nosec G115 -- never negative; it only reads the limit
	note := func(text string, unit uint64) {
		if n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64); err == nil && n > 0 {
			limit = min(limit, n*unit)
		}
	}
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		// The line of version 2 is 0::/path. A limit of a group above counts too.
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for ok && group != "" {
			text, _ := os.ReadFile(path.Join("/sys/fs/cgroup", group, "memory.max")) // "max" without a limit
			note(string(text), 1)
			if group == "/" || group == "." {
				break
			}
			group = path.Dir(group)
		}
	}
	text, _ := os.ReadFile("/sys/fs/cgroup/memory/memory.limit_in_bytes") // version 1
	note(string(text), 1)
	info, _ := os.ReadFile("/proc/meminfo")
	if _, rest, ok := strings.Cut(string(info), "MemTotal:"); ok {
		total, _, _ := strings.Cut(rest, "kB")
		note(total, 1<<10)
	}
	return limit
}
