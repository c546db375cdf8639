package store_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

func TestOnlyEventsOfThePresentAttemptAreCounted(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r, empty := begin(t, db, "ann", "s", 0), begin(t, db, "ann", "s", 0)
	_, err := db.AddEvents(t.Context(), []store.Events{
		{RunID: r.RunID, Attempt: 1, First: 0, Count: 3, Frames: "a\n\nb\n\nc\n\n"},
		{RunID: r.RunID, Attempt: 1, First: 3, Count: 1, Frames: "d\n\n"},
		{RunID: r.RunID, Attempt: 2, First: store.FirstIndex(2), Count: 1, Frames: "e\n\n"}, // It is not stored.
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[uuid.UUID]int{r.RunID: 4, empty.RunID: 0, uuid.New(): 0} {
		if got, err := db.CountEvents(t.Context(), id); err != nil || got != want {
			t.Errorf("run %s has %d events, error %v; want %d", id, got, err, want)
		}
	}
}
