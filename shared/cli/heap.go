package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// Go collects the heap when it has grown by a percentage (GOGC, 100 by default). Neither percentage fits a server
// whose heap is small when it idles: 100 % of 8 MB is collected all the time under load, and 300 % of the heap of a
// thousand streams is memory that nobody uses. So serve gives the heap room in bytes. The environment variable GOGC
// switches this off. GOMEMLIMIT is the runtime's own, and counts beside it.
const (
	// minRoom is by how many bytes the heap grows at least before it is collected.
	minRoom = 16 << 20
	// roomDivisor gives a larger heap more room: this part of it.
	roomDivisor = 2
)

// roomFor returns by how many percent a heap of this size, with the stacks and globals that the runtime counts with
// it, grows before the next collection.
func roomFor(bytes uint64) int {
	return int(max(minRoom, bytes/roomDivisor) * 100 / max(bytes, 1<<20)) // #nosec G115 -- at most 1,600
}

// giveRoom sets the room of the heap after each collection, until stop is called.
func giveRoom() (stop func()) {
	var stopped atomic.Bool
	afterEachCollection(func() bool {
		if stopped.Load() {
			return false
		}
		setRoom()
		return true
	})
	setRoom()
	return func() { stopped.Store(true) }
}

// setRoom sets the room for the heap as the last collection left it.
func setRoom() {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"},
		{Name: "/gc/gogc:percent"},
	}
	metrics.Read(s)
	want, now := roomFor(s[0].Value.Uint64()+s[1].Value.Uint64()+s[2].Value.Uint64()), int(s[3].Value.Uint64())
	if want*10 < now*9 || want*9 > now*10 { // Setting it stops all goroutines for a moment.
		debug.SetGCPercent(want)
	}
}

// afterEachCollection calls f after each collection of the heap, until it returns false. The runtime has no
// function for that, but cleans up an object that nobody refers to.
func afterEachCollection(f func() bool) {
	type object struct{ _ *int } // An object without a pointer may be kept together with another one.
	runtime.AddCleanup(&object{}, func(f func() bool) {
		if f() {
			afterEachCollection(f)
		}
	}, f)
}
