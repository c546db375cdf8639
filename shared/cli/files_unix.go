//go:build linux || darwin

package cli

import (
	"errors"
	"io"
	"math"
	"os"
	"syscall"
	"unsafe"
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

// freeSpace returns how many bytes this user can write to the disk of a directory.
func freeSpace(dir string) (n uint64, known bool) {
	var s syscall.Statfs_t
	err := syscall.Statfs(dir, &s)
	return s.Bavail * uint64(s.Bsize), err == nil // #nosec G115 -- a block has a size above 0
}

// lockFile waits until no other process holds the lock of a file, which it makes if it is missing. The lock also ends
// with the process.
func lockFile(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600) // #nosec G304 -- the operator chooses --data
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// terminalWidth returns the width of a terminal, or 0 if it is not known.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	var size struct{ rows, columns, x, y uint16 }
	// #nosec G103 -- ioctl has no other way to return the size
	_, _, failed := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	if failed != 0 {
		return 0
	}
	return int(size.columns)
}
