package store_test

import (
	"encoding/json"
	"errors"
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

// pause stores that a run is paused.
func pause(t *testing.T, db *store.DB, r store.Run, e store.Events) {
	t.Helper()
	r.Status, r.Metrics, r.Requirements = "PAUSED", json.RawMessage("{}"), json.RawMessage("[]")
	if err := db.FinishRun(t.Context(), r, e, store.Usage{ModelID: "m", Total: 1}, day); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, db *store.DB, r store.Run) store.Run {
	t.Helper()
	got, err := db.Run(t.Context(), admin, store.RunQuery{RunID: r.RunID.String()})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEventsAreReadFromTheRowWithTheFirstMissingEvent(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r, other := begin(t, db, "ann", "s", 0), begin(t, db, "bob", "s", 0)
	rows := []store.Events{{RunID: r.RunID, Attempt: 1, First: 0, Count: 3, Frames: "a\n\nb\n\nc\n\n"},
		{RunID: r.RunID, Attempt: 1, First: 3, Count: 1, Frames: "d\n\n"}}
	if err := db.AddEvents(t.Context(), append(rows, store.Events{RunID: other.RunID, Attempt: 1, Count: 1,
		Frames: "his\n\n"})); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[int][]store.Events{-1 << 31: rows, -1: rows, 0: rows, 1: rows, 2: rows[1:], 3: {},
		1<<31 - 1: {}} {
		got, err := db.EventsAfter(t.Context(), r.RunID, after)
		if diff := cmp.Diff(want, got); err != nil || diff != "" && len(want)+len(got) > 0 {
			t.Errorf("after %d: %v %s", after, err, diff)
		}
	}
	again := []store.Events{{RunID: r.RunID, Attempt: 1, First: 3, Count: 1, Frames: "twice\n\n"}}
	if err := db.AddEvents(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if got, err := db.EventsAfter(t.Context(), r.RunID, 2); err != nil || len(got) != 1 || got[0].Frames != "d\n\n" {
		t.Errorf("events that are stored twice: %+v %v", got, err)
	}
}

func TestEventsOfADeletedRunDoNotPreventOthers(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	gone, here := begin(t, db, "ann", "gone", 0), begin(t, db, "ann", "here", 0)
	if err := db.DeleteSessions(t.Context(), ann, []string{"gone"}, ""); err != nil {
		t.Fatal(err)
	}
	err := db.AddEvents(t.Context(), []store.Events{{RunID: gone.RunID, Attempt: 1, Count: 1, Frames: "a\n\n"},
		{RunID: uuid.New(), Attempt: 1, Count: 1, Frames: "b\n\n"}, {RunID: here.RunID, Attempt: 1, Count: 1,
			Frames: "c\n\n"}})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[uuid.UUID]int{gone.RunID: 0, here.RunID: 1} {
		if got, err := db.EventsAfter(t.Context(), id, -1); err != nil || len(got) != want {
			t.Errorf("%v %v", got, err)
		}
	}
	if err := db.AddEvents(t.Context(), nil); err != nil {
		t.Errorf("no events: %v", err)
	}
}

func TestAPausedRunIsContinuedByOneCaller(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	if _, claimed, err := db.ContinueRun(t.Context(), r, day); claimed || err != nil {
		t.Errorf("a running run: %t %v", claimed, err)
	}
	pause(t, db, r, store.Events{RunID: r.RunID, Attempt: 1, First: 0, Count: 7, Frames: "x"})
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			index, claimed, err := db.ContinueRun(t.Context(), r, day)
			if err != nil || claimed && index != 7 {
				t.Errorf("%d %t %v", index, claimed, err)
			}
			if claimed {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || status(t, db, r).Status != "RUNNING" {
		t.Errorf("%d callers continued it, and its status is %s", won.Load(), status(t, db, r).Status)
	}
	finish(t, db, r)
	if _, claimed, err := db.ContinueRun(t.Context(), r, day); claimed || err != nil {
		t.Errorf("an ended run: %t %v", claimed, err)
	}
	if _, claimed, err := db.ContinueRun(t.Context(), store.Run{RunID: uuid.New()}, day); claimed || err != nil {
		t.Errorf("a missing run: %t %v", claimed, err)
	}
}

func TestAPausedRunEndsWhenItIsCancelled(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	pause(t, db, r, store.Events{})
	if ids, err := db.RequeueExpired(t.Context(), day.Add(24*time.Hour)); err != nil || len(ids) != 0 {
		t.Errorf("a paused run counts as orphaned: %v %v", ids, err)
	}
	q := store.RunQuery{RunID: r.RunID.String(), SessionID: "s"}
	if found, err := db.RequestCancel(t.Context(), bob, q, day); err != nil || found ||
		status(t, db, r).Status != "PAUSED" {
		t.Errorf("bob cancels her run: %t %v", found, err)
	}
	for range 2 {
		if found, err := db.RequestCancel(t.Context(), ann, q, day); err != nil || !found {
			t.Errorf("%t %v", found, err)
		}
		if got := status(t, db, r); got.Status != "CANCELLED" || got.CancellationStage == nil ||
			*got.CancellationStage != "EXECUTING" {
			t.Errorf("%+v", got)
		}
	}
	if _, claimed, err := db.ContinueRun(t.Context(), r, day); claimed || err != nil {
		t.Errorf("a cancelled run was continued: %t %v", claimed, err)
	}
	r.Status, r.Metrics = "COMPLETED", json.RawMessage("{}")
	if err := db.FinishRun(t.Context(), r, store.Events{RunID: r.RunID, Attempt: 1, Count: 1, Frames: "x"},
		store.Usage{}, day); !errors.Is(err, fault.Conflict) {
		t.Errorf("a cancelled run was completed: %v", err)
	}
	if got, err := db.EventsAfter(t.Context(), r.RunID, -1); err != nil || len(got) > 0 {
		t.Errorf("its events were stored: %v %v", got, err)
	}
}

func TestAConversationIsInTheOrderOfTheRuns(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	addRun := func(owner string, n int, messages string) {
		r := begin(t, db, owner, "s", n)
		r.Status, r.Metrics, r.Messages = "COMPLETED", json.RawMessage("{}"), json.RawMessage(messages)
		if err := db.FinishRun(t.Context(), r, store.Events{}, store.Usage{}, day); err != nil {
			t.Fatal(err)
		}
	}
	addRun("ann", 5, `[{"role":"system","content":"be brief"},{"role":"user","content":"1"},`+
		`{"role":"assistant","content":"2"},{"role":"tool","content":"x"}]`)
	addRun("bob", 6, `[{"role":"user","content":"his"}]`)
	addRun("ann", 1, `[{"role":"user","content":"3"}]`) // It is a later run, although its clock is behind.
	begin(t, db, "ann", "s", 9)                         // It has no messages yet.
	for name, row := range map[string]struct {
		viewer  store.Viewer
		owner   string
		session string
		want    []string
	}{
		"her own":          {ann, "ann", "s", []string{"1", "2", "3"}},
		"hers, for bob":    {bob, "ann", "s", nil},
		"an administrator": {admin, "bob", "s", []string{"his"}},
		"the zero viewer":  {store.Viewer{}, "ann", "s", nil},
		"no session":       {ann, "ann", "nope", nil},
	} {
		raw, err := db.Conversation(t.Context(), row.viewer, row.owner, row.session)
		var messages []struct{ Content string }
		if err != nil || json.Unmarshal(raw, &messages) != nil || messages == nil {
			t.Errorf("%s: %s %v", name, raw, err)
		}
		var got []string
		for _, m := range messages {
			got = append(got, m.Content)
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
