package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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
