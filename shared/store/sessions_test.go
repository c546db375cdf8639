package store_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
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

// create creates a session without a run.
func create(t *testing.T, db *store.DB, s store.Session) store.Session {
	t.Helper()
	if s.SessionType == "" {
		s.SessionType = "agent"
	}
	s.CreatedAt, s.UpdatedAt = day, day
	if err := db.CreateSession(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestACreatedSessionIsReadUnchanged(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, want := range []store.Session{
		{Owner: "ann", SessionID: "bare"},
		{Owner: "ann", SessionID: "team", SessionType: "team", TeamID: new("t"), Name: new(""), State: json.RawMessage(`{}`)},
		{Owner: "ann", SessionID: "full", AgentID: new("a"), Name: new("n"), State: json.RawMessage(`{"a": 1}`),
			Metadata: json.RawMessage(`{"b": null}`)},
		{Owner: "", SessionID: "without an owner", SessionType: "workflow", WorkflowID: new("w")},
	} {
		want = create(t, db, want)
		got := session(t, db, admin, want.SessionID)
		got.CreatedAt, got.UpdatedAt = got.CreatedAt.UTC(), got.UpdatedAt.UTC()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestASessionIsCreatedOnceForEachOwner(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	var created, conflicts atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			switch err := db.CreateSession(t.Context(), store.Session{Owner: "ann", SessionID: "s", SessionType: "agent",
				CreatedAt: day}); {
			case err == nil:
				created.Add(1)
			case errors.Is(err, fault.Conflict):
				conflicts.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if created.Load() != 1 || conflicts.Load() != 7 {
		t.Errorf("%d created, %d conflicts", created.Load(), conflicts.Load())
	}
	create(t, db, store.Session{Owner: "bob", SessionID: "s"})
}

func TestAChangeKeepsTheOtherValues(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := create(t, db, store.Session{Owner: "ann", SessionID: "s", Name: new("n"), State: json.RawMessage(`{"a": 1}`),
		Metadata: json.RawMessage(`{"b": 1}`)})
	create(t, db, store.Session{Owner: "bob", SessionID: "s", Name: new("bob's")})
	change := func(c store.SessionChange, now time.Time) store.Session {
		t.Helper()
		got, err := db.ChangeSession(t.Context(), s, c, now)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := change(store.SessionChange{Name: new("")}, day.Add(time.Minute))
	if *got.Name != "" || string(got.State) != `{"a": 1}` || !got.UpdatedAt.Equal(day.Add(time.Minute)) ||
		!got.CreatedAt.Equal(day) {
		t.Errorf("%+v", got)
	}
	got = change(store.SessionChange{State: json.RawMessage(`{"c":2}`), Summary: json.RawMessage(`{}`)}, day)
	if *got.Name != "" || string(got.State) != `{"c": 2}` || string(got.Metadata) != `{"b": 1}` ||
		string(got.Summary) != `{}` || !got.UpdatedAt.Equal(day.Add(time.Minute)) {
		t.Errorf("%+v", got)
	}
	if got = change(store.SessionChange{}, day.Add(time.Hour)); string(got.State) != `{"c": 2}` {
		t.Errorf("%+v", got)
	}
	if other := session(t, db, bob, "s"); *other.Name != "bob's" || other.State != nil {
		t.Errorf("bob's session changed to %+v", other)
	}
	if _, err := db.DeleteSessions(t.Context(), ann, []string{"s"}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ChangeSession(t.Context(), s, store.SessionChange{Name: new("x")}, day); !errors.Is(err,
		fault.NotFound) {
		t.Errorf("a deleted session: %v", err)
	}
}

func TestSeveralSessionsAreDeletedTogetherOrNotAtAll(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, s := range []store.Session{{Owner: "ann", SessionID: "one"}, {Owner: "ann", SessionID: "both"},
		{Owner: "bob", SessionID: "both"}, {Owner: "bob", SessionID: "two"}} {
		create(t, db, s)
	}
	left := func() string {
		page, _, err := db.Sessions(t.Context(), admin, store.SessionQuery{SortBy: "session_id", Ascending: true, Limit: 99,
			Page: 1})
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, s := range page {
			ids = append(ids, s.Owner+"/"+s.SessionID)
		}
		slices.Sort(ids)
		return strings.Join(ids, " ")
	}
	for _, row := range []struct {
		viewer store.Viewer
		ids    []string
		owner  string
		left   string
		kind   error
	}{
		{store.Viewer{}, []string{"one", "both", "two"}, "", "ann/both ann/one bob/both bob/two", nil},
		{admin, []string{"one", "both"}, "", "ann/both ann/one bob/both bob/two", fault.Conflict},
		{ann, []string{"two", "nope", "\x00", "\xff", "", strings.Repeat("x", 300)}, "bob",
			"ann/both ann/one bob/both bob/two", nil},
		{admin, nil, "", "ann/both ann/one bob/both bob/two", nil},
		{admin, []string{"both", "both", "one"}, "ann", "bob/both bob/two", nil},
		{bob, []string{"both", "two"}, "", "", nil},
	} {
		_, err := db.DeleteSessions(t.Context(), row.viewer, row.ids, row.owner)
		if row.kind == nil && err != nil || row.kind != nil && !errors.Is(err, row.kind) {
			t.Errorf("%+v deletes %q: %v", row.viewer, row.ids, err)
		}
		if got := left(); got != row.left {
			t.Errorf("%+v deletes %q of %q: %s are left, want %s", row.viewer, row.ids, row.owner, got, row.left)
		}
	}
}

func TestDeletingASessionDeletesItsRunsAndEvents(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	r := begin(t, db, "ann", "s", 0)
	one := store.Events{RunID: r.RunID, Attempt: 1, Count: 1, Frames: "a\n\n"}
	if _, err := db.AddEvents(t.Context(), []store.Events{one}); err != nil {
		t.Fatal(err)
	}
	finish(t, db, r)
	if _, err := db.DeleteSessions(t.Context(), ann, []string{"s"}, ""); err != nil {
		t.Fatal(err)
	}
	sql(t, url, `DO $$ BEGIN ASSERT (SELECT count(*) FROM keyway.runs) + (SELECT count(*) FROM keyway.run_events) +
		(SELECT count(*) FROM keyway.session_usage) = 0; END $$`)
}

func TestTheStateOfARunIsMergedIntoTheSession(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	create(t, db, store.Session{Owner: "ann", SessionID: "s", State: json.RawMessage(`{"a":1,"b":{"x":1}}`)})
	r := store.Run{Status: "RUNNING", RunID: uuid.New(), Owner: "ann", SessionID: "s", AgentID: "a", Input: "hi",
		CreatedAt: day, SessionState: json.RawMessage(`{"b":2,"c":3}`)}
	if got, err := db.BeginRun(t.Context(), r, store.BeginOptions{}); err != nil ||
		string(got.State) != `{"a": 1, "b": 2, "c": 3}` {
		t.Errorf("%+v %v", got, err)
	}
	if s := session(t, db, ann, "s"); string(s.State) != `{"a": 1, "b": 2, "c": 3}` || *s.Name != "hi" ||
		*s.AgentID != "a" {
		t.Errorf("%+v", s)
	}
}

func TestAValueTooLargeForPostgreSQLIsTooLarge(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	// This is PostgreSQL's error for a state of more than 256 MB.
	sql(t, url, `CREATE FUNCTION keyway.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			RAISE EXCEPTION 'total size of jsonb object elements exceeds the maximum'
				USING ERRCODE = 'program_limit_exceeded'; END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON keyway.sessions FOR EACH ROW EXECUTE FUNCTION keyway.refuse()`)
	err := db.CreateSession(t.Context(), store.Session{Owner: "ann", SessionID: "s", SessionType: "agent", CreatedAt: day})
	if !errors.Is(err, fault.TooLarge) || strings.Contains(fault.Detail(err), "jsonb") {
		t.Errorf("%v, shown as %q", err, fault.Detail(err))
	}
}

// A list of a million sessions would cost a hundred times as much as its page if each request counted all of them.
func TestALargeTotalThatTakesLongToCountIsKeptForAWhile(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	begin := func(owner string) {
		t.Helper()
		r := newRun("RUNNING")
		r.Owner, r.SessionID = owner, uuid.NewString()
		if err := start(t.Context(), db, r, store.Budget{}); err != nil {
			t.Fatal(err)
		}
	}
	totals := func() (list [3]int) {
		t.Helper()
		for i, v := range []store.Viewer{{Owner: "ann"}, {Owner: "bob"}, {All: true}} {
			page, total, err := db.Sessions(t.Context(), v, store.SessionQuery{Limit: 50, Page: 1})
			if err != nil || len(page) < total {
				t.Fatalf("%d of %d sessions: %v", len(page), total, err)
			}
			list[i] = total
		}
		return list
	}
	begin("ann")
	if got := totals(); got != [3]int{1, 0, 1} {
		t.Fatalf("at first %v", got)
	}
	store.KeepTotals(db)
	if got := totals(); got != [3]int{1, 0, 1} {
		t.Fatalf("counted %v", got)
	}
	store.RenewTotals(db)
	begin("bob")
	if got := totals(); got != [3]int{1, 1, 1} { // A total of nothing is not kept.
		t.Errorf("a total was counted again: %v", got)
	}
	store.ForgetTotals(db)
	if got := totals(); got != [3]int{1, 1, 2} {
		t.Errorf("later %v", got)
	}
}
