package assemble

import "time"

// Now is the clock of every service and of what serves it. It is alone in its file so that a test can build a program
// whose clock is wrong: go build -overlay replaces this file. No setting of a program changes its clock.
func Now() time.Time { return time.Now() }
