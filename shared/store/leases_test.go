package store_test

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

func attempt(r store.Run) store.Attempt { return store.Attempt{RunID: r.RunID, Number: r.Attempt} }

// expired is a time after the end of every lease that was acquired at day.
var expired = day.Add(store.LeaseDuration + time.Second)

func requeue(t *testing.T, db *store.DB, now time.Time, want ...uuid.UUID) {
	t.Helper()
	got, err := db.RequeueExpired(t.Context(), now)
	if err != nil || !slices.Equal(want, got) {
		t.Errorf("the orphaned runs are %v, want %v, %v", got, want, err)
	}
}

func claim(t *testing.T, db *store.DB, id uuid.UUID, now time.Time) store.Run {
	t.Helper()
	r, claimed, err := db.ClaimRun(t.Context(), id, now)
	if err != nil || !claimed || r.Status != "RUNNING" {
		t.Fatalf("%+v %t %v", r, claimed, err)
	}
	return r
}

func TestRunsOfACrashedProcessBecomePending(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	crashed, alive := begin(t, db, "ann", "s", 0), begin(t, db, "ann", "s", 0)
	if _, lost, err := db.Pulse(t.Context(), []store.Attempt{attempt(crashed), attempt(alive)}, day, true); err != nil ||
		len(lost) != 0 {
		t.Fatal(lost, err)
	}
	later := day.Add(50 * time.Second)
	if _, _, err := db.Pulse(t.Context(), []store.Attempt{attempt(alive)}, later, true); err != nil {
		t.Fatal(err)
	}
	requeue(t, db, later)
	requeue(t, db, later.Add(30*time.Second), crashed.RunID)
	if got := status(t, db, crashed); got.Status != "PENDING" || got.Attempt != 1 {
		t.Errorf("%+v", got)
	}
	requeue(t, db, later.Add(30*time.Second)) // It is in the queue now.
}

// The queue may lose a message.
func TestAPendingRunIsRequeuedAfterTenMinutes(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	requeue(t, db, expired, r.RunID)
	requeue(t, db, expired.Add(10*time.Minute))
	requeue(t, db, expired.Add(10*time.Minute+time.Second), r.RunID)
}

func TestAPendingRunIsClaimedByOneProcess(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	if _, claimed, err := db.ClaimRun(t.Context(), r.RunID, day); claimed || err != nil {
		t.Errorf("a run with a valid lease: %t %v", claimed, err)
	}
	requeue(t, db, expired, r.RunID)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, claimed, err := db.ClaimRun(t.Context(), r.RunID, expired)
			if err != nil || claimed && (got.Attempt != 2 || got.Input != r.Input) {
				t.Errorf("%+v %v", got, err)
			}
			if claimed {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d processes claimed it", won.Load())
	}
	requeue(t, db, expired) // It has a new lease.
}

// An attempt that lost the run cannot renew its lease, store a checkpoint, end the run or add visible events.
func TestAnEarlierAttemptCanWriteNothing(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	first := begin(t, db, "ann", "s", 0)
	first.Status, first.Metrics = "COMPLETED", json.RawMessage("{}")
	ends := func(r store.Run) error {
		return db.FinishRun(t.Context(), r, store.Events{RunID: r.RunID, First: 100, Count: 1, Frames: "end\n\n"},
			store.Usage{ModelID: "m", Total: 1}, day)
	}
	lost := func(when string) {
		t.Helper()
		if _, gone, err := db.Pulse(t.Context(), []store.Attempt{attempt(first)}, expired, true); err != nil ||
			!slices.Equal(gone, []store.Attempt{attempt(first)}) {
			t.Errorf("%s, its lease was renewed: %v %v", when, gone, err)
		}
		if err := db.Checkpoint(t.Context(), attempt(first), store.Checkpoint{Data: json.RawMessage("{}")}); !errors.Is(err,
			fault.Conflict) {
			t.Errorf("%s, its checkpoint was stored: %v", when, err)
		}
		if err := ends(first); !errors.Is(err, fault.Conflict) {
			t.Errorf("%s, its end was stored: %v", when, err)
		}
	}
	requeue(t, db, expired, first.RunID)
	lost("while the run is pending")
	second := claim(t, db, first.RunID, expired)
	lost("after another claim")
	if err := db.AddEvents(t.Context(), []store.Events{{RunID: first.RunID, Attempt: 1, First: 7, Count: 1,
		Frames: "old\n\n"}}); err != nil {
		t.Error(err)
	}
	if got, err := db.EventsAfter(t.Context(), first.RunID, -1); err != nil || len(got) != 0 {
		t.Errorf("events of the earlier attempt are returned: %+v %v", got, err)
	}
	second.Status, second.Metrics = "COMPLETED", json.RawMessage("{}")
	if err := ends(second); err != nil {
		t.Error(err)
	}
	lost("after the end of the run")
	if s := session(t, db, ann, "s"); len(s.Usage) != 1 || s.Usage[0].Total != 1 {
		t.Errorf("the usage is counted more than once: %+v", s.Usage)
	}
	if r := status(t, db, first); r.Caller != nil || r.Checkpoint != nil {
		t.Errorf("the caller or the checkpoint is still stored: %+v", r)
	}
}

func TestTheNextAttemptKeepsTheEventsBeforeTheCheckpoint(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	add := func(first int, frames string) {
		t.Helper()
		if err := db.AddEvents(t.Context(), []store.Events{{RunID: r.RunID, Attempt: 1, First: first, Count: 2,
			Frames: frames}}); err != nil {
			t.Fatal(err)
		}
	}
	add(0, "a")
	c := store.Checkpoint{Data: json.RawMessage(`{"at":4}`), Next: 4,
		Events: store.Events{First: 2, Count: 2, Frames: "b"}}
	if err := db.Checkpoint(t.Context(), attempt(r), c); err != nil {
		t.Fatal(err)
	}
	add(4, "lost")
	requeue(t, db, expired, r.RunID)
	next := claim(t, db, r.RunID, expired)
	if string(next.Checkpoint) != `{"at":4}` {
		t.Errorf("it continues from %s", next.Checkpoint)
	}
	got, err := db.EventsAfter(t.Context(), r.RunID, -1)
	want := []store.Events{{RunID: r.RunID, Attempt: 2, First: 0, Count: 2, Frames: "a"},
		{RunID: r.RunID, Attempt: 2, First: 2, Count: 2, Frames: "b"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if store.FirstIndex(1) != 0 || store.FirstIndex(2) <= 1<<20 || store.FirstIndex(4) > 1<<31-1<<20 {
		t.Error("the ranges of the attempts overlap or exceed 32 bits")
	}
}
