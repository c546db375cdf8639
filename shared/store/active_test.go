package store_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

func TestOneCallCancelsABoundedNumberOfRunsAndARepeatedOneIsTheSame(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	finish(t, db, begin(t, db, "ann", "s", 0))
	waits := begin(t, db, "ann", "s", 1)
	pause(t, db, waits)
	for n := range 3 {
		begin(t, db, "ann", "s", 2+n)
	}
	bobs := begin(t, db, "bob", "s", 9)
	cancel := func(most int) []store.Marked {
		t.Helper()
		marked, more, err := store.RequestCancelSome(db, t.Context(), admin, store.ActiveQuery{Owner: "ann"}, most)
		if err != nil || more != (most == 3) {
			t.Fatalf("%v %t %v", marked, more, err)
		}
		return marked
	}
	if first := cancel(3); len(first) != 3 {
		t.Errorf("%v", first)
	}
	for range 2 {
		all := cancel(4)
		waiting := 0
		for _, m := range all {
			if m.Waits {
				waiting++
			}
			if r := status(t, db, store.Run{RunID: m.RunID}); !r.CancelRequested || r.Owner != "ann" {
				t.Errorf("%+v", r)
			}
		}
		if len(all) != 4 || waiting != 1 {
			t.Errorf("%d runs, of which %d wait", len(all), waiting)
		}
	}
	if r := status(t, db, waits); r.Status != "PENDING" {
		t.Errorf("a paused run is %s", r.Status)
	}
	if r := status(t, db, bobs); r.CancelRequested {
		t.Error("the run of another user is cancelled")
	}
	runs, total, err := db.ActiveRuns(t.Context(), admin, store.ActiveQuery{}, 2, 1)
	if err != nil || total != 5 || len(runs) != 2 || runs[0].RunID != waits.RunID {
		t.Errorf("%v of %d, %v", runs, total, err)
	}
}
