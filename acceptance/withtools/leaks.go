package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end after keyway has stopped.
const patience = 20 * time.Second

// withoutLeaks runs keyway and returns its exit code, or 1 when goroutines or files
// are open afterwards that were not open before.
func withoutLeaks(keyway func() int) int {
	// The Go runtime opens its poller with the first socket and keeps it.
	if listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0"); err == nil {
		listener.Close()
	}
	before, files := goleak.IgnoreCurrent(), openFiles()
	code := keyway()
	fmt.Fprintln(os.Stderr, "withtools: keyway has stopped")
	var leak error
	for end := time.Now().Add(patience); ; { // goleak.Find itself retries for up to a second
		if leak = goleak.Find(before); leak == nil || time.Now().After(end) {
			break
		}
	}
	if leak != nil {
		fmt.Fprintln(os.Stderr, "withtools: goroutines still run:", leak)
		code = max(code, 1)
	}
	if now := openFiles(); now > files {
		fmt.Fprintf(os.Stderr, "withtools: %d files are open, before keyway ran there were %d\n", now, files)
		code = max(code, 1)
	}
	fmt.Fprintf(os.Stderr, "withtools: looked for leaks, exit %d\n", code)
	return code
}

// openFiles counts the file descriptors of the process. It returns 0 on systems without
// /proc, where only goroutines are compared.
func openFiles() int {
	if runtime.GOOS != "linux" {
		return 0
	}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		fmt.Fprintln(os.Stderr, "withtools:", err)
		os.Exit(1)
	}
	return len(list)
}
