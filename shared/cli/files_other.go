//go:build !(linux || darwin)

package cli

import (
	"io"
	"math"
)

// fileLimit returns no limit: this system has none, or Keyway was not tested on it.
func fileLimit() uint64 { return math.MaxUint64 }

// freeSpace does not know it.
func freeSpace(string) (n uint64, known bool) { return 0, false }

// lockFile does nothing. On these systems two servers must not share --data.
func lockFile(string) (unlock func(), err error) { return func() {}, nil }

// terminalWidth does not know the width of a terminal.
func terminalWidth(io.Writer) int { return 0 }
