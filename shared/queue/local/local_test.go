package local_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/queue"
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
func pending(t *testing.T, db *store.DB) uuid.UUID { t.Helper(); return pendingOf(t, db, "ann") }

func pendingOf(t *testing.T, db *store.DB, owner string) uuid.UUID {
	t.Helper()
	r := store.Run{RunID: uuid.New(), Owner: owner, SessionID: "s", AgentID: "a", Status: "PENDING", Background: true,
		CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if _, err := db.BeginRun(t.Context(), r, store.BeginOptions{Budget: store.Budget{Spender: owner}}); err != nil {
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
	if _, claimed, err := db.ClaimRun(t.Context(), id, uuid.New(), store.Places{}); err != nil || !claimed {
		t.Fatalf("claimed: %t, %v", claimed, err)
	}
	if err := q.Enqueue(t.Context(), id, "ann", 0); err != nil {
		t.Fatal(err)
	}
	if got, _, err := db.ReceiveRuns(t.Context(), 5, time.Hour, ""); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
}

// Two servers execute at most 32 runs each. One caller has queued 120 long runs before another one queues a run.
func TestTheNextFreeProcessExecutesTheRunOfAnotherCaller(t *testing.T) {
	t.Parallel()
	const servers, places = 2, 32
	db := storetest.New(t)
	var order sync.Mutex
	var began []string
	release, ended := make(chan struct{}), make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	claim := func(ctx context.Context, id uuid.UUID) (func(), bool, error) {
		leg := uuid.New()
		r, claimed, err := db.ClaimRun(ctx, id, leg, store.Places{})
		if claimed {
			order.Lock()
			began = append(began, r.Spender)
			order.Unlock()
		}
		return func() {
			select {
			case <-release:
			case <-ctx.Done():
				return
			}
			r.Status, r.Metrics = "COMPLETED", json.RawMessage("{}")
			l := store.Leg{RunID: id, Attempt: r.Attempt, ID: leg}
			if _, err := db.FinishRun(ctx, l, r, nil, store.Usage{}, time.Now()); err != nil {
				t.Error(err)
			}
			ended <- struct{}{}
		}, claimed, err
	}
	await := func(n int) (owners []string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
			order.Lock()
			owners = slices.Clone(began)
			order.Unlock()
			if len(owners) >= n {
				return owners
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("%d runs were executed, want %d", len(owners), n)
		return nil
	}
	entry := local.New(db)
	send := func(owner string, n int) {
		for range n {
			if err := entry.Enqueue(t.Context(), pendingOf(t, db, owner), owner, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	send("low", 120)
	for range servers {
		working.Go(func() { queue.Work(ctx, local.New(db), slog.New(slog.DiscardHandler), places, claim) })
	}
	await(servers * places)
	send("bob", 1)
	release <- struct{}{}
	<-ended
	got := await(servers*places + 1)
	if slices.Contains(got[:servers*places], "bob") || got[servers*places] != "bob" {
		t.Errorf("after 64 of 120 runs, the process that is free next executes a run of %q", got[servers*places])
	}
	stop()
	working.Wait()
}
