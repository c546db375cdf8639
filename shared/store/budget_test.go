package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// ofAnn, ofAgent and ofOS are budgets of the caller ann with one kind of limits.
func ofAnn(l limit.Limits) store.Budget   { return store.Budget{Spender: "ann", Caller: l} }
func ofAgent(l limit.Limits) store.Budget { return store.Budget{Spender: "ann", Agent: l} }
func ofOS(l limit.Limits) store.Budget    { return store.Budget{Spender: "ann", OS: l} }

// newRun is a run of ann's that is not stored yet, in a session of its own.
func newRun(status string) store.Run {
	r := store.Run{
		Status: status, RunID: uuid.New(), Owner: "ann", SessionID: uuid.NewString(), AgentID: "a", AgentName: "A",
		ModelID: "m", ModelProvider: "P", Input: "hi", CreatedAt: day, Attempt: 1,
	}
	if status == "PENDING" {
		r.Attempt = 0
	}
	return r
}

// start begins a run with a budget. A RUNNING one has a leg whose id is the run's, and its rows are read before its
// commit, as those of requests are.
func start(ctx context.Context, db *store.DB, r store.Run, b store.Budget) error {
	o := store.BeginOptions{Budget: b}
	if r.Status == "RUNNING" {
		o.Leg, o.Ready = &r.RunID, func(store.BeginResult) {}
	}
	_, err := db.BeginRun(ctx, r, o)
	return err
}

// started begins a run that must be allowed.
func started(t *testing.T, db *store.DB, status string, b store.Budget) store.Run {
	t.Helper()
	r := newRun(status)
	if err := start(t.Context(), db, r, b); err != nil {
		t.Fatal(err)
	}
	return r
}

// wantRefused checks that no run can begin because of the named limit, and that the refused run left nothing.
func wantRefused(t *testing.T, db *store.DB, status string, b store.Budget, name limit.Name, of limit.Whose) {
	t.Helper()
	r := newRun(status)
	wantReached(t, start(t.Context(), db, r, b), name, of)
	if _, err := db.Session(t.Context(), ann, r.SessionID, ""); !errors.Is(err, fault.NotFound) {
		t.Errorf("a refused run has left a session: %v", err)
	}
	if _, err := db.Run(t.Context(), admin, store.RunQuery{RunID: r.RunID.String()}); !errors.Is(err, fault.NotFound) {
		t.Errorf("a refused run is stored: %v", err)
	}
}

// wantReached checks that err is the 429 about a limit.
func wantReached(t *testing.T, err error, name limit.Name, of limit.Whose) {
	t.Helper()
	status, _, body := fault.Answer(err)
	want := fmt.Sprintf(`"limit":{"name":%q,"of":%q`, name, of)
	if !errors.Is(err, fault.LimitReached) || status != 429 || !strings.Contains(string(body), want) {
		t.Errorf("%v: %d %s; want %s", err, status, body, want)
	}
}

// ended ends a run with these tokens and this cost.
func ended(t *testing.T, db *store.DB, r store.Run, tokens int, microUSD int64) {
	t.Helper()
	r.Status, r.Metrics = "COMPLETED", json.RawMessage("{}")
	u := store.Usage{ModelID: "m", Total: tokens, MicroUSD: microUSD}
	if cancel, err := db.FinishRun(t.Context(), leg(r), r, nil, u, day); err != nil || cancel {
		t.Fatal(cancel, err)
	}
}

func TestEachLimitRefusesTheRunAfterTheLastOneAllowed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   limit.Name
		limits limit.Limits
		status string
		used   func(*testing.T, *store.DB, store.Run) // after each of the two runs that are allowed
	}{
		{limit.ConcurrentRuns, limit.Limits{ConcurrentRuns: 2}, "RUNNING", nil},
		{limit.WaitingRuns, limit.Limits{WaitingRuns: 2}, "PENDING", nil},
		{limit.RunsPerMinute, limit.Limits{RunsPerMinute: 2}, "RUNNING", nil},
		{limit.RunsPerDay, limit.Limits{RunsPerDay: 2}, "PENDING", nil},
		{limit.TokensPerDay, limit.Limits{TokensPerDay: 101}, "RUNNING", func(t *testing.T, db *store.DB, r store.Run) {
			ended(t, db, r, 100, 0)
		}},
		{limit.USDPerDay, limit.Limits{USDPerDay: 0.0005}, "RUNNING", func(t *testing.T, db *store.DB, r store.Run) {
			ended(t, db, r, 1, 400)
		}},
	} {
		for _, whose := range []struct {
			of     limit.Whose
			budget func(limit.Limits) store.Budget
		}{{limit.Caller, ofAnn}, {limit.Agent, ofAgent}, {limit.OS, ofOS}} {
			t.Run(fmt.Sprint(c.name, " of ", whose.of), func(t *testing.T) {
				t.Parallel()
				db := storetest.New(t)
				b := whose.budget(c.limits)
				if c.name == limit.RunsPerMinute {
					sameMinute(t)
				}
				for range 2 {
					r := started(t, db, c.status, b)
					if c.used != nil {
						c.used(t, db, r)
					}
				}
				wantRefused(t, db, c.status, b, c.name, whose.of)
				other := newRun(c.status) // Of another caller, and of another agent.
				other.AgentID = "b"
				b.Spender = "bob"
				if err := start(t.Context(), db, other, b); (err == nil) == (whose.of == limit.OS) {
					t.Errorf("another caller's run of another agent: %v", err)
				}
			})
		}
	}
}

// sameMinute waits if the present minute ends in a few seconds.
func sameMinute(t *testing.T) {
	t.Helper()
	if left := time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)); left < 20*time.Second {
		select {
		case <-time.After(left + time.Second):
		case <-t.Context().Done():
		}
	}
}

// Two processes begin runs at the same time. isolation is the database's default level.
func TestExactlyAsManyRunsBeginAsAreAllowed(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"read committed", "repeatable read", "serializable"} {
		for name, b := range map[string]store.Budget{
			"concurrent": ofAnn(limit.Limits{ConcurrentRuns: 10}),
			"day":        ofAgent(limit.Limits{RunsPerDay: 10}),
			"all":        {Spender: "ann", Caller: limit.Limits{RunsPerDay: 20}, OS: limit.Limits{ConcurrentRuns: 10}},
		} {
			t.Run(isolation+" "+name, func(t *testing.T) {
				t.Parallel()
				url := storetest.URL(t)
				sql(t, url, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''`+
					isolation+`''', current_database()); END $$`)
				processes := []*store.DB{
					storetest.Open(t, store.Options{URL: url, ConnectTimeout: time.Minute}),
					storetest.Open(t, store.Options{URL: url, ConnectTimeout: time.Minute}),
				}
				var begun, refused atomic.Int32
				var all sync.WaitGroup
				for i := range 64 {
					all.Go(func() {
						switch err := start(t.Context(), processes[i%2], newRun("RUNNING"), b); {
						case err == nil:
							begun.Add(1)
						case errors.Is(err, fault.LimitReached):
							refused.Add(1)
						default:
							t.Error(err)
						}
					})
				}
				all.Wait()
				if begun.Load() != 10 || refused.Load() != 54 {
					t.Errorf("%d begun, %d refused", begun.Load(), refused.Load())
				}
			})
		}
	}
}

func TestACrashedRunFreesItsPlaceWithItsLease(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	b := ofAnn(limit.Limits{ConcurrentRuns: 1})
	started(t, db, "RUNNING", b)
	wantRefused(t, db, "RUNNING", b, limit.ConcurrentRuns, limit.Caller)
	sql(t, url, `UPDATE keyway.runs SET lease_until = now() - interval '1 second'`)
	started(t, db, "RUNNING", b)
	wantRefused(t, db, "RUNNING", b, limit.ConcurrentRuns, limit.Caller)
}

// timePasses makes everything that is counted older, as if the time had passed.
func timePasses(t *testing.T, url, interval string) {
	t.Helper()
	sql(t, url, `UPDATE keyway.spending SET minute = minute - interval '`+interval+`',
		day = ((day + time '12:00') AT TIME ZONE 'UTC' - interval '`+interval+`')::date`)
	sql(t, url, `UPDATE keyway.runs SET spend_day = ((spend_day + time '12:00') - interval '`+interval+`')::date`)
}

func TestAMinuteAndADayBeginAnew(t *testing.T) {
	t.Parallel()
	sameMinute(t)
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	b := ofAnn(limit.Limits{RunsPerMinute: 1, RunsPerDay: 2})
	started(t, db, "RUNNING", b)
	wantRefused(t, db, "RUNNING", b, limit.RunsPerMinute, limit.Caller)
	timePasses(t, url, "1 minute")
	started(t, db, "RUNNING", b)
	wantRefused(t, db, "RUNNING", b, limit.RunsPerDay, limit.Caller) // The day's limit has the longer wait.
	timePasses(t, url, "1 day")
	started(t, db, "RUNNING", b)
}

func TestTheTokensOfARunCountOnTheDayOnWhichItBegan(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	b := ofAnn(limit.Limits{TokensPerDay: 10})
	r := started(t, db, "RUNNING", b)
	timePasses(t, url, "1 day")
	ended(t, db, r, 10, 0)
	started(t, db, "RUNNING", b)
}

// The tokens of a run that waits over midnight count on the day of its claim, and not for a day that is over.
func TestARunThatIsClaimedOnTheNextDayCountsThere(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	b := ofAnn(limit.Limits{TokensPerDay: 10})
	r := started(t, db, "PENDING", b)
	timePasses(t, url, "1 day")
	claimed, ok, err := db.ClaimRun(t.Context(), r.RunID, r.RunID, store.Places{Callers: true})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	ended(t, db, claimed, 10, 0)
	wantRefused(t, db, "RUNNING", b, limit.TokensPerDay, limit.Caller)
}

func TestDeletingRunsGivesNothingBack(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	b := ofAnn(limit.Limits{ConcurrentRuns: 1, RunsPerDay: 3, TokensPerDay: 100})
	delete := func(r store.Run) {
		t.Helper()
		if _, err := db.DeleteSessions(t.Context(), ann, []string{r.SessionID}, ""); err != nil {
			t.Fatal(err)
		}
	}
	first := started(t, db, "RUNNING", b)
	delete(first)
	// Its process has not noticed yet, and still executes it.
	wantRefused(t, db, "RUNNING", b, limit.ConcurrentRuns, limit.Caller)
	for range 2 { // The second one is a repetition.
		if err := db.Settle(t.Context(), leg(first), store.Usage{Total: 60}); err != nil {
			t.Fatal(err)
		}
	}
	second := started(t, db, "RUNNING", b) // It has 40 tokens left.
	ended(t, db, second, 39, 0)
	delete(second)
	third := started(t, db, "RUNNING", b)
	ended(t, db, third, 1, 0)
	wantRefused(t, db, "RUNNING", b, limit.RunsPerDay, limit.Caller)
	uses, err := db.Uses(t.Context(), b, "a")
	if err != nil || len(uses) != 3 || uses[0].Used != 0 || uses[1].Used != 3 || uses[2].Used != 100 {
		t.Errorf("%+v, %v", uses, err)
	}
}

func TestARefusedRequestWithAKeyThatWasUsedGetsItsRun(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := newRun("RUNNING")
	o := store.BeginOptions{
		Leg: &r.RunID, Budget: ofAnn(limit.Limits{RunsPerDay: 1}), Request: store.Request{Key: "k", Digest: []byte{1}},
	}
	if _, err := db.BeginRun(t.Context(), r, o); err != nil {
		t.Fatal(err)
	}
	again := r
	again.RunID = uuid.New()
	_, err := db.BeginRun(t.Context(), again, o)
	if repeated, ok := errors.AsType[*store.Repeated](err); !ok || repeated.Run.RunID != r.RunID {
		t.Error(err)
	}
	uses, err := db.Uses(t.Context(), o.Budget, "a")
	if err != nil || len(uses) != 1 || uses[0].Used != 1 {
		t.Errorf("%+v, %v", uses, err)
	}
}

// paused begins a run with a budget and pauses it.
func paused(t *testing.T, db *store.DB, b store.Budget) store.Run {
	t.Helper()
	r := started(t, db, "RUNNING", b)
	if err := end(t, db, r, "PAUSED"); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAPausedRunContinuesOnlyWithinTheLimits(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	b := ofAnn(limit.Limits{ConcurrentRuns: 1, TokensPerDay: 100, RunsPerDay: 2})
	r := paused(t, db, b)
	other := started(t, db, "RUNNING", b)
	_, _, err := db.ContinueRun(t.Context(), r, uuid.New(), store.Request{}, b)
	wantReached(t, err, limit.ConcurrentRuns, limit.Caller)
	ended(t, db, other, 98, 0)
	// Two runs have begun today. A continuation is no further one.
	next := store.Leg{RunID: r.RunID, Attempt: 1, ID: uuid.New()}
	if _, claimed, err := db.ContinueRun(t.Context(), r, next.ID, store.Request{}, b); err != nil || !claimed {
		t.Fatal(claimed, err)
	}
	r.Status, r.Metrics = "PAUSED", json.RawMessage("{}") // With one more token: 98 + 1 + 1.
	if _, err := db.FinishRun(t.Context(), next, r, nil, store.Usage{ModelID: "m", Total: 1}, day); err != nil {
		t.Fatal(err)
	}
	_, _, err = db.ContinueRun(t.Context(), r, uuid.New(), store.Request{}, b)
	wantReached(t, err, limit.TokensPerDay, limit.Caller)
	if got, err := db.Run(t.Context(), ann,
		store.RunQuery{RunID: r.RunID.String()}); err != nil || got.Status != "PAUSED" {
		t.Errorf("%+v %v", got, err)
	}
}

// From its continuation on, a run counts for the caller who continued it.
func TestARunCountsForTheCallerWhoContinuedIt(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	r := paused(t, db, ofAnn(limit.Limits{ConcurrentRuns: 1}))
	ofBob := store.Budget{Spender: "bob", Caller: limit.Limits{ConcurrentRuns: 1}}
	if _, claimed, err := db.ContinueRun(t.Context(), r, uuid.New(), store.Request{}, ofBob); err != nil || !claimed {
		t.Fatal(claimed, err)
	}
	wantRefused(t, db, "RUNNING", ofBob, limit.ConcurrentRuns, limit.Caller)
	started(t, db, "RUNNING", ofAnn(limit.Limits{ConcurrentRuns: 1}))
}

func TestAWaitingRunIsClaimedWhenThereIsAPlace(t *testing.T) {
	t.Parallel()
	for whose, places := range map[string]store.Places{
		"caller": {Callers: true}, "agent": {Agents: map[string]int{"a": 1}}, "os": {OS: 1},
	} {
		t.Run(whose, func(t *testing.T) {
			t.Parallel()
			db := storetest.New(t)
			waiting := newRun("PENDING")
			waiting.Caller = json.RawMessage(`{"path":"/","limits":{"concurrent_runs":1}}`)
			if err := start(t.Context(), db, waiting, ofAnn(limit.Limits{})); err != nil {
				t.Fatal(err)
			}
			first := started(t, db, "RUNNING", ofAnn(limit.Limits{}))
			_, claimed, err := db.ClaimRun(t.Context(), waiting.RunID, uuid.New(), places)
			full, ok := errors.AsType[*store.NoPlace](err)
			if claimed || !ok || full.Wait < time.Second || full.Wait > 2*time.Second {
				t.Fatal(claimed, err)
			}
			if _, _, err := db.ClaimRun(t.Context(), uuid.New(), uuid.New(), places); err != nil {
				t.Errorf("no such run: %v", err)
			}
			ended(t, db, first, 1, 0)
			id := uuid.New()
			for range 2 { // The second one is a repetition, and needs no second place.
				row, claimed, err := db.ClaimRun(t.Context(), waiting.RunID, id, places)
				if err != nil || !claimed || row.Attempt != 1 || row.Losses != 0 {
					t.Error(row, claimed, err)
				}
			}
		})
	}
}

func TestARunThatIsToBeCancelledNeedsNoPlace(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	waiting := started(t, db, "PENDING", store.Budget{Spender: "ann"})
	started(t, db, "RUNNING", store.Budget{Spender: "ann"})
	if _, err := db.RequestCancel(t.Context(), ann, waiting.RunID); err != nil {
		t.Fatal(err)
	}
	if _, claimed, err := db.ClaimRun(t.Context(), waiting.RunID, uuid.New(),
		store.Places{OS: 1}); err != nil || !claimed {
		t.Error(claimed, err)
	}
}

// The run has crashed once, however often a process has looked for a place for it.
func TestACrashedRunThatWaitsForAPlaceHasCrashedOnce(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	crashed := started(t, db, "RUNNING", store.Budget{Spender: "ann"})
	sql(t, url, `UPDATE keyway.runs SET lease_until = now() - interval '1 second'`)
	other := started(t, db, "RUNNING", store.Budget{Spender: "ann"})
	for range 3 {
		_, _, err := db.ClaimRun(t.Context(), crashed.RunID, uuid.New(), store.Places{OS: 1})
		if _, ok := errors.AsType[*store.NoPlace](err); !ok {
			t.Fatal(err)
		}
	}
	ended(t, db, other, 1, 0)
	row, claimed, err := db.ClaimRun(t.Context(), crashed.RunID, uuid.New(), store.Places{OS: 1})
	if err != nil || !claimed || row.Losses != 1 || row.Attempt != 2 {
		t.Errorf("%+v %t %v", row, claimed, err)
	}
}

func TestMergesOfMemoriesAreBounded(t *testing.T) {
	t.Parallel()
	sameMinute(t)
	db := storetest.New(t)
	merge := func(b store.Budget) (store.Leg, error) {
		l := store.Leg{RunID: uuid.New(), ID: uuid.New()}
		return l, db.BeginMerge(t.Context(), l, b)
	}
	var legs []store.Leg
	for range store.MergesPerMinute {
		l, err := merge(store.Budget{Spender: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		legs = append(legs, l)
	}
	_, err := merge(store.Budget{Spender: "ann"})
	wantReached(t, err, limit.MergesPerMinute, limit.Caller)
	if err := db.BeginMerge(t.Context(), legs[0], store.Budget{Spender: "ann"}); err != nil { // a repetition
		t.Error(err)
	}
	if _, err := merge(store.Budget{Spender: "bob"}); err != nil {
		t.Error(err)
	}
	// They count as runs of the caller and of the OS.
	b := store.Budget{Spender: "eve", Caller: limit.Limits{TokensPerDay: 5}, OS: limit.Limits{RunsPerDay: 1}}
	l, err := merge(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Settle(t.Context(), l, store.Usage{Total: 5}); err != nil {
		t.Fatal(err)
	}
	_, err = merge(store.Budget{Spender: "eve", Caller: b.Caller})
	wantReached(t, err, limit.TokensPerDay, limit.Caller)
	_, err = merge(store.Budget{Spender: "zoe", OS: b.OS})
	wantReached(t, err, limit.RunsPerDay, limit.OS)
}

func TestTheLargestLimitsAreNoErrors(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	most := limit.Limits{
		ConcurrentRuns: math.MaxInt64, WaitingRuns: math.MaxInt64, RunsPerMinute: math.MaxInt64, RunsPerDay: math.MaxInt64,
		TokensPerDay: math.MaxInt64, USDPerDay: math.MaxFloat64,
	}
	b := store.Budget{Spender: "ann", Caller: most, Agent: most, OS: most}
	r := started(t, db, "RUNNING", b)
	ended(t, db, r, math.MaxInt32, math.MaxInt32*1e6)
	waiting := newRun("PENDING")
	caller, err := json.Marshal(map[string]any{"limits": most})
	if err != nil {
		t.Fatal(err)
	}
	waiting.Caller = caller
	if err := start(t.Context(), db, waiting, b); err != nil {
		t.Fatal(err)
	}
	places := store.Places{Callers: true, Agents: map[string]int{"a": math.MaxInt64}, OS: math.MaxInt64}
	if _, claimed, err := db.ClaimRun(t.Context(), waiting.RunID, uuid.New(), places); err != nil || !claimed {
		t.Error(claimed, err)
	}
}

// The names of callers and agents are elements of an array, which has signs of its own.
func TestCallersWithAnyNameAreCountedAlone(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, name := range []string{`a"b`, `a\`, `a\"`, `{a,b}`, `a,b`, "NULL", " ", "", "ü\n\t", `'; --`} {
		b := store.Budget{Spender: name, Caller: limit.Limits{ConcurrentRuns: 1, RunsPerDay: 9}}
		started(t, db, "RUNNING", b)
		wantRefused(t, db, "RUNNING", b, limit.ConcurrentRuns, limit.Caller)
	}
}

// The more runs of a caller wait for a place, the less often each is tried.
func TestAWaitingRunIsTriedAgainLaterTheMoreWait(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	started(t, db, "RUNNING", store.Budget{Spender: "ann"})
	waiting := started(t, db, "PENDING", store.Budget{Spender: "ann"})
	for _, c := range []struct {
		more int // runs of ann
		want time.Duration
	}{{0, 1010 * time.Millisecond}, {99, 2 * time.Second}, {4000, 30 * time.Second}} {
		if c.more > 0 {
			queueRuns(t, url, c.more, "ann", "bob") // Those of bob have no effect.
		}
		_, _, err := db.ClaimRun(t.Context(), waiting.RunID, uuid.New(), store.Places{OS: 1})
		if full, ok := errors.AsType[*store.NoPlace](err); !ok || full.Wait != c.want {
			t.Errorf("with %d more: %+v, want %s", c.more, err, c.want)
		}
	}
}
