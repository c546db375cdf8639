package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

func TestMain(m *testing.M) {
	// A check of a machine is 30 actions, each with several statements. rapid's 100 checks would take most of the time of
	// this package; the flag and the variable still ask for more.
	if os.Getenv("RAPID_CHECKS") == "" {
		if err := flag.Set("rapid.checks", "40"); err != nil {
			panic(err)
		}
	}
	os.Exit(storetest.Main(m))
}

var (
	day   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ann   = store.Viewer{Owner: "ann"}
	bob   = store.Viewer{Owner: "bob"}
	admin = store.Viewer{All: true}
)

// begin stores a run that starts at minute n.
func begin(t *testing.T, db *store.DB, owner, session string, n int) store.Run {
	t.Helper()
	r := store.Run{
		Status: "RUNNING", Attempt: 1,
		RunID: uuid.New(), Owner: owner, SessionID: session, AgentID: "a", AgentName: "A", ModelID: "m", ModelProvider: "P",
		Input: fmt.Sprintf("message %d", n), CreatedAt: day.Add(time.Duration(n) * time.Minute),
	}
	if _, err := db.BeginRun(t.Context(), r, store.BeginOptions{Leg: &r.RunID}); err != nil {
		t.Fatal(err)
	}
	return r
}

// leg is the leg with which begin starts a run. Its id is the run's.
func leg(r store.Run) store.Leg { return store.Leg{RunID: r.RunID, Attempt: r.Attempt, ID: r.RunID} }

// end ends a run that begin has started, or pauses it.
func end(t *testing.T, db *store.DB, r store.Run, status string, events ...store.Events) error {
	t.Helper()
	r.Status, r.Metrics = status, json.RawMessage("{}")
	cancel, err := db.FinishRun(t.Context(), leg(r), r, events, store.Usage{ModelID: "m", Total: 1}, day)
	if cancel {
		t.Errorf("the run is to be cancelled")
	}
	return err
}

// finish ends a run as COMPLETED with 10 + 5 tokens.
func finish(t *testing.T, db *store.DB, r store.Run) {
	t.Helper()
	r.Status, r.Content = "COMPLETED", new("answer to "+r.Input)
	r.Messages = json.RawMessage(`[{"role":"user","content":"` + r.Input + `"}]`)
	r.Metrics = json.RawMessage(`{"total_tokens":15}`)
	cancel, err := db.FinishRun(t.Context(), leg(r), r, nil, store.Usage{ModelID: "m", ModelFamily: "F", Input: 10,
		Output: 5, Total: 15}, r.CreatedAt.Add(time.Second))
	if err != nil || cancel {
		t.Fatal(cancel, err)
	}
}

func session(t *testing.T, db *store.DB, v store.Viewer, id string) store.Session {
	t.Helper()
	s, err := db.Session(t.Context(), v, id, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARunIsStoredBeforeItEnds(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	got, err := db.Run(t.Context(), ann, store.RunQuery{RunID: r.RunID.String()})
	if err != nil || got.Status != "RUNNING" || got.Input != "message 0" || got.Content != nil {
		t.Fatalf("%+v %v", got, err)
	}
	s := session(t, db, ann, "s")
	if s.Name == nil || *s.Name != "message 0" || *s.AgentID != "a" || !s.CreatedAt.Equal(day) || s.Usage != nil {
		t.Errorf("the session is %+v", s)
	}
	finish(t, db, r)
	got, err = db.Run(t.Context(), ann, store.RunQuery{RunID: r.RunID.String(), SessionID: "s", AgentID: "a"})
	if err != nil || got.Status != "COMPLETED" || *got.Content != "answer to message 0" {
		t.Errorf("%+v %v", got, err)
	}
}

func TestTheFirstMessageNamesTheSession(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	finish(t, db, begin(t, db, "ann", "s", 1))
	finish(t, db, begin(t, db, "ann", "s", 2))
	s := session(t, db, ann, "s")
	if s.Name == nil || *s.Name != "message 1" || !s.UpdatedAt.Equal(day.Add(2*time.Minute+time.Second)) {
		t.Errorf("%+v", s)
	}
}

func TestTheUsageOfConcurrentRunsIsCounted(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	const n = 32
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { finish(t, db, begin(t, db, "ann", "s", i)) })
	}
	wg.Wait()
	runs, err := db.Runs(t.Context(), ann, store.RunQuery{SessionID: "s", Statuses: []string{"COMPLETED"}})
	if err != nil || len(runs) != n {
		t.Fatalf("%d runs, %v", len(runs), err)
	}
	want := store.Usages{{ModelID: "m", Family: "F", Input: 10 * n, Output: 5 * n, Total: 15 * n}}
	if diff := cmp.Diff(want, session(t, db, ann, "s").Usage); diff != "" {
		t.Error(diff)
	}
}

func TestARunEndsOnce(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	finish(t, db, r)
	if err := end(t, db, r, "ERROR"); !errors.Is(err, fault.Conflict) {
		t.Errorf("a second end: %v", err)
	}
	finish(t, db, r) // The same end again, because its answer was lost.
	if got := session(t, db, ann, "s").Usage[0].Total; got != 15 {
		t.Errorf("the second end was counted: %d", got)
	}
}

func TestDeletingTheSessionOfARunningRunIsAConflict(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	if _, err := db.DeleteSessions(t.Context(), ann, []string{"s"}, ""); err != nil {
		t.Fatal(err)
	}
	if err := end(t, db, r, "COMPLETED"); !errors.Is(err, fault.Conflict) {
		t.Errorf("%v", err)
	}
}

func TestDataOfOthersLooksMissing(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	finish(t, db, r)
	for name, v := range map[string]store.Viewer{"bob": bob, "the zero viewer": {}} {
		_, noSession := db.Session(t.Context(), v, "nope", "")
		_, hers := db.Session(t.Context(), v, "s", "")
		if !errors.Is(hers, fault.NotFound) || !errors.Is(noSession, fault.NotFound) {
			t.Errorf("%s: her session %v, none %v", name, hers, noSession)
		}
		if _, err := db.Run(t.Context(), v, store.RunQuery{RunID: r.RunID.String()}); !errors.Is(err, fault.NotFound) {
			t.Errorf("%s reads her run: %v", name, err)
		}
		if page, n, err := db.Sessions(t.Context(), v, store.SessionQuery{Limit: 9, Page: 1, Owner: "ann"}); err != nil ||
			n != 0 || len(page) != 0 {
			t.Errorf("%s lists %d %v %v", name, n, page, err)
		}
		if found, err := db.RequestCancel(t.Context(), v, r.RunID); err != nil || found {
			t.Errorf("%s cancels her run: %t %v", name, found, err)
		}
		if _, err := db.DeleteSessions(t.Context(), v, []string{"s"}, ""); err != nil {
			t.Errorf("%s deletes: %v", name, err)
		}
	}
	if s := session(t, db, ann, "s"); s.Name == nil || *s.Name != "message 0" {
		t.Errorf("her session is %+v", s)
	}
	session(t, db, admin, "s")
}

func TestSeveralOwnersCanHaveTheSameSessionID(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	finish(t, db, begin(t, db, "ann", "s", 1))
	finish(t, db, begin(t, db, "bob", "s", 2))
	if got := *session(t, db, ann, "s").Name + ", " + *session(t, db, bob, "s").Name; got != "message 1, message 2" {
		t.Errorf("they see %s", got)
	}
	if _, err := db.Session(t.Context(), admin, "s", ""); !errors.Is(err, fault.Conflict) {
		t.Errorf("an administrator must choose the owner: %v", err)
	}
	if s, err := db.Session(t.Context(), admin, "s", "bob"); err != nil || s.Owner != "bob" {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := db.DeleteSessions(t.Context(), bob, []string{"s"}, ""); err != nil {
		t.Fatal(err)
	}
	session(t, db, ann, "s")
}

func TestSessionsArePagedSortedAndFiltered(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for n := range 5 {
		finish(t, db, begin(t, db, "ann", fmt.Sprintf("s%d", n), n))
	}
	finish(t, db, begin(t, db, "ann", "s0", 9)) // Now s0 has the latest change.
	for name, row := range map[string]struct {
		q     store.SessionQuery
		want  string
		total int
	}{
		"newest first":             {store.SessionQuery{Limit: 2, Page: 1}, "s4 s3", 5},
		"the next page":            {store.SessionQuery{Limit: 2, Page: 2}, "s2 s1", 5},
		"the last page":            {store.SessionQuery{Limit: 2, Page: 3}, "s0", 5},
		"past the end":             {store.SessionQuery{Limit: 2, Page: 99}, "", 5},
		"far past the end":         {store.SessionQuery{Limit: 1<<31 - 1, Page: 1<<31 - 1}, "", 5},
		"oldest first":             {store.SessionQuery{Limit: 9, Page: 1, Ascending: true}, "s0 s1 s2 s3 s4", 5},
		"by last change":           {store.SessionQuery{Limit: 2, Page: 1, SortBy: "updated_at"}, "s0 s4", 5},
		"an unknown sort key":      {store.SessionQuery{Limit: 1, Page: 1, SortBy: "name; DROP"}, "s4", 5},
		"part of a name, any case": {store.SessionQuery{Limit: 9, Page: 1, NameHas: "MESSAGE 3"}, "s3", 1},
		"wildcards are text":       {store.SessionQuery{Limit: 9, Page: 1, NameHas: "%"}, "", 0},
		"another agent":            {store.SessionQuery{Limit: 9, Page: 1, Component: "b"}, "", 0},
		"another type":             {store.SessionQuery{Limit: 9, Page: 1, Type: "team"}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			page, total, err := db.Sessions(t.Context(), ann, row.q)
			var ids []string
			for _, s := range page {
				ids = append(ids, s.SessionID)
			}
			if got := strings.Join(ids, " "); err != nil || got != row.want || total != row.total {
				t.Errorf("%q of %d, %v; want %q of %d", got, total, err, row.want, row.total)
			}
		})
	}
}

func TestHistoryIsOfTheLastCompletedRuns(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for n := range 6 {
		finish(t, db, begin(t, db, "ann", "s", n))
	}
	begin(t, db, "ann", "s", 7) // not completed
	finish(t, db, begin(t, db, "bob", "s", 8))
	finish(t, db, begin(t, db, "ann", "other", 9))
	got, err := db.History(t.Context(), "ann", "s", "a", 3)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, raw := range got {
		var m []struct{ Content string }
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, m[0].Content)
	}
	if diff := cmp.Diff([]string{"message 3", "message 4", "message 5"}, texts); diff != "" {
		t.Error(diff)
	}
	if other, err := db.History(t.Context(), "ann", "s", "b", 3); err != nil || len(other) > 0 {
		t.Errorf("another agent's history: %s %v", other, err)
	}
}

func TestThePulseReportsCancelledRuns(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	running, ended := begin(t, db, "ann", "s", 0), begin(t, db, "ann", "s", 1)
	finish(t, db, ended)
	for _, r := range []store.Run{running, ended} {
		if found, err := db.RequestCancel(t.Context(), ann, r.RunID); err != nil || !found {
			t.Fatalf("%t %v", found, err)
		}
	}
	for _, renew := range []bool{false, true} {
		want := []store.Pulse{{Leg: leg(running), Cancel: true, Renewed: renew}, {Leg: leg(ended)}}
		if diff := cmp.Diff(want, pulse(t, db, renew, leg(running), leg(ended))); diff != "" {
			t.Errorf("renew %t: %s", renew, diff)
		}
	}
}

func TestAnInvalidIDIsNotFound(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, id := range []string{"", "a\x00b", "\xff", strings.Repeat("x", 256)} {
		if _, err := db.Session(t.Context(), admin, id, ""); !errors.Is(err, fault.NotFound) {
			t.Errorf("session %q: %v", id, err)
		}
	}
	r := begin(t, db, "ann", "s", 0)
	for _, id := range []string{"nope", "\x00", strings.ToUpper(r.RunID.String()), "{" + r.RunID.String() + "}",
		"urn:uuid:" + r.RunID.String()} {
		if _, err := db.Run(t.Context(), ann, store.RunQuery{RunID: id}); !errors.Is(err, fault.NotFound) {
			t.Errorf("run %q: %v", id, err)
		}
	}
}

func TestDatabaseErrorsHaveAKindAndHideTheirText(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	sql(t, url, `CREATE FUNCTION keyway.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			RAISE EXCEPTION 'disk of db-7 is full'; END $$;
		CREATE TRIGGER refuse BEFORE UPDATE ON keyway.runs FOR EACH ROW EXECUTE FUNCTION keyway.refuse()`)
	r := begin(t, db, "ann", "s", 0)
	err := end(t, db, r, "COMPLETED")
	if !errors.Is(err, fault.Internal) || strings.Contains(fault.Detail(err), "db-7") ||
		!strings.Contains(err.Error(), "db-7") {
		t.Errorf("%v, shown as %q", err, fault.Detail(err))
	}
	if s := session(t, db, ann, "s"); s.Usage != nil {
		t.Errorf("a part of the end was stored: %+v", s)
	}
	sql(t, url, `DROP SCHEMA keyway CASCADE`)
	if err := db.Check(t.Context()); !errors.Is(err, fault.Unavailable) ||
		!strings.Contains(fault.Detail(err), "keyway migrate") {
		t.Errorf("no schema: %v", err)
	}
}

func TestAnUnreachableDatabaseIsUnavailable(t *testing.T) {
	t.Parallel()
	db, err := store.Open(store.Options{URL: "postgres://u:sesame@127.0.0.1:1/x?connect_timeout=2", Schema: "keyway"})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Check(t.Context())
	if !errors.Is(err, fault.Unavailable) || strings.Contains(err.Error(), "sesame") {
		t.Errorf("%v", err)
	}
	if _, h, _ := fault.Answer(err); h.Get("Retry-After") == "" {
		t.Error("the answer has no Retry-After")
	}
	if _, err := store.Open(store.Options{URL: "postgres://u:sesame@[bad", Schema: "keyway"}); !errors.Is(err,
		fault.Invalid) || strings.Contains(err.Error(), "sesame") {
		t.Errorf("a URL that can't be parsed: %v", err)
	}
}

func TestSchemasAreSeparate(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	migrate(t, url, "weird_2", "os-2")
	db := storetest.Open(t, store.Options{URL: url, Schema: "weird_2"})
	finish(t, db, begin(t, db, "ann", "s", 0))
	if err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}
	first := storetest.Open(t, store.Options{URL: url})
	if _, err := first.Session(t.Context(), admin, "s", ""); !errors.Is(err, fault.NotFound) {
		t.Errorf("the session of the other schema is visible: %v", err)
	}
}

// text returns the text that a query has as its only value.
func text(t *testing.T, url, query string) (out string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), query).Scan(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func sql(t *testing.T, url, text string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // It is also called when the test ends.
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, text); err != nil {
		t.Fatal(err)
	}
}
