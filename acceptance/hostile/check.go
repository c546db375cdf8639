//go:build linux

package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

const (
	// maxMemory is how much memory the server may use, in bytes.
	maxMemory = 256 << 20
	// maxGrowth is how many times what was sent the disk may grow by.
	maxGrowth = 10
	// smallGrowth is how much the disk may grow in any case: the honest callers' runs, and what a small request stores.
	smallGrowth = 8 << 20
	// maxSlowdown is how many times the time beside well-behaved callers the honest requests may take, at their 99th
	// percentile.
	maxSlowdown = 3
)

// deed is what one kind of abuse did, and what the server did meanwhile.
type deed struct {
	name     string
	allowed  []int
	lasting  bool
	limited  bool // some of it must be refused with 429
	statuses map[int]int
	// sent, received, growth of the disk, and the most resident memory, in bytes. A lasting deed has the first two only.
	sent, received, growth, peak int64
	took                         time.Duration
}

// evidence is what was seen in a pass.
type evidence struct {
	pass  string
	deeds []deed
	// crash describes how the server ended, or is empty.
	crash string
	// completed and failed are the requests of the honest callers, and repeated is how often one was sent again.
	completed int
	failed    []string
	repeated  int
	// sent, growth of the disk and the most resident memory of the whole pass, in bytes.
	sent, growth, peak int64
	// hostile and calm are the honest requests' times at the 99th percentile, beside the abuse and beside as many
	// well-behaved requests. calm is 0 in the short form, which has no such comparison.
	hostile, calm time.Duration
}

// check returns what does not hold.
func check(e evidence) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if e.crash != "" {
		complain("the server ended: %s", e.crash)
	}
	for _, d := range e.deeds {
		if len(d.statuses) == 0 {
			complain("%s: no answer at all, so nothing was tried", d.name)
		}
		for _, status := range slices.Sorted(maps.Keys(d.statuses)) {
			if !slices.Contains(d.allowed, status) {
				complain("%s: %d times %s", d.name, d.statuses[status], statusName(status))
			}
		}
		if d.limited && d.statuses[http.StatusTooManyRequests] == 0 {
			complain("%s: no 429, although the caller has limits", d.name)
		}
		if !d.lasting && d.growth > maxGrowth*d.sent+smallGrowth {
			complain("%s: the disk grew by %s after %s were sent", d.name, megabytes(d.growth), megabytes(d.sent))
		}
	}
	if e.completed < 2*honestCallers {
		complain("the honest callers completed %d requests only", e.completed)
	}
	for _, f := range e.failed {
		complain("an honest caller: %s", f)
	}
	if e.peak > maxMemory {
		complain("the server used %s of memory, more than %s", megabytes(e.peak), megabytes(maxMemory))
	}
	if e.peak == 0 {
		complain("the memory was not measured")
	}
	if e.growth > maxGrowth*e.sent {
		complain("the disk grew by %s after %s were sent in all", megabytes(e.growth), megabytes(e.sent))
	}
	if e.calm > 0 && e.hostile > maxSlowdown*e.calm {
		complain("the honest requests took %s, and %s beside well-behaved callers (99th percentile)", e.hostile, e.calm)
	}
	return wrong
}

// statusName is a status for people.
func statusName(status int) string {
	switch status {
	case closed:
		return "a closed connection"
	case held:
		return "a connection that was held for too long"
	case left:
		return "a connection at the end"
	}
	return fmt.Sprint("status ", status)
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }

// percentile99 is the 99th percentile of times, by the nearest rank; 0 of none.
func percentile99(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)*99+99)/100-1]
}
