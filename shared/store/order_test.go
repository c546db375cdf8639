package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// A repeated request and the deletion of a session lock the session first and then the run. The statement that ends a
// run must not lock them in the other order, or the two could wait for each other.
func TestTheEndOfARunLocksTheSessionFirst(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	r := begin(t, db, "ann", "s", 0)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "SELECT FROM keyway.sessions FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); finish(t, db, r) }()
	for waiting := false; !waiting; {
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks
			WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))`).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tx.Exec(ctx, "SELECT FROM keyway.runs FOR UPDATE NOWAIT"); err != nil {
		t.Errorf("the run is locked while its end waits for the session: %v", err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	<-ended
	if got, err := db.Run(ctx, ann, store.RunQuery{RunID: r.RunID.String()}); err != nil || got.Status != "COMPLETED" {
		t.Errorf("%+v %v", got, err)
	}
}

// Two requests may delete the same sessions in different orders, while their runs end and their leases are renewed.
func TestStatementsAboutManyRunsDoNotDeadlock(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	const sessions, runs, rounds = 4, 10, 5
	for range rounds {
		var ids []string
		var started []store.Run
		for i := range sessions {
			ids = append(ids, uuid.NewString())
			for range runs {
				started = append(started, begin(t, db, "ann", ids[i], 0))
			}
		}
		var legs []store.Leg
		var events []store.Events
		for _, r := range started {
			legs = append(legs, leg(r))
			events = append(events, store.Events{RunID: r.RunID, Attempt: 1, Count: 1, Frames: "f\n\n"})
		}
		backwards := slices.Clone(ids)
		slices.Reverse(backwards)
		var wg sync.WaitGroup
		do := func(what string, statement func() error) {
			wg.Go(func() {
				if err := statement(); err != nil && !errors.Is(err, fault.Conflict) {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		for _, list := range [][]string{ids, backwards} {
			do("delete", func() error { _, err := db.DeleteSessions(t.Context(), ann, list, ""); return err })
		}
		for _, r := range started[:len(started)/2] {
			r.Status, r.Metrics = "COMPLETED", json.RawMessage("{}")
			do("finish", func() error {
				_, err := db.FinishRun(t.Context(), leg(r), r, nil, store.Usage{ModelID: "m", Total: 1}, day)
				return err
			})
		}
		for range 4 {
			do("pulse", func() error { _, err := db.Pulse(t.Context(), legs, true); return err })
			do("events", func() error { _, err := db.AddEvents(t.Context(), events); return err })
		}
		wg.Wait()
	}
	db.Close() // The connections report their deadlocks at their end. A deadlock is repeated, so no call returned one.
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for others := 1; others > 0; {
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND pid <> pg_backend_pid() AND backend_type = 'client backend'`).Scan(&others); err != nil {
			t.Fatal(err)
		}
	}
	var deadlocks, left int
	if err := conn.QueryRow(t.Context(), `SELECT deadlocks, (SELECT count(*) FROM keyway.runs)
		FROM pg_stat_database WHERE datname = current_database()`).Scan(&deadlocks, &left); err != nil {
		t.Fatal(err)
	}
	if deadlocks > 0 || left > 0 {
		t.Errorf("%d deadlocks; %d runs are left", deadlocks, left)
	}
}
