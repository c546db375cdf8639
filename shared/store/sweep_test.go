package store_test

import (
	"sync"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

const month = 30 * 24 * time.Hour

// streamed ends a run with an event.
func streamed(t *testing.T, db *store.DB, owner, session string) {
	t.Helper()
	r := begin(t, db, owner, session, 0)
	if err := end(t, db, r, "COMPLETED", store.Events{RunID: r.RunID, Attempt: 1, Count: 1, Frames: "f\n\n"}); err != nil {
		t.Fatal(err)
	}
}

// age sets the times of everything, and marks the ended runs as streamed: the runs of session "old" ended 40 days ago,
// all others an hour ago.
func age(t *testing.T, url string) {
	t.Helper()
	sql(t, url, `UPDATE keyway.runs SET streamed = EXISTS (SELECT FROM keyway.run_events e WHERE e.run_id = runs.run_id),
			finished_at = CASE WHEN finished_at IS NULL THEN NULL
				ELSE now() - CASE WHEN session_id = 'old' THEN interval '40 days' ELSE interval '1 hour' END END;
		UPDATE keyway.sessions SET updated_at = now() -
			CASE WHEN session_id LIKE 'old%' THEN interval '40 days' ELSE interval '1 hour' END`)
}

func sweep(t *testing.T, db *store.DB, keep store.Retention, want store.Swept) {
	t.Helper()
	if got, err := db.Sweepable(t.Context(), keep); err != nil || got != want {
		t.Errorf("before: %+v %v, want %+v", got, err, want)
	}
	if got, err := db.Sweep(t.Context(), keep); err != nil || got != want {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
	if got, err := db.Sweep(t.Context(), keep); err != nil || got != (store.Swept{}) {
		t.Errorf("again: %+v %v", got, err)
	}
}

func TestASweepDeletesWhatIsOldAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		keep store.Retention
		want store.Swept
		left store.UserCounts
		// events are the runs that still have events.
		events int
	}{
		"nothing is configured": {left: store.UserCounts{Sessions: 3, Runs: 4, Live: 1}, events: 2},
		"events": {keep: store.Retention{Events: month}, want: store.Swept{Events: 1},
			left: store.UserCounts{Sessions: 3, Runs: 4, Live: 1}, events: 1},
		"runs, whose session stays": {keep: store.Retention{Runs: month}, want: store.Swept{Runs: 1},
			left: store.UserCounts{Sessions: 3, Runs: 3, Live: 1}, events: 1},
		"sessions": {keep: store.Retention{Sessions: month}, want: store.Swept{Sessions: 1},
			left: store.UserCounts{Sessions: 2, Runs: 3, Live: 1}, events: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := storetest.URL(t)
			db := storetest.Open(t, store.Options{URL: url})
			streamed(t, db, "ann", "old")
			streamed(t, db, "ann", "new")
			// The session is old, but one run waits for a person and one is in progress.
			if err := end(t, db, begin(t, db, "ann", "old, with runs", 0), "PAUSED"); err != nil {
				t.Fatal(err)
			}
			begin(t, db, "ann", "old, with runs", 1)
			age(t, url)
			sweep(t, db, test.keep, test.want)
			if got, err := db.CountUser(t.Context(), "ann"); err != nil || got != test.left {
				t.Errorf("%+v is left, want %+v, %v", got, test.left, err)
			}
			events := 0
			if err := db.ExportUser(t.Context(), "ann", func(i store.UserItem) error {
				if i.Kind == "events" {
					events++
				}
				return nil
			}); err != nil || events != test.events {
				t.Errorf("%d runs have events, want %d, %v", events, test.events, err)
			}
		})
	}
}

// Counts of limits are deleted without a setting, and are not among what was swept.
func TestASweepDeletesOldCountsOfLimits(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	// 250 old ones are more than a batch. Two processes sweep at the same time.
	sql(t, url, `INSERT INTO keyway.spending (whose, key, day)
			SELECT 'caller', n::text, (now() AT TIME ZONE 'UTC')::date - 40 FROM generate_series(1, 250) n;
		INSERT INTO keyway.spending (whose, key, day) SELECT 'caller', 'ann', (now() AT TIME ZONE 'UTC')::date - n
			FROM unnest(ARRAY[0, 1, 31, 33, 34]) n`)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if got, err := db.Sweep(t.Context(), store.Retention{}); err != nil || got != (store.Swept{}) {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	all.Wait()
	// A sweep skips what another one holds, so the last batch may need one more.
	if _, err := db.Sweep(t.Context(), store.Retention{}); err != nil {
		t.Fatal(err)
	}
	if got := text(t, url, `SELECT count(*)::text || ' of ' || string_agg(DISTINCT key, ',') FROM keyway.spending`); got !=
		"3 of ann" {
		t.Error(got)
	}
}

func TestSeveralProcessesSweepAtTheSameTime(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	queueRuns(t, url, 250, "ann")
	sql(t, url, `UPDATE keyway.runs SET status = 'COMPLETED', lease_until = NULL,
		finished_at = now() - interval '40 days'`)
	queueRuns(t, url, 1, "bob")
	var mu sync.Mutex
	var all sync.WaitGroup
	runs := int64(0)
	for range 3 {
		all.Go(func() {
			got, err := db.Sweep(t.Context(), store.Retention{Runs: month, Events: month})
			mu.Lock()
			defer mu.Unlock()
			if runs += got.Runs; err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	// A sweep skips what another one holds, so the last batch may need one more.
	rest, err := db.Sweep(t.Context(), store.Retention{Runs: month})
	if runs+rest.Runs != 250 || err != nil {
		t.Errorf("%d runs are deleted, want 250, %v", runs+rest.Runs, err)
	}
	if got, err := db.CountUser(t.Context(), "bob"); err != nil || got.Runs != 1 {
		t.Errorf("%+v %v", got, err)
	}
}
