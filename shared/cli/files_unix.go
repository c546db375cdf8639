//go:build linux || darwin

package cli

import (
	"math"
	"syscall"
)

// fileLimit returns how many files and connections this process can open. Go has raised the
// soft limit to the hard one when the process started.
func fileLimit() uint64 {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return math.MaxUint64
	}
	return l.Cur
}
