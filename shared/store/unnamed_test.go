package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// call is a call of a method of store.DB.
type call struct {
	method string
	do     func(context.Context, *store.DB) error
}

// allCalls calls each method that queries the database, in an order in which each finds the data it needs.
func allCalls() []call {
	r := store.Run{
		RunID: uuid.New(), Owner: "ann", SessionID: "s", AgentID: "a", Status: "PENDING",
		Attempt: 2, Background: true, CreatedAt: day,
		// Arguments must not be part of the text of a statement.
		SessionState: json.RawMessage(`{"a":1}`), Input: strings.Repeat("x", 20_000),
	}
	check := call{"Check", func(ctx context.Context, db *store.DB) error { return db.Check(ctx) }}
	return slices.Concat([]call{check}, pendingCalls(r), runningCalls(r), readCalls(r), sessionCalls(), memoryCalls(),
		revocationCalls(), budgetCalls(), retentionCalls())
}

// budgetCalls are the calls about budgets, and those of a run with all limits.
func budgetCalls() []call {
	l := store.Leg{RunID: uuid.New(), ID: uuid.New()}
	b := ofAnn(limit.Limits{RunsPerDay: 5})
	return slices.Concat([]call{
		{"BeginMerge", func(ctx context.Context, db *store.DB) error { return db.BeginMerge(ctx, l, b) }},
		{"Uses", uses(b, 1)},
		{"Settle", func(ctx context.Context, db *store.DB) error { return db.Settle(ctx, l, store.Usage{Total: 1}) }},
	}, limitedCalls())
}

// uses wants that so many runs of the first limit are used.
func uses(b store.Budget, n int) func(context.Context, *store.DB) error {
	return func(ctx context.Context, db *store.DB) error {
		list, err := db.Uses(ctx, b, "a")
		return want(len(list) > 0 && int(list[0].Used) == n, err)
	}
}

// limitedCalls are the calls of two runs for which everybody has every limit. The second one is deleted while it is
// executed.
func limitedCalls() []call {
	first, second := newRun("RUNNING"), newRun("PENDING")
	continued, claimed := leg(first), store.Leg{RunID: second.RunID, Attempt: 1, ID: uuid.New()}
	continued.ID = uuid.New()
	b := allLimits("zoe", 9)
	second.Caller = json.RawMessage(`{"limits":` + b.Caller.Text() + `}`)
	places := store.Places{Callers: true, Agents: map[string]int{"a": 9}, OS: 9}
	begin := func(r store.Run) call {
		return call{"BeginRun", func(ctx context.Context, db *store.DB) error { return start(ctx, db, r, b) }}
	}
	// The first limit is that of the caller's runs in progress.
	progress := func(n int) call { return call{"Uses", uses(b, n)} }
	return []call{
		begin(first), progress(1),
		{"FinishRun", ends(leg(first), first, "PAUSED")}, progress(0),
		{"ContinueRun", func(ctx context.Context, db *store.DB) error {
			_, ok, err := db.ContinueRun(ctx, first, continued.ID, store.Request{}, b)
			return want(ok, err)
		}},
		progress(1),
		{"FinishRun", ends(continued, first, "COMPLETED")}, progress(0),
		begin(second), progress(0),
		{"ClaimRun", func(ctx context.Context, db *store.DB) error {
			_, ok, err := db.ClaimRun(ctx, second.RunID, claimed.ID, places)
			return want(ok, err)
		}},
		progress(1),
		{"DeleteRun", func(ctx context.Context, db *store.DB) error {
			if err := db.DeleteRun(ctx, ann, second.RunID); fault.KindOf(err) != fault.Conflict {
				return fmt.Errorf("a run that has not ended: %w", err)
			}
			return nil
		}},
		{"DeleteSessions", func(ctx context.Context, db *store.DB) error {
			_, err := db.DeleteSessions(ctx, ann, []string{second.SessionID}, "ann")
			return err
		}},
		progress(1),
		{"Settle", func(ctx context.Context, db *store.DB) error { return db.Settle(ctx, claimed, store.Usage{Total: 1}) }},
		progress(0),
	}
}

// allLimits is a budget in which a caller, the agent and the OS have every limit, n times what one run needs.
func allLimits(spender string, n int) store.Budget {
	l := limit.Limits{ConcurrentRuns: n, WaitingRuns: n, RunsPerMinute: n, RunsPerDay: n, TokensPerRun: n * 1e6,
		TokensPerDay: n * 1e6, USDPerDay: float64(n)}
	return store.Budget{Spender: spender, Caller: l, Agent: l, OS: l}
}

// retentionCalls delete nothing: nothing is that old, and nobody has that name.
func retentionCalls() []call {
	sweep := func(r store.Retention) call {
		return call{"Sweep", func(ctx context.Context, db *store.DB) error { _, err := db.Sweep(ctx, r); return err }}
	}
	return []call{
		sweep(store.Retention{Events: time.Hour * 1e6}), sweep(store.Retention{Runs: time.Hour * 1e6}),
		sweep(store.Retention{Sessions: time.Hour * 1e6}),
		{"ClaimNotices", func(ctx context.Context, db *store.DB) error {
			_, err := db.ClaimNotices(ctx, 5, []time.Duration{time.Hour})
			return err
		}},
		{"DropNotice", func(ctx context.Context, db *store.DB) error { return db.DropNotice(ctx, uuid.New()) }},
		{"Sweepable", func(ctx context.Context, db *store.DB) error {
			_, err := db.Sweepable(ctx, store.Retention{Runs: time.Hour})
			return err
		}},
		{"CountUser", func(ctx context.Context, db *store.DB) error { _, err := db.CountUser(ctx, "ann"); return err }},
		{"UserPage", func(ctx context.Context, db *store.DB) error {
			_, _, err := db.UserPage(ctx, "nobody", store.UserPlace{})
			return err
		}},
		{"EraseUser", func(ctx context.Context, db *store.DB) error {
			_, more, err := db.EraseUser(ctx, "nobody", 1)
			return want(!more, err)
		}},
	}
}

// pendingCalls are the calls for a run up to its second claim.
func pendingCalls(r store.Run) []call {
	how := store.BeginOptions{Request: store.Request{Key: "k", Digest: []byte{0, 255}}, History: 3}
	r.Attempt = 0
	claim := func(leg uuid.UUID) call {
		return call{"ClaimRun", func(ctx context.Context, db *store.DB) error {
			_, claimed, err := db.ClaimRun(ctx, r.RunID, leg, store.Places{})
			return want(claimed, err)
		}}
	}
	first := uuid.New()
	var received store.Received
	return []call{
		{"BeginRun", func(ctx context.Context, db *store.DB) error { _, err := db.BeginRun(ctx, r, how); return err }},
		// A repeated request: the row is rejected, and the first run is read.
		{"BeginRun", func(ctx context.Context, db *store.DB) error {
			again := r
			again.RunID = uuid.New()
			_, err := db.BeginRun(ctx, again, how)
			if _, ok := errors.AsType[*store.Repeated](err); ok {
				return nil
			}
			return want(false, err)
		}},
		{"EnqueueRun", func(ctx context.Context, db *store.DB) error { return db.EnqueueRun(ctx, r.RunID, 0) }},
		{"ReceiveRuns", func(ctx context.Context, db *store.DB) error {
			list, _, err := db.ReceiveRuns(ctx, 1, time.Hour, "")
			if len(list) > 0 {
				received = list[0]
			}
			return wantOne(list, err)
		}},
		{"AcknowledgeRun", func(ctx context.Context, db *store.DB) error { return db.AcknowledgeRun(ctx, received) }},
		{"EnqueueRun", func(ctx context.Context, db *store.DB) error { return db.EnqueueRun(ctx, r.RunID, -time.Hour) }},
		{"RequeueExpired", func(ctx context.Context, db *store.DB) error { return wantOne(db.RequeueExpired(ctx)) }},
		claim(first),
		{"ReleaseRun", func(ctx context.Context, db *store.DB) error {
			return db.ReleaseRun(ctx, store.Leg{RunID: r.RunID, Attempt: 1, ID: first})
		}},
		claim(r.RunID),
		{"LeaseLeft", func(ctx context.Context, db *store.DB) error {
			_, _, running, err := db.LeaseLeft(ctx, r.RunID)
			return want(running, err)
		}},
		{"WithdrawRun", func(ctx context.Context, db *store.DB) error {
			other := uuid.New()
			return db.WithdrawRun(ctx, r.RunID, &other)
		}},
	}
}

// runningCalls are the calls for a run from its claim to its end, with a pause.
func runningCalls(r store.Run) []call {
	first := store.Events{RunID: r.RunID, Attempt: r.Attempt, Count: 1, Frames: "f\n\n"}
	second := first
	second.First = 1
	next := leg(r)
	next.ID = uuid.New()
	pulse := func(renew bool) func(context.Context, *store.DB) error {
		return func(ctx context.Context, db *store.DB) error {
			list, err := db.Pulse(ctx, []store.Leg{next}, renew)
			return want(len(list) == 1 && !list[0].Lost && list[0].Renewed == renew, err)
		}
	}
	return []call{
		{"Checkpoint", func(ctx context.Context, db *store.DB) error {
			cancel, err := db.Checkpoint(ctx, leg(r), store.Checkpoint{Data: json.RawMessage(`{}`),
				Added: json.RawMessage(`{}`), Events: []store.Events{first}, Next: 1})
			return want(!cancel, err)
		}},
		{"AddEvents", func(ctx context.Context, db *store.DB) error {
			busy, err := db.AddEvents(ctx, []store.Events{second})
			return want(len(busy) == 0, err)
		}},
		{"EventsAfter", func(ctx context.Context, db *store.DB) error { return wantOne(db.EventsAfter(ctx, r.RunID, 0)) }},
		{"CountEvents", func(ctx context.Context, db *store.DB) error {
			n, err := db.CountEvents(ctx, r.RunID)
			return want(n > 0, err)
		}},
		{"HasRuns", func(ctx context.Context, db *store.DB) error {
			found, err := db.HasRuns(ctx, r.Owner, r.SessionID, r.AgentID)
			return want(found, err)
		}},
		{"RunHead", func(ctx context.Context, db *store.DB) error {
			head, err := db.RunHead(ctx, ann, store.RunQuery{RunID: r.RunID.String()})
			return want(head.RunID == r.RunID, err)
		}},
		{"RunInProgress", func(ctx context.Context, db *store.DB) error {
			_, err := db.RunInProgress(ctx, r.Owner, r.SessionID, r.AgentID)
			if errors.Is(err, fault.NotFound) { // It finds streamed runs only.
				return nil
			}
			return want(false, err)
		}},
		{"Progress", func(ctx context.Context, db *store.DB) error {
			return wantOne(db.Progress(ctx, []uuid.UUID{r.RunID}))
		}},
		{"EventCounts", func(ctx context.Context, db *store.DB) error {
			c, err := db.EventCounts(ctx, r.RunID, 0)
			return want(c.Total == 2 && c.Missed == 1, err)
		}},
		{"Follow", func(ctx context.Context, db *store.DB) error {
			news, err := db.Follow(ctx, r.RunID, r.Attempt, 0)
			return want(len(news.Frames) == 1, err)
		}},
		{"FinishRun", ends(leg(r), r, "PAUSED")},
		{"ContinueRun", func(ctx context.Context, db *store.DB) error {
			row := store.Run{RunID: r.RunID, Checkpoint: json.RawMessage(`{}`)}
			_, claimed, err := db.ContinueRun(ctx, row, next.ID, store.Request{Key: "k", Digest: []byte{1}}, store.Budget{})
			return want(claimed, err)
		}},
		{"WithdrawContinuation", func(ctx context.Context, db *store.DB) error {
			return db.WithdrawContinuation(ctx, r.RunID, uuid.New(), "k")
		}},
		{"Pulse", pulse(true)},
		{"Pulse", pulse(false)},
		{"FinishRun", ends(next, r, "COMPLETED")},
		{"RequestCancel", func(ctx context.Context, db *store.DB) error {
			return want(db.RequestCancel(ctx, ann, r.RunID))
		}},
		{"Server", func(ctx context.Context, db *store.DB) error {
			s, err := db.Server(ctx)
			return want(s.Enters && len(s.Missing) == 0 && s.MaxConns > 0, err)
		}},
		{"MetricsByDay", func(ctx context.Context, db *store.DB) error {
			_, err := db.MetricsByDay(ctx, ann, store.UsageQuery{From: day, To: day.AddDate(0, 0, 1)})
			return err
		}},
		{"UsageByDay", func(ctx context.Context, db *store.DB) error {
			_, _, err := db.UsageByDay(ctx, ann, store.UsageQuery{From: day, To: day.AddDate(0, 0, 1)}, 20, 1)
			return err
		}},
		{"Backlog", func(ctx context.Context, db *store.DB) error { _, err := db.Backlog(ctx); return err }},
		{"ActiveRuns", func(ctx context.Context, db *store.DB) error {
			_, _, err := db.ActiveRuns(ctx, ann, store.ActiveQuery{Owner: "ann", AgentID: "a"}, 20, 1)
			return err
		}},
		{"RequestCancelAll", func(ctx context.Context, db *store.DB) error {
			_, _, err := db.RequestCancelAll(ctx, ann, store.ActiveQuery{Owner: "ann", AgentID: "a"})
			return err
		}},
	}
}

func ends(l store.Leg, r store.Run, status string) func(context.Context, *store.DB) error {
	r.Status, r.Messages, r.Metrics = status, json.RawMessage(`[{"role":"user","content":"x"}]`), json.RawMessage(`{}`)
	r.Notify = status == "PAUSED"
	return func(ctx context.Context, db *store.DB) error {
		cancel, err := db.FinishRun(ctx, l, r, nil, store.Usage{ModelID: "m", Total: 1}, day)
		return want(!cancel, err)
	}
}

// readCalls are the calls that read a run that has ended.
func readCalls(r store.Run) []call {
	return []call{
		{"History", func(ctx context.Context, db *store.DB) error { return wantOne(db.History(ctx, "ann", "s", "a", 3)) }},
		{"Conversation", func(ctx context.Context, db *store.DB) error {
			messages, err := db.Conversation(ctx, ann, store.ConversationQuery{Owner: "ann", SessionID: "s"})
			return want(len(messages) > 2, err)
		}},
		{"Run", func(ctx context.Context, db *store.DB) error {
			_, err := db.Run(ctx, ann, store.RunQuery{RunID: r.RunID.String()})
			return err
		}},
		{"Runs", func(ctx context.Context, db *store.DB) error {
			return wantOne(db.Runs(ctx, admin, store.RunQuery{
				Owner: "ann", SessionID: "s", AgentID: "a", Statuses: []string{"COMPLETED"},
				After: new(day.Unix()), Before: new(day.Unix()), ByLength: true,
			}))
		}},
	}
}

// sessionCalls are the calls for the session of the run and for another one.
func sessionCalls() []call {
	other := store.Session{Owner: "ann", SessionID: "t", SessionType: "agent", Name: new("n"),
		Metadata: json.RawMessage(`{}`), CreatedAt: day}
	return []call{
		{"CreateSession", func(ctx context.Context, db *store.DB) error { return db.CreateSession(ctx, other) }},
		{"Session", func(ctx context.Context, db *store.DB) error { _, err := db.Session(ctx, ann, "s", ""); return err }},
		{"ChangeSession", func(ctx context.Context, db *store.DB) error {
			_, err := db.ChangeSession(ctx, store.Session{Owner: "ann", SessionID: "s"},
				store.SessionChange{State: json.RawMessage(`{}`)}, day)
			return err
		}},
		{"Sessions", func(ctx context.Context, db *store.DB) error {
			page, _, err := db.Sessions(ctx, ann, store.SessionQuery{Owner: "ann", Type: "agent", Component: "a", NameHas: "x",
				Limit: 2, Page: 1})
			return wantOne(page, err)
		}},
		{"DeleteSessions", func(ctx context.Context, db *store.DB) error {
			_, err := db.DeleteSessions(ctx, ann, []string{"t"}, "ann")
			return err
		}},
	}
}

// memoryCalls are the calls for a memory, and for the memory that replaces it.
func memoryCalls() []call {
	memory := store.Memory{MemoryID: uuid.New(), Owner: "ann", Memory: "likes tea", Topics: []string{"food"},
		CreatedAt: day}
	merged := memory
	merged.MemoryID, memory.UpdatedAt = uuid.New(), day
	id := memory.MemoryID.String()
	return []call{
		{"AddMemory", func(ctx context.Context, db *store.DB) error { return db.AddMemory(ctx, memory) }},
		{"Memory", func(ctx context.Context, db *store.DB) error { _, err := db.Memory(ctx, ann, id, ""); return err }},
		{"ChangeMemory", func(ctx context.Context, db *store.DB) error {
			_, err := db.ChangeMemory(ctx, ann, id, "likes tea", nil, day)
			return err
		}},
		{"Memories", func(ctx context.Context, db *store.DB) error {
			page, _, err := db.Memories(ctx, ann, store.MemoryQuery{Owner: "ann", Has: "TEA", Topics: []string{"food"},
				Limit: 2, Page: 1})
			return wantOne(page, err)
		}},
		{"MemoryStats", func(ctx context.Context, db *store.DB) error {
			page, _, err := db.MemoryStats(ctx, admin, store.MemoryQuery{Limit: 2, Page: 1})
			return wantOne(page, err)
		}},
		{"MemoryTopics", func(ctx context.Context, db *store.DB) error {
			return wantOne(db.MemoryTopics(ctx, admin, "", 0, 0))
		}},
		{"MergeMemories", func(ctx context.Context, db *store.DB) error {
			return db.MergeMemories(ctx, []store.Memory{memory}, merged)
		}},
		{"DeleteMemories", func(ctx context.Context, db *store.DB) error {
			_, err := db.DeleteMemories(ctx, ann, []string{merged.MemoryID.String()}, "")
			return err
		}},
	}
}

// wantOne returns an error unless the list has exactly one element.
func wantOne[T any](list []T, err error) error { return want(len(list) == 1, err) }

func want(found bool, err error) error {
	if err == nil && !found {
		err = errors.New("nothing was found")
	}
	return err
}

func TestAllCallsCallsEveryMethodOfTheStore(t *testing.T) {
	t.Parallel()
	var want, got []string
	for m := range reflect.TypeFor[*store.DB]().Methods() {
		// Functions do not probe, or export a whole user. Owners returns what Check has read, and Connections counts.
		if !slices.Contains([]string{"Close", "Probe", "Owners", "ExportUser", "Connections"}, m.Name) {
			want = append(want, m.Name)
		}
	}
	for _, c := range allCalls() {
		got = append(got, c.method)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
		t.Error(diff)
	}
}

// record executes allCalls and returns the messages that PostgreSQL received and the number of round trips, without
// those to connect.
func record(t *testing.T, unnamed bool) ([]wiretap.Message, int) {
	t.Helper()
	var mu sync.Mutex
	var messages []wiretap.Message
	tap, err := wiretap.Open(t.Context(), storetest.URL(t), func(m wiretap.Message) {
		mu.Lock()
		defer mu.Unlock()
		messages = append(messages, m)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	db, err := store.Open(store.Options{URL: tap.URL, Schema: storetest.Schema, MaxConns: 2, Unnamed: unnamed})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Check(t.Context()); err != nil { // It connects.
		t.Fatal(err)
	}
	before := tap.Trips.Load()
	for _, c := range allCalls() {
		if err := c.do(t.Context(), db); err != nil {
			t.Errorf("%s: %v", c.method, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(messages), int(tap.Trips.Load() - before)
}

const ping = "-- ping" // The pool sends it after a second without a query.

// According to AWS's documentation, these pin a connection of RDS Proxy: settings, prepared statements, temporary
// tables, cursors, LISTEN, sequences, advisory locks, and statements of more than 16 KB.
func TestUnnamedStatementsLeaveNoStateWithTheConnection(t *testing.T) {
	t.Parallel()
	plain := regexp.MustCompile(`^\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b`)
	// A lock of the transaction is released with it, and leaves nothing; AWS names the functions whose locks stay.
	state := regexp.MustCompile(`(?i)set_config|advisory_(un)?lock|nextval|setval|currval|lastval|\btemp`)
	messages, trips := record(t, true)
	statements, pings := 0, 0
	for _, m := range messages {
		switch {
		case m.Name != "":
			t.Errorf("a statement has a name: %+v", m)
		case m.Kind == 0 && !regexp.MustCompile(`^(database=\w+ user=\w+|user=\w+ database=\w+)$`).MatchString(m.Text):
			t.Errorf("a connection starts with %q", m.Text)
		case m.Kind == 'Q' && m.Text == ping:
			pings++
		case m.Kind == 'Q':
			t.Errorf("a statement uses the simple protocol: %q", m.Text)
		case m.Kind == 'P':
			if statements++; !plain.MatchString(m.Text) || state.MatchString(m.Text) || len(m.Text) > 16<<10 {
				t.Errorf("%q", m.Text)
			}
		}
	}
	const repeated = 1 // BeginRun reads the first run of a repeated request.
	// Each Sweep also deletes old counts of limits, EraseUser too, and UserPage reads each of five kinds with two
	// statements.
	const more = 3 + 1 + 9
	if calls := len(allCalls()); statements < calls || trips != calls+repeated+more+pings {
		t.Errorf("%d calls: %d statements, %d round trips, %d of them pings", calls, statements, trips, pings)
	}
}

// It shows that the test above would notice named statements.
func TestNamedStatementsArePreparedAndKept(t *testing.T) {
	t.Parallel()
	messages, trips := record(t, false)
	named := slices.ContainsFunc(messages, func(m wiretap.Message) bool { return m.Kind == 'P' && m.Name != "" })
	if calls := len(allCalls()); !named || trips < calls*3/2 {
		t.Errorf("named: %t; %d round trips for the first %d calls", named, trips, calls)
	}
}

func TestUnnamedWorksWithAnAddressFromASecret(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	var mu sync.Mutex
	var names []string
	tap, err := wiretap.Open(t.Context(), url, func(m wiretap.Message) {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, m.Name)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	db, err := store.Open(store.Options{
		Schema: storetest.Schema, Unnamed: true,
		Address: func(context.Context) (string, error) { return tap.URL, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Run(t.Context(), ann, store.RunQuery{RunID: uuid.NewString()}); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(names) == 0 || slices.ContainsFunc(names, func(name string) bool { return name != "" }) {
		t.Errorf("%q", names)
	}
}
