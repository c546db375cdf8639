package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// fillUser gives an owner two sessions with a streamed run each, more events than a page has, and a memory.
func fillUser(t *testing.T, db *store.DB, owner string) {
	t.Helper()
	for _, session := range []string{"s1", "s2"} {
		r := begin(t, db, owner, session, 0)
		var events []store.Events
		for i := range 130 {
			events = append(events, store.Events{RunID: r.RunID, Attempt: 1, First: i, Count: 1,
				Frames: fmt.Sprintf("data: %s %s %d\n\n", owner, session, i)})
		}
		if _, err := db.AddEvents(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		finish(t, db, r)
	}
	m := store.Memory{MemoryID: uuid.New(), Owner: owner, Memory: owner + " likes tea", Topics: []string{"tea"},
		CreatedAt: day, UpdatedAt: day}
	if err := db.AddMemory(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// kinds counts items by their kind.
func kinds(items []store.UserItem) string {
	n := map[string]int{}
	for _, item := range items {
		n[item.Kind]++
	}
	return fmt.Sprint(n)
}

const allKinds = "map[events:260 memory:1 run:2 session:2]"

func TestTheDataOfAUserIsExportedWholeAndAlone(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, owner := range []string{"ann", "bob", "ann2"} {
		fillUser(t, db, owner)
	}
	var exported []store.UserItem
	if err := db.ExportUser(t.Context(), "ann", func(i store.UserItem) error {
		exported = append(exported, i)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := kinds(exported); got != allKinds {
		t.Errorf("%s", got)
	}
	for _, item := range exported {
		if strings.Contains(string(item.Data), "bob") || strings.Contains(string(item.Data), "ann2") {
			t.Errorf("another user's data: %s", item.Data)
		}
	}
	// More events than a page has come in their order, and none twice.
	n := 0
	for _, item := range exported {
		if item.Kind == "events" {
			if want := fmt.Sprintf(`"first_index" : %d,`, n%130); !strings.Contains(string(item.Data), want) {
				t.Errorf("batch %d is %s", n, item.Data)
			}
			n++
		}
	}
	if err := db.ExportUser(t.Context(), "nobody",
		func(store.UserItem) error { return errors.New("an item") }); err != nil {
		t.Error(err)
	}
}

func TestAnExportShowsOneMoment(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	fillUser(t, db, "ann")
	n := 0
	err := db.ExportUser(t.Context(), "ann", func(i store.UserItem) error {
		if n++; n == 1 {
			finish(t, db, begin(t, db, "ann", "s3", 0))
			_, err := db.DeleteSessions(t.Context(), store.Viewer{All: true}, []string{"s1"}, "ann")
			return err
		}
		return nil
	})
	if err != nil || n != 265 {
		t.Errorf("%d items, want the 265 of the beginning, %v", n, err)
	}
}

func TestAnErasedUserHasNothingLeftAndOthersKeepTheirs(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	fillUser(t, db, "ann")
	fillUser(t, db, "bob")
	for i := range 120 { // more than a batch
		finish(t, db, begin(t, db, "ann", fmt.Sprint("more", i), 0))
	}
	had, err := db.EraseUser(t.Context(), "ann")
	if want := (store.UserCounts{Sessions: 122, Runs: 122, Memories: 1}); err != nil || had != want {
		t.Fatalf("%+v %v", had, err)
	}
	for owner, want := range map[string]store.UserCounts{"ann": {}, "bob": {Sessions: 2, Runs: 2, Memories: 1}} {
		if got, err := db.CountUser(t.Context(), owner); err != nil || got != want {
			t.Errorf("%s has %+v, want %+v, %v", owner, got, want, err)
		}
	}
	if had, err := db.EraseUser(t.Context(), "ann"); err != nil || had != (store.UserCounts{}) {
		t.Errorf("again: %+v %v", had, err)
	}
}

func TestAUserWithARunInProgressIsNotErased(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	fillUser(t, db, "ann")
	r := begin(t, db, "ann", "s1", 1)
	if _, err := db.EraseUser(t.Context(), "ann"); !errors.Is(err, fault.Conflict) ||
		!strings.Contains(fault.Detail(err), "has runs in progress (1)") {
		t.Errorf("%v", err)
	}
	if got, err := db.CountUser(t.Context(),
		"ann"); err != nil || got.Sessions != 2 || got.Memories != 1 || got.Live != 1 {
		t.Errorf("%+v %v", got, err)
	}
	finish(t, db, r)
	if _, err := db.EraseUser(t.Context(), "ann"); err != nil {
		t.Error(err)
	}
}
