//go:build unix

package lambdaruntime

import (
	"net"
	"syscall"
)

// block makes reads and writes of a connection wait in the system call. Go's poller would try each read, register it,
// and wait for its event, which are three system calls in place of one. The price is one thread that waits, and a
// connection whose deadlines have no effect; it needs none, since a process without events has nothing else to do.
// If it fails, the poller does the work.
func block(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = syscall.SetNonblock(int(fd), false) })
		}
	}
}
