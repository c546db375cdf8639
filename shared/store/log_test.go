package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// An update that changes an indexed column writes an entry to each index of the table. PostgreSQL counts the others.
func TestTheEndOfARunWritesNoIndexOfItsSession(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url, MaxConns: 1})
	const runs = 20
	for range runs {
		r := newRun("RUNNING")
		if err := start(t.Context(), db, r, store.Budget{}); err != nil {
			t.Fatal(err)
		}
		r.Status, r.Metrics = "COMPLETED", []byte("{}")
		if _, err := db.FinishRun(t.Context(), leg(r), r, nil, store.Usage{}, day.Add(10*time.Second)); err != nil {
			t.Fatal(err)
		}
		if s := session(t, db, admin, r.SessionID); !s.UpdatedAt.Equal(day.Add(10 * time.Second)) {
			t.Errorf("the session was last updated at %s", s.UpdatedAt)
		}
	}
	db.Close() // A connection reports its counters when it is closed.
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	var updates, without int
	for updates < runs {
		err := conn.QueryRow(t.Context(), `SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
			WHERE relname = 'sessions'`).Scan(&updates, &without)
		if err != nil {
			t.Fatal(err)
		}
	}
	if without != runs || updates != runs {
		t.Errorf("%d of %d updates wrote no index", without, updates)
	}
}

// The index has the minute only.
func TestSessionsAreListedByTheTimeOfTheirLastChange(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	var want []string
	for i, after := range []time.Duration{0, time.Microsecond, time.Second, time.Minute, 61 * time.Second, time.Hour} {
		s := store.Session{
			Owner: "ann", SessionID: fmt.Sprint(9 - i), SessionType: "agent", CreatedAt: day.Add(after),
		}
		if err := db.CreateSession(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		want = append(want, s.SessionID)
	}
	for _, ascending := range []bool{true, false} {
		for _, v := range []store.Viewer{admin, ann} {
			var got []string
			for page := 1; page <= 3; page++ {
				part, total, err := db.Sessions(t.Context(), v, store.SessionQuery{
					SortBy: "updated_at", Ascending: ascending, Limit: 2, Page: page,
				})
				if err != nil || total != len(want) {
					t.Fatal(total, err)
				}
				for _, s := range part {
					got = append(got, s.SessionID)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		}
		slices.Reverse(want)
	}
}
