package store_test

import (
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// pause stores that a run is paused.
func pause(t *testing.T, db *store.DB, r store.Run, events ...store.Events) {
	t.Helper()
	r.Requirements = json.RawMessage("[]")
	if err := end(t, db, r, "PAUSED", events...); err != nil {
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
	if _, err := db.AddEvents(t.Context(), append(rows, store.Events{RunID: other.RunID, Attempt: 1, Count: 1,
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
	if _, err := db.AddEvents(t.Context(), again); err != nil {
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
	if _, err := db.DeleteSessions(t.Context(), ann, []string{"gone"}, ""); err != nil {
		t.Fatal(err)
	}
	_, err := db.AddEvents(t.Context(), []store.Events{{RunID: gone.RunID, Attempt: 1, Count: 1, Frames: "a\n\n"},
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
	if _, err := db.AddEvents(t.Context(), nil); err != nil {
		t.Errorf("no events: %v", err)
	}
}

func TestAPausedRunIsContinuedByOneCaller(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	continues := func(r store.Run, leg uuid.UUID) (int, bool) {
		index, claimed, err := db.ContinueRun(t.Context(), r, leg, store.Request{}, store.Budget{})
		if err != nil {
			t.Error(err)
		}
		return index, claimed
	}
	if _, claimed := continues(r, uuid.New()); claimed {
		t.Error("a running run was continued")
	}
	pause(t, db, r, store.Events{RunID: r.RunID, Attempt: 1, First: 0, Count: 7, Frames: "x"})
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			id := uuid.New()
			index, claimed := continues(r, id)
			if !claimed {
				return
			}
			won.Add(1)
			if again, claimed := continues(r, id); index != 7 || again != index || !claimed {
				t.Errorf("index %d; the same statement again: %d %t", index, again, claimed)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || status(t, db, r).Status != "RUNNING" {
		t.Errorf("%d callers continued it, and its status is %s", won.Load(), status(t, db, r).Status)
	}
	if err := end(t, db, r, "COMPLETED"); !errors.Is(err, fault.Conflict) {
		t.Errorf("the leg that paused ended the run: %v", err)
	}
	if _, claimed := continues(store.Run{RunID: uuid.New()}, uuid.New()); claimed {
		t.Error("a missing run was continued")
	}
}

func TestAKeyContinuesARunOnce(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	pause(t, db, r, store.Events{RunID: r.RunID, Attempt: 1, First: 0, Count: 3, Frames: "x"})
	q := store.Request{Key: "k", Digest: []byte{1}}
	next := store.Leg{RunID: r.RunID, Attempt: 1, ID: uuid.New()}
	if _, claimed, err := db.ContinueRun(t.Context(), r, next.ID, q, store.Budget{}); err != nil || !claimed {
		t.Fatal(claimed, err)
	}
	again := func(when string) {
		t.Helper()
		_, _, err := db.ContinueRun(t.Context(), r, uuid.New(), q, store.Budget{})
		if repeated, ok := errors.AsType[*store.Repeated](err); !ok || repeated.First != 3 ||
			repeated.Run.RunID != r.RunID {
			t.Errorf("%s: %v", when, err)
		}
	}
	again("while the run continues")
	paused := r
	paused.Status, paused.Metrics = "PAUSED", json.RawMessage("{}")
	if _, err := db.FinishRun(t.Context(), next, paused, nil, store.Usage{}, day); err != nil {
		t.Fatal(err)
	}
	again("at the next pause")
	other := store.Request{Key: "k", Digest: []byte{2}}
	if _, _, err := db.ContinueRun(t.Context(), r, uuid.New(), other, store.Budget{}); !errors.Is(err, fault.Conflict) {
		t.Errorf("another request with the key: %v", err)
	}
	q.Key = "k2"
	if _, claimed, err := db.ContinueRun(t.Context(), r, uuid.New(), q, store.Budget{}); err != nil || !claimed {
		t.Errorf("another key: %t %v", claimed, err)
	}
}

// The caller got an error, and sends the request with its key again.
func TestAContinuationThatIsWithdrawnCanBeRepeated(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	pause(t, db, r, store.Events{RunID: r.RunID, Attempt: 1, First: 0, Count: 3, Frames: "x"})
	q, refused, next := store.Request{Key: "k", Digest: []byte{1}}, uuid.New(), uuid.New()
	withdraw := func(want string) {
		t.Helper()
		for range 2 {
			if err := db.WithdrawContinuation(t.Context(), r.RunID, refused, q.Key); err != nil {
				t.Fatal(err)
			}
		}
		if got := status(t, db, r); got.Status != want {
			t.Errorf("the run is %s, not %s", got.Status, want)
		}
	}
	continues := func(leg uuid.UUID) {
		t.Helper()
		if index, claimed, err := db.ContinueRun(t.Context(), r, leg, q,
			store.Budget{}); err != nil || !claimed || index != 3 {
			t.Fatal(index, claimed, err)
		}
	}
	continues(refused)
	withdraw("PAUSED")
	continues(next)
	withdraw("RUNNING") // The continuation of another leg stays.
	if err := db.WithdrawContinuation(t.Context(), r.RunID, next, q.Key); err != nil {
		t.Fatal(err)
	}
	continues(refused)
	if found, err := db.RequestCancel(t.Context(), ann, r.RunID); err != nil || !found {
		t.Fatal(found, err)
	}
	withdraw("PENDING")
	if c, _ := claim(t, db, r.RunID); !c.CancelRequested || c.Losses != 0 || c.Checkpoint != nil {
		t.Errorf("%+v", c)
	}
}

// The process that claims it stores its last event.
func TestAPausedRunThatIsCancelledBecomesPending(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	pause(t, db, r, store.Events{RunID: r.RunID, Attempt: 1, First: 0, Count: 3, Frames: "x"})
	if found, err := db.RequestCancel(t.Context(), bob, r.RunID); err != nil || found ||
		status(t, db, r).Status != "PAUSED" {
		t.Errorf("bob cancels her run: %t %v", found, err)
	}
	for range 2 {
		if found, err := db.RequestCancel(t.Context(), ann, r.RunID); err != nil || !found {
			t.Errorf("%t %v", found, err)
		}
		if got := status(t, db, r); got.Status != "PENDING" || !got.CancelRequested {
			t.Errorf("%+v", got)
		}
	}
	if _, claimed, err := db.ContinueRun(t.Context(), r, uuid.New(), store.Request{},
		store.Budget{}); claimed || err != nil {
		t.Errorf("it was continued: %t %v", claimed, err)
	}
	claim(t, db, r.RunID)
	if got, err := db.EventsAfter(t.Context(), r.RunID, -1); err != nil || len(got) != 1 || got[0].Attempt != 2 {
		t.Errorf("its events: %v %v", got, err)
	}
}

func TestARunWhoseCancellationWasAcceptedEndsCancelled(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, status := range []string{"PAUSED", "COMPLETED", "ERROR"} {
		r := begin(t, db, "ann", status, 0)
		if found, err := db.RequestCancel(t.Context(), ann, r.RunID); err != nil || !found {
			t.Fatal(found, err)
		}
		r.Status, r.Metrics = status, json.RawMessage("{}")
		event := store.Events{RunID: r.RunID, Attempt: 1, Count: 1, Frames: "x"}
		cancel, err := db.FinishRun(t.Context(), leg(r), r, []store.Events{event}, store.Usage{ModelID: "m", Total: 1}, day)
		if err != nil || !cancel {
			t.Errorf("%s: %t %v", status, cancel, err)
		}
		if n, err := db.CountEvents(t.Context(), r.RunID); err != nil || n > 0 {
			t.Errorf("%s: its event was stored: %v %v", status, n, err)
		}
		r.CancellationStage = new("EXECUTING")
		if err := end(t, db, r, "CANCELLED"); err != nil {
			t.Errorf("%s: %v", status, err)
		}
	}
}

func TestAConversationIsInTheOrderOfTheRuns(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	addRun := func(owner string, n int, messages string) {
		r := begin(t, db, owner, "s", n)
		r.Messages = json.RawMessage(messages)
		if err := end(t, db, r, "COMPLETED"); err != nil {
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
		raw, err := db.Conversation(t.Context(), row.viewer, store.ConversationQuery{
			Owner: row.owner, SessionID: row.session,
		})
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

// A locked row delays only the events of its own run.
func TestEventsOfALockedRunAreStoredLater(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	locked, free := begin(t, db, "ann", "s", 0), begin(t, db, "ann", "s", 0)
	release := block(t, url, "SELECT FROM keyway.runs WHERE run_id = '"+locked.RunID.String()+"'")
	batches := []store.Events{{RunID: locked.RunID, Attempt: 1, Count: 2, Frames: "a"},
		{RunID: free.RunID, Attempt: 1, Count: 3, Frames: "b"}}
	if busy, err := db.AddEvents(t.Context(), batches); err != nil || !cmp.Equal(busy, []uuid.UUID{locked.RunID}) {
		t.Errorf("%v %v", busy, err)
	}
	if p := pulse(t, db, true, leg(locked), leg(free)); p[0].Renewed || p[0].Lost || !p[1].Renewed {
		t.Errorf("%+v", p)
	}
	release()
	if busy, err := db.AddEvents(t.Context(), batches); err != nil || len(busy) > 0 {
		t.Errorf("%v %v", busy, err)
	}
	for r, want := range map[uuid.UUID]int{locked.RunID: 2, free.RunID: 3} {
		if n, err := db.CountEvents(t.Context(), r); err != nil || n != want {
			t.Errorf("%d events, want %d, %v", n, want, err)
		}
	}
}
