package lambdaruntime

import (
	"runtime"
	"runtime/debug"
	"strconv"
)

const (
	// wholeCPU is the memory in MB with which AWS gives a function one processor. The share is proportional to the memory.
	wholeCPU = 1769
	// gcPercent is how much the heap may grow before it is collected. A function has a small heap and most of its memory
	// is unused, so collecting less often costs nothing but that.
	gcPercent = 400
	// limitPercent is the part of a function's memory from which on the heap is collected as often as necessary.
	limitPercent = 80
)

// Tune adapts Go's runtime to the memory that AWS gives this function. The variables GOMAXPROCS, GOGC and GOMEMLIMIT
// take precedence.
//
// A function sees two processors or more and gets a share of one, unless its memory is large. More threads than
// processors only wake each other up.
func Tune(lookup func(string) (string, bool)) {
	text, _ := lookup("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
	mb, err := strconv.Atoi(text)
	if err != nil || mb <= 0 {
		return
	}
	free := func(name string) bool { value, set := lookup(name); return !set || value == "" }
	if procs := (mb + wholeCPU - 1) / wholeCPU; free("GOMAXPROCS") && procs < runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(procs)
	}
	if free("GOGC") {
		debug.SetGCPercent(gcPercent)
	}
	if free("GOMEMLIMIT") {
		debug.SetMemoryLimit(int64(mb) << 20 / 100 * limitPercent)
	}
}
