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
	// A call is bounded, and says that more is left. What it has done stays.
	did, more, err := db.EraseUser(t.Context(), "ann", 1)
	if want := (store.UserCounts{Sessions: 50, Runs: 50, Memories: 1}); err != nil || did != want || !more {
		t.Fatalf("%+v %t %v", did, more, err)
	}
	did, more, err = db.EraseUser(t.Context(), "ann", 100)
	if want := (store.UserCounts{Sessions: 72, Runs: 72}); err != nil || did != want || more {
		t.Fatalf("%+v %t %v", did, more, err)
	}
	for owner, want := range map[string]store.UserCounts{"ann": {}, "bob": {Sessions: 2, Runs: 2, Memories: 1}} {
		if got, err := db.CountUser(t.Context(), owner); err != nil || got != want {
			t.Errorf("%s has %+v, want %+v, %v", owner, got, want, err)
		}
	}
	if did, more, err := db.EraseUser(t.Context(), "ann", 1); err != nil || did != (store.UserCounts{}) || more {
		t.Errorf("again: %+v %t %v", did, more, err)
	}
}

func TestAUserWithARunInProgressIsNotErased(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	fillUser(t, db, "ann")
	r := begin(t, db, "ann", "s1", 1)
	if _, _, err := db.EraseUser(t.Context(), "ann", 1); !errors.Is(err, fault.Conflict) ||
		!strings.Contains(fault.Detail(err), "has runs in progress (1)") {
		t.Errorf("%v", err)
	}
	if got, err := db.CountUser(t.Context(),
		"ann"); err != nil || got.Sessions != 2 || got.Memories != 1 || got.Live != 1 {
		t.Errorf("%+v %v", got, err)
	}
	finish(t, db, r)
	if _, more, err := db.EraseUser(t.Context(), "ann", 2); err != nil || more {
		t.Error(more, err)
	}
}

// The name of an erased user as a caller is in two other places: what was counted for their limits, and runs that they
// have begun for somebody else.
func TestAnErasedUserIsNoSpenderAnyMore(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	for _, owner := range []string{"ann", "bob"} {
		fillUser(t, db, owner)
	}
	r := begin(t, db, "bob", "hers", 0)
	sql(t, url, `UPDATE keyway.runs SET spender = 'ann' WHERE session_id = 'hers';
		INSERT INTO keyway.spending (whose, key, day, runs) SELECT whose, key, current_date, 3
		FROM unnest(ARRAY['caller', 'merges', 'agent']) AS whose, unnest(ARRAY['ann', 'bob']) AS key;
		INSERT INTO keyway.unsettled
		SELECT gen_random_uuid(), gen_random_uuid(), name, 'a', current_date, now() + rest::interval
		FROM (VALUES ('ann', '-1 day'), ('bob', '-1 day'), ('ann', '1 hour')) AS u (name, rest)`)
	names := func() string {
		t.Helper()
		return text(t, url, `SELECT concat_ws(' ',
			(SELECT count(*) FROM keyway.runs WHERE spender = 'ann'),
			(SELECT count(*) FROM keyway.unsettled WHERE spender = 'ann'),
			(SELECT string_agg(whose || ' of ' || key, ', ' ORDER BY key, whose) FROM keyway.spending))`)
	}
	// A run that she has begun and a merge of hers are in progress.
	before := names()
	_, _, err := db.EraseUser(t.Context(), "ann", 9)
	if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), "(2)") || names() != before {
		t.Errorf("%v, %s", err, names())
	}
	finish(t, db, r)
	sql(t, url, `UPDATE keyway.unsettled SET lease_until = now() - interval '1 second' WHERE spender = 'ann'`)
	if _, more, err := db.EraseUser(t.Context(), "ann", 9); err != nil || more {
		t.Fatal(more, err)
	}
	if got := names(); got != "0 0 agent of ann, agent of bob, caller of bob, merges of bob" {
		t.Error(got)
	}
	got := text(t, url, `SELECT owner || ' ' || status FROM keyway.runs WHERE session_id = 'hers'`)
	if got != "bob COMPLETED" {
		t.Error(got)
	}
}

// A place is a text that a caller may send in any form.
func TestTheTextOfAPlaceLeadsToTheNextPage(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	fillUser(t, db, "ann")
	fillUser(t, db, "bob")
	sql(t, url, `INSERT INTO keyway.spending (whose, key, day, runs) SELECT 'caller', key, current_date - n, 3
		FROM generate_series(1, 5) n, unnest(ARRAY['ann', 'bob', 'a']) key`)
	var all []store.UserItem
	pages := 0
	for at := ""; ; pages++ {
		from, ok := store.ParseUserPlace(at)
		if !ok || from.String() != at {
			t.Fatalf("the place %q is not read as it was written", at)
		}
		items, next, err := db.UserPage(t.Context(), "ann", from)
		if err != nil || len(items) == 0 {
			t.Fatal(len(items), err)
		}
		if all = append(all, items...); next.String() == "" {
			break
		}
		at = next.String()
	}
	if got := kinds(all); got != "map[events:260 memory:1 run:2 session:2 spending:5]" || pages != 2 {
		t.Errorf("%s on %d pages", got, pages+1)
	}
	for _, item := range all {
		if strings.Contains(string(item.Data), "bob") {
			t.Errorf("%s", item.Data)
		}
	}
	for _, text := range []string{
		"x", "session", "session~~~", "none~0~0~", "session~a~0~", "session~0~99999999999~", "session~0~0~=", "memory~0~0~eA",
		"session~0~0~AA", "memory~0~0~dXJuOnV1aWQ6NmIwZGNiMGUtM2YxYy00YTBlLTlmMGUtMGE0ZDBjMWY3YTEy",
	} {
		if _, ok := store.ParseUserPlace(text); ok {
			t.Errorf("%q is a place", text)
		}
	}
	for _, text := range []string{"memory~0~0~", "events~0~-1~", "session~-1~-1~eA"} {
		if from, ok := store.ParseUserPlace(text); !ok {
			t.Errorf("%q is no place", text)
		} else if _, _, err := db.UserPage(t.Context(), "ann", from); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}
