package local_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/queue/local"
	"github.com/keyway-agents/keyway/shared/queue/queuetest"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

func TestPendingRunsAreAQueue(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, func(t *testing.T, _ time.Duration) queuetest.Fixture { // the clock advances only in WaitUntilVisible
		t.Helper()
		url := storetest.URL(t)
		db := storetest.Open(t, store.Options{URL: url})
		return queuetest.Fixture{
			Queue: local.New(db), Other: local.New(db),
			NewID:            func() uuid.UUID { return pending(t, db) },
			WaitUntilVisible: func(context.Context) { pass(t, url, 31*time.Second) },
		}
	})
}

// pass makes all deadlines earlier, as if the time had passed.
func pass(t *testing.T, url string, d time.Duration) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	const sql = "UPDATE keyway.runs SET lease_until = lease_until - make_interval(secs => $1)"
	if _, err := conn.Exec(t.Context(), sql, d.Seconds()); err != nil {
		t.Fatal(err)
	}
}

// pending stores a pending run that is not enqueued yet.
func pending(t *testing.T, db *store.DB) uuid.UUID {
	t.Helper()
	r := store.Run{RunID: uuid.New(), Owner: "ann", SessionID: "s", AgentID: "a", Status: "PENDING", Background: true,
		CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if _, err := db.BeginRun(t.Context(), r, store.BeginOptions{}); err != nil {
		t.Fatal(err)
	}
	return r.RunID
}

// A server may crash after it stored the row and before it enqueued the run.
func TestARunThatWasNeverEnqueuedIsReceivedAfterItsLease(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	id := pending(t, db)
	pass(t, url, store.LeaseDuration+time.Second)
	if got, err := local.New(db).Receive(t.Context(), 5); err != nil || len(got) != 1 || got[0].RunID != id {
		t.Errorf("%+v %v", got, err)
	}
}

func TestARunningRunIsNotReceived(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	q, id := local.New(db), pending(t, db)
	if _, claimed, err := db.ClaimRun(t.Context(), id, uuid.New()); err != nil || !claimed {
		t.Fatalf("claimed: %t, %v", claimed, err)
	}
	if err := q.Enqueue(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := db.ReceiveRuns(t.Context(), 5, time.Hour); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
}
