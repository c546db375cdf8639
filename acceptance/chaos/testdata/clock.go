package assemble

import (
	"os"
	"time"
)

// skew is how far the clock of this process is ahead. It is negative for a clock that is behind.
var skew, _ = time.ParseDuration(os.Getenv("CHAOS_CLOCK"))

// Now replaces the clock of clock.go in the servers that the chaos harness builds.
func Now() time.Time { return time.Now().Add(skew) }
