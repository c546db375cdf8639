package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// pass makes all leases older, as if the time had passed.
func pass(t *testing.T, url string, d time.Duration) {
	t.Helper()
	sql(t, url, fmt.Sprintf("UPDATE keyway.runs SET lease_until = lease_until - interval '%d seconds'", int(d.Seconds())))
}

// expiry is longer than a lease.
const expiry = store.LeaseDuration + time.Second

func requeue(t *testing.T, db *store.DB, want ...uuid.UUID) {
	t.Helper()
	orphans, err := db.RequeueExpired(t.Context())
	var got []uuid.UUID
	for _, o := range orphans {
		got = append(got, o.RunID)
	}
	if err != nil || !slices.Equal(want, got) {
		t.Errorf("the orphaned runs are %v, want %v, %v", got, want, err)
	}
}

// claim claims a run with a new leg.
func claim(t *testing.T, db *store.DB, id uuid.UUID) (store.Run, store.Leg) {
	t.Helper()
	l := store.Leg{RunID: id, ID: uuid.New()}
	r, claimed, err := db.ClaimRun(t.Context(), id, l.ID, store.Places{})
	if err != nil || !claimed || r.Status != "RUNNING" {
		t.Fatalf("%+v %t %v", r, claimed, err)
	}
	l.Attempt = r.Attempt
	return r, l
}

// pulse returns what a process learns about its legs, in their order.
func pulse(t *testing.T, db *store.DB, renew bool, legs ...store.Leg) []store.Pulse {
	t.Helper()
	list, err := db.Pulse(t.Context(), legs, renew)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(a, b store.Pulse) int { return slices.Index(legs, a.Leg) - slices.Index(legs, b.Leg) })
	return list
}

func TestRunsOfACrashedProcessBecomePending(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	crashed, alive := begin(t, db, "ann", "s", 0), begin(t, db, "ann", "s", 0)
	pass(t, url, 50*time.Second)
	requeue(t, db)
	if p := pulse(t, db, true, leg(alive)); !p[0].Renewed {
		t.Errorf("%+v", p)
	}
	pass(t, url, 20*time.Second)
	requeue(t, db, crashed.RunID)
	if got := status(t, db, crashed); got.Status != "PENDING" || got.Attempt != 1 || got.Losses != 1 {
		t.Errorf("%+v", got)
	}
	requeue(t, db) // It is in the queue now.
}

// The queue may lose a message.
func TestAPendingRunIsRequeuedAfterTenMinutes(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	r := begin(t, db, "ann", "s", 0)
	pass(t, url, expiry)
	requeue(t, db, r.RunID)
	pass(t, url, 9*time.Minute)
	requeue(t, db)
	pass(t, url, time.Minute)
	requeue(t, db, r.RunID)
}

func TestAPendingRunIsClaimedByOneProcess(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	r := begin(t, db, "ann", "s", 0)
	if _, claimed, err := db.ClaimRun(t.Context(), r.RunID, uuid.New(), store.Places{}); claimed || err != nil {
		t.Errorf("a run with a valid lease: %t %v", claimed, err)
	}
	pass(t, url, expiry)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			id := uuid.New()
			got, claimed, err := db.ClaimRun(t.Context(), r.RunID, id, store.Places{})
			if err != nil || claimed && (got.Attempt != 2 || got.Losses != 1 || got.Input != r.Input) {
				t.Errorf("%+v %v", got, err)
			}
			if !claimed {
				return
			}
			won.Add(1)
			again, claimed, err := db.ClaimRun(t.Context(), r.RunID, id, store.Places{}) // The first answer was lost.
			if diff := cmp.Diff(got, again); err != nil || !claimed || diff != "" {
				t.Errorf("the same claim again: %t %v %s", claimed, err, diff)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d processes claimed it", won.Load())
	}
	requeue(t, db) // It has a new lease.
}

// A leg that lost the run cannot renew its lease, store a checkpoint, end the run or add events.
func TestAnEarlierLegCanWriteNothing(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	r := begin(t, db, "ann", "s", 0)
	first := leg(r)
	r.Status, r.Metrics = "COMPLETED", json.RawMessage("{}")
	ends := func(l store.Leg) error {
		event := store.Events{RunID: r.RunID, Attempt: l.Attempt, First: 100, Count: 1, Frames: "end\n\n"}
		_, err := db.FinishRun(t.Context(), l, r, []store.Events{event}, store.Usage{ModelID: "m", Total: 1}, day)
		return err
	}
	lost := func(when string, want bool) {
		t.Helper()
		if p := pulse(t, db, true, first); p[0].Renewed || p[0].Lost != want {
			t.Errorf("%s: %+v", when, p)
		}
		checkpoint := store.Checkpoint{Data: json.RawMessage("{}"), Added: json.RawMessage("{}")}
		if _, err := db.Checkpoint(t.Context(), first, checkpoint); !errors.Is(err, fault.Conflict) {
			t.Errorf("%s, its checkpoint was stored: %v", when, err)
		}
		if err := ends(first); !errors.Is(err, fault.Conflict) {
			t.Errorf("%s, its end was stored: %v", when, err)
		}
	}
	pass(t, url, expiry)
	requeue(t, db, r.RunID)
	lost("while the run is pending", false)
	_, second := claim(t, db, r.RunID)
	lost("after another claim", true)
	if _, err := db.AddEvents(t.Context(), []store.Events{{RunID: r.RunID, Attempt: 1, First: 7, Count: 1,
		Frames: "old\n\n"}}); err != nil {
		t.Error(err)
	}
	if err := ends(second); err != nil {
		t.Error(err)
	}
	lost("after the end of the run", true)
	if got, err := db.EventsAfter(t.Context(), r.RunID, -1); err != nil || len(got) != 1 || got[0].Frames != "end\n\n" {
		t.Errorf("the events are %+v %v", got, err)
	}
	if s := session(t, db, ann, "s"); len(s.Usage) != 1 || s.Usage[0].Total != 1 {
		t.Errorf("the usage is counted more than once: %+v", s.Usage)
	}
	if r := status(t, db, r); r.Caller != nil || r.Checkpoint != nil {
		t.Errorf("the caller or the checkpoint is still stored: %+v", r)
	}
}

func TestThePulseReportsDeletedRuns(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := begin(t, db, "ann", "s", 0)
	if _, err := db.DeleteSessions(t.Context(), ann, []string{"s"}, ""); err != nil {
		t.Fatal(err)
	}
	for _, renew := range []bool{false, true} {
		if p := pulse(t, db, renew, leg(r)); !p[0].Deleted || p[0].Renewed {
			t.Errorf("%+v", p)
		}
	}
}

func TestTheNextAttemptContinuesWithTheStepsAndTheEventsBeforeThem(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	r := begin(t, db, "ann", "s", 0)
	add := func(first int, frames string) {
		t.Helper()
		if _, err := db.AddEvents(t.Context(), []store.Events{{RunID: r.RunID, Attempt: 1, First: first, Count: 2,
			Frames: frames}}); err != nil {
			t.Fatal(err)
		}
	}
	add(0, "a")
	for i, c := range []store.Checkpoint{
		{Data: json.RawMessage(`{"at":0}`), Added: json.RawMessage(`{"messages":[{"b":1,"a":1.50},2],"content":"x\ny"}`)},
		{Data: json.RawMessage(`{"at":1}`), Added: json.RawMessage(`{"calls":[{"z":"ü"}],"waiting":[7]}`), Step: 1},
		{Data: json.RawMessage(`{"at":4}`), Added: json.RawMessage(`{"messages":[{"c":3}],"calls":[{}],"content":"z"}`),
			Step: 2, Next: 4, Events: []store.Events{{First: 2, Count: 2, Frames: "b"}}},
	} {
		for range 2 { // The first answer was lost.
			if cancel, err := db.Checkpoint(t.Context(), leg(r), c); err != nil || cancel {
				t.Fatal(i, cancel, err)
			}
		}
	}
	add(4, "lost")
	pass(t, url, expiry)
	next, second := claim(t, db, r.RunID)
	const whole = `{"at":4,"messages":[{"b":1,"a":1.50},2,{"c":3}],"calls":[{"z":"ü"},{}],"waiting":[7],"content":"x\nyz"}`
	if string(next.Checkpoint) != whole {
		t.Errorf("it continues from %s", next.Checkpoint)
	}
	got, err := db.EventsAfter(t.Context(), r.RunID, -1)
	want := []store.Events{{RunID: r.RunID, Attempt: 2, First: 0, Count: 2, Frames: "a"},
		{RunID: r.RunID, Attempt: 2, First: 2, Count: 2, Frames: "b"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	// Without a step, the next attempt continues from the same state.
	if err := db.ReleaseRun(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if third, _ := claim(t, db, r.RunID); string(third.Checkpoint) != whole || third.Losses != 1 {
		t.Errorf("%+v", third)
	}
	if store.FirstIndex(1) != 0 || store.FirstIndex(2) <= 1<<20 || store.FirstIndex(4) > 1<<31-1<<20 {
		t.Error("the ranges of the attempts overlap or exceed 32 bits")
	}
}

func TestALeaseEndsByTheClockOfTheDatabase(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	r := begin(t, db, "ann", "s", -1e6) // The process's clock is two years behind.
	left, _, running, err := db.LeaseLeft(t.Context(), r.RunID)
	if err != nil || !running || left > store.LeaseDuration || left < store.LeaseDuration-30*time.Second {
		t.Errorf("%s %t %v", left, running, err)
	}
	requeue(t, db)
}

// The caller got an error.
func TestARunThatIsWithdrawnIsNotExecuted(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	refused, accepted := begin(t, db, "ann", "s", 0), begin(t, db, "ann", "s", 0)
	for _, leg := range []uuid.UUID{refused.RunID, uuid.New()} {
		for _, r := range []store.Run{refused, accepted} {
			if err := db.WithdrawRun(t.Context(), r.RunID, &leg); err != nil {
				t.Fatal(err)
			}
		}
	}
	if runs, err := db.Runs(t.Context(), ann, store.RunQuery{SessionID: "s"}); err != nil || len(runs) != 1 ||
		runs[0].RunID != accepted.RunID {
		t.Errorf("%+v %v", runs, err)
	}
}

// claimOfSchema6 is how a program of the previous release, which is written for migration 6, claims a run.
const claimOfSchema6 = `
	WITH run AS (
		UPDATE keyway.runs SET losses = losses + CASE WHEN status = 'RUNNING' THEN 1 ELSE 0 END,
			status = 'RUNNING', attempt = attempt + 1, lease_until = now() + interval '1 minute'
		WHERE run_id = $1 AND (status = 'PENDING' OR status = 'RUNNING' AND lease_until < now())
		RETURNING run_id, attempt, checkpoint, kept_events
	), kept AS (
		UPDATE keyway.run_events e SET attempt = run.attempt FROM run
		WHERE e.run_id = $1 AND e.attempt = run.attempt - 1 AND e.first_index < run.kept_events
	), lost AS (
		DELETE FROM keyway.run_events e USING run
		WHERE e.run_id = $1 AND NOT (e.attempt = run.attempt - 1 AND e.first_index < run.kept_events)
	)
	SELECT checkpoint FROM run`

// During an update and after a rollback, processes of two releases execute the runs of one database. A process of the
// previous release knows no steps and no legs.
func TestThePreviousReleaseContinuesARun(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	r := begin(t, db, "ann", "s", 0)
	for i, added := range []string{`{"messages":[1,2],"content":"a"}`, `{"messages":[3],"calls":[4],"content":"b"}`} {
		c := store.Checkpoint{Data: json.RawMessage(`{"answers":null}`), Added: json.RawMessage(added), Step: i, Next: i + 1,
			Events: []store.Events{{First: i, Count: 1, Frames: "f"}}}
		if _, err := db.Checkpoint(t.Context(), leg(r), c); err != nil {
			t.Fatal(err)
		}
	}
	pass(t, url, expiry)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var checkpoint string
	if err := conn.QueryRow(t.Context(), claimOfSchema6, r.RunID).Scan(&checkpoint); err != nil ||
		checkpoint != `{"answers":null,"messages":[1,2,3],"calls":[4],"waiting":[],"content":"ab"}` {
		t.Errorf("it continues from %s, %v", checkpoint, err)
	}
	if p := pulse(t, db, true, leg(r)); !p[0].Lost || p[0].Renewed {
		t.Errorf("the first process: %+v", p)
	}
	if err := end(t, db, r, "COMPLETED"); !errors.Is(err, fault.Conflict) {
		t.Errorf("the first process ended the run: %v", err)
	}
	// The previous release stores a whole checkpoint, and hands the run over to this one.
	if _, err := conn.Exec(t.Context(), `UPDATE keyway.runs SET checkpoint = '{"answers":null,"messages":[1,2,3,5]}',
		kept_events = 2, status = 'PENDING', lease_until = now() WHERE run_id = $1`, r.RunID); err != nil {
		t.Fatal(err)
	}
	next, last := claim(t, db, r.RunID)
	if string(next.Checkpoint) != `{"answers":null,"messages":[1,2,3,5]}` || last.Attempt != 3 || next.Losses != 1 {
		t.Errorf("%s %+v", next.Checkpoint, next)
	}
	if n, err := db.CountEvents(t.Context(), r.RunID); err != nil || n != 2 {
		t.Errorf("%d events, %v", n, err)
	}
}

// The previous release does not change the column leg. A process of this release repeats a statement whose answer was
// lost, and must not change a run that the other process executes by then.
func TestARepeatedStatementDoesNotMatchALegOfThePreviousRelease(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	paused, claimed := begin(t, db, "ann", "s", 0), begin(t, db, "ann", "s", 1)
	if err := end(t, db, paused, "PAUSED"); err != nil {
		t.Fatal(err)
	}
	// The continuation of the previous release belongs to the attempt that paused.
	sql(t, url, `UPDATE keyway.runs SET status = 'RUNNING', lease_until = now() + interval '1 minute', checkpoint = '{}'
		WHERE status = 'PAUSED'`)
	if err := end(t, db, paused, "PAUSED"); !errors.Is(err, fault.Conflict) {
		t.Errorf("the pause was repeated: %v", err)
	}
	if p := pulse(t, db, true, leg(paused)); !p[0].Lost || p[0].Renewed {
		t.Errorf("the leg that paused: %+v", p)
	}
	if got := status(t, db, paused).Status; got != "RUNNING" {
		t.Errorf("the continued run is %s", got)
	}

	pass(t, url, expiry)
	_, l := claim(t, db, claimed.RunID)
	pass(t, url, expiry)
	sql(t, url, strings.ReplaceAll(claimOfSchema6, "$1", "'"+claimed.RunID.String()+"'"))
	if r, ok, err := db.ClaimRun(t.Context(), claimed.RunID, l.ID, store.Places{}); err != nil || ok {
		t.Errorf("the claim was repeated: attempt %d, %t, %v", r.Attempt, ok, err)
	}
}

// A process with a thousand open streams sends this statement twice a second, and nearly always nothing has changed.
func TestAPulseWithoutNewsAllocatesLittle(t *testing.T) { //nolint:paralleltest // it counts allocations
	db := storetest.Open(t, store.Options{URL: storetest.URL(t)})
	legs := make([]store.Leg, 200)
	for i := range legs {
		legs[i] = leg(begin(t, db, "ann", strconv.Itoa(i), 0))
	}
	ask := func() {
		list, err := db.Pulse(t.Context(), legs, false)
		if err != nil || len(list) != len(legs) || list[7] != (store.Pulse{Leg: legs[7]}) {
			t.Fatalf("%d %v", len(list), err)
		}
	}
	ask()
	if n := testing.AllocsPerRun(20, ask); n > 3*float64(len(legs)) {
		t.Errorf("%.0f allocations for %d legs", n, len(legs))
	}
}
