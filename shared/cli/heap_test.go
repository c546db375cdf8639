package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestTheRoomOfTheHeapIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	for bytes, percent := range map[uint64]int{0: 1600, 1 << 20: 1600, 8 << 20: 200, 32 << 20: 50, 1 << 30: 50} {
		if got := roomFor(bytes); got != percent {
			t.Errorf("%d bytes grow by %d %%, want %d", bytes, got, percent)
		}
	}
}

// It changes the whole process, so it runs before the tests that are parallel.
func TestTheHeapGetsItsRoomAfterEachCollection(t *testing.T) { //nolint:paralleltest // see above
	before := debug.SetGCPercent(300)
	stop := giveRoom()
	defer func() { stop(); debug.SetGCPercent(before) }()
	live := make([]byte, 128<<20)
	goal := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	for end := time.Now().Add(time.Minute); ; {
		runtime.GC() // The goal follows soon after: the cleanup has a goroutine of its own.
		metrics.Read(goal)
		if got := goal[0].Value.Uint64(); got < 2*uint64(len(live)) && got > uint64(len(live)) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("a heap of %d bytes is collected at %d", len(live), got)
		}
	}
	runtime.KeepAlive(live)
}

// What a command allocates before it does its work stays resident, because the first collection comes later.
func TestACommandStartsWithLittleGarbage(t *testing.T) { //nolint:paralleltest // it counts allocations
	command(t, nil, "version")
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(allocated)
	before := allocated[0].Value.Uint64()
	const times = 20 // The runtime counts in steps of some KB.
	for range times {
		command(t, nil, "version")
	}
	metrics.Read(allocated)
	if each := (allocated[0].Value.Uint64() - before) / times; each > garbageOfACommand {
		t.Errorf("keyway version allocates %d bytes", each)
	} else {
		t.Logf("%d bytes", each)
	}
}
