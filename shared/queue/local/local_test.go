package local_test

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

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
		db := storetest.New(t)
		var seconds atomic.Int64
		now := func() time.Time {
			return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(seconds.Load()) * time.Second)
		}
		return queuetest.Fixture{
			Queue: local.New(db, now), Other: local.New(db, now),
			NewID:            func() uuid.UUID { return pending(t, db, now()) },
			WaitUntilVisible: func(context.Context) { seconds.Add(31) },
		}
	})
}

// pending stores a pending run that is not enqueued yet.
func pending(t *testing.T, db *store.DB, now time.Time) uuid.UUID {
	t.Helper()
	r := store.Run{RunID: uuid.New(), Owner: "ann", SessionID: "s", AgentID: "a", Status: "PENDING", Background: true,
		CreatedAt: now}
	if _, err := db.BeginRun(t.Context(), r, store.BeginOptions{}); err != nil {
		t.Fatal(err)
	}
	return r.RunID
}

// A server may crash after it stored the row and before it enqueued the run.
func TestARunThatWasNeverEnqueuedIsReceivedAfterItsLease(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	id := pending(t, db, now)
	q := local.New(db, func() time.Time { return now.Add(store.LeaseDuration) })
	if got, err := q.Receive(t.Context(), 5); err != nil || len(got) != 1 || got[0].RunID != id {
		t.Errorf("%+v %v", got, err)
	}
}

func TestARunningRunIsNotReceived(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	q := local.New(db, func() time.Time { return now })
	id := pending(t, db, now)
	if _, claimed, err := db.ClaimRun(t.Context(), id, now); err != nil || !claimed {
		t.Fatalf("claimed: %t, %v", claimed, err)
	}
	if err := q.Enqueue(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := db.ReceiveRuns(t.Context(), 5, now.Add(time.Hour), now.Add(2*time.Hour)); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
}
