package store_test

import (
	"context"
	"encoding/json"
	"errors"
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
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// call is a method of a store, called.
type call struct {
	method string
	do     func(context.Context, *store.DB) error
}

// everything calls each method that asks the database, so that each has something to do.
func everything() []call {
	r := store.Run{
		RunID: uuid.New(), Owner: "ann", SessionID: "s", AgentID: "a", Status: "PENDING", Attempt: 2, Background: true, CreatedAt: day,
		SessionState: json.RawMessage(`{"a":1}`), Input: strings.Repeat("x", 20_000), // is no part of a statement's text
	}
	check := call{"Check", func(ctx context.Context, db *store.DB) error { return db.Check(ctx) }}
	return slices.Concat([]call{check}, waiting(r), carried(r), ended(r), sessions(), memories())
}

// waiting is a run until the second who takes it.
func waiting(r store.Run) []call {
	later := day.Add(time.Hour)
	how := store.BeginOptions{Request: store.Request{Key: "k", Digest: []byte{0, 255}}, History: 3}
	r.Attempt = 0
	take := call{"ClaimRun", func(ctx context.Context, db *store.DB) error {
		_, taken, err := db.ClaimRun(ctx, r.RunID, day)
		return did(taken, err)
	}}
	return []call{
		{"BeginRun", func(ctx context.Context, db *store.DB) error { _, err := db.BeginRun(ctx, r, how); return err }},
		{"BeginRun", func(ctx context.Context, db *store.DB) error { // is refused, and its run is read
			again := r
			again.RunID = uuid.New()
			_, err := db.BeginRun(ctx, again, how)
			if _, ok := errors.AsType[*store.Repeated](err); ok {
				return nil
			}
			return did(false, err)
		}},
		{"EnqueueRun", func(ctx context.Context, db *store.DB) error { return db.EnqueueRun(ctx, r.RunID, day) }},
		{"ReceiveRuns", func(ctx context.Context, db *store.DB) error { return one(db.ReceiveRuns(ctx, 1, day, later)) }},
		{"AcknowledgeRun", func(ctx context.Context, db *store.DB) error { return db.AcknowledgeRun(ctx, r.RunID, later) }},
		{"RequeueExpired", func(ctx context.Context, db *store.DB) error {
			return one(db.RequeueExpired(ctx, later.Add(time.Hour)))
		}},
		take,
		{"ReleaseRun", func(ctx context.Context, db *store.DB) error {
			return db.ReleaseRun(ctx, store.Attempt{RunID: r.RunID, Number: 1}, day)
		}},
		take,
		{"LeaseOf", func(ctx context.Context, db *store.DB) error {
			_, carried, err := db.LeaseOf(ctx, r.RunID)
			return did(carried, err)
		}},
	}
}

// carried is a run until its end, with a pause.
func carried(r store.Run) []call {
	first, query := store.Events{RunID: r.RunID, Attempt: r.Attempt, Count: 1, Frames: "f\n\n"}, store.RunQuery{RunID: r.RunID.String()}
	second := first
	second.First = 1
	pulse := func(renew bool) func(context.Context, *store.DB) error {
		return func(ctx context.Context, db *store.DB) error {
			cancel, _, err := db.Pulse(ctx, []store.Attempt{held(r)}, day, renew)
			return one(cancel, err)
		}
	}
	return []call{
		{"Checkpoint", func(ctx context.Context, db *store.DB) error {
			return db.Checkpoint(ctx, held(r), store.Checkpoint{Data: json.RawMessage(`{}`), Events: first, Next: 1})
		}},
		{"AddEvents", func(ctx context.Context, db *store.DB) error { return db.AddEvents(ctx, []store.Events{second}) }},
		{"EventsAfter", func(ctx context.Context, db *store.DB) error { return one(db.EventsAfter(ctx, r.RunID, 0)) }},
		{"RequestCancel", func(ctx context.Context, db *store.DB) error { return did(db.RequestCancel(ctx, ann, query, day)) }},
		{"Pulse", pulse(true)},
		{"Pulse", pulse(false)},
		{"FinishRun", ends(r, "PAUSED")},
		{"ContinueRun", func(ctx context.Context, db *store.DB) error {
			_, taken, err := db.ContinueRun(ctx, store.Run{RunID: r.RunID, Checkpoint: json.RawMessage(`{}`)}, day)
			return did(taken, err)
		}},
		{"FinishRun", ends(r, "COMPLETED")},
	}
}

func ends(r store.Run, status string) func(context.Context, *store.DB) error {
	r.Status, r.Messages, r.Metrics = status, json.RawMessage(`[{"role":"user","content":"x"}]`), json.RawMessage(`{}`)
	return func(ctx context.Context, db *store.DB) error {
		return db.FinishRun(ctx, r, store.Events{}, store.Usage{ModelID: "m", Total: 1}, day)
	}
}

// ended is a run that is read.
func ended(r store.Run) []call {
	return []call{
		{"History", func(ctx context.Context, db *store.DB) error { return one(db.History(ctx, "ann", "s", "a", 3)) }},
		{"Conversation", func(ctx context.Context, db *store.DB) error {
			said, err := db.Conversation(ctx, ann, "ann", "s")
			return did(len(said) > 2, err)
		}},
		{"Run", func(ctx context.Context, db *store.DB) error {
			_, err := db.Run(ctx, ann, store.RunQuery{RunID: r.RunID.String()})
			return err
		}},
		{"Runs", func(ctx context.Context, db *store.DB) error {
			return one(db.Runs(ctx, admin, store.RunQuery{
				Owner: "ann", SessionID: "s", AgentID: "a", Statuses: []string{"COMPLETED"}, After: new(day.Unix()), Before: new(day.Unix()), ByLength: true,
			}))
		}},
	}
}

// sessions are the one of the run, and another.
func sessions() []call {
	other := store.Session{Owner: "ann", SessionID: "t", SessionType: "agent", Name: new("n"), Metadata: json.RawMessage(`{}`), CreatedAt: day}
	return []call{
		{"CreateSession", func(ctx context.Context, db *store.DB) error { return db.CreateSession(ctx, other) }},
		{"Session", func(ctx context.Context, db *store.DB) error { _, err := db.Session(ctx, ann, "s", ""); return err }},
		{"ChangeSession", func(ctx context.Context, db *store.DB) error {
			_, err := db.ChangeSession(ctx, store.Session{Owner: "ann", SessionID: "s"}, store.SessionChange{State: json.RawMessage(`{}`)}, day)
			return err
		}},
		{"Sessions", func(ctx context.Context, db *store.DB) error {
			page, _, err := db.Sessions(ctx, ann, store.SessionQuery{Owner: "ann", Type: "agent", Component: "a", NameHas: "x", Limit: 2, Page: 1})
			return one(page, err)
		}},
		{"DeleteSessions", func(ctx context.Context, db *store.DB) error {
			return db.DeleteSessions(ctx, ann, []string{"t"}, "ann")
		}},
	}
}

// memories are one, and what it is merged into.
func memories() []call {
	memory := store.Memory{MemoryID: uuid.New(), Owner: "ann", Memory: "likes tea", Topics: []string{"food"}, CreatedAt: day}
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
			page, _, err := db.Memories(ctx, ann, store.MemoryQuery{Owner: "ann", Has: "TEA", Topics: []string{"food"}, Limit: 2, Page: 1})
			return one(page, err)
		}},
		{"MemoryStats", func(ctx context.Context, db *store.DB) error {
			page, _, err := db.MemoryStats(ctx, admin, store.MemoryQuery{Limit: 2, Page: 1})
			return one(page, err)
		}},
		{"MemoryTopics", func(ctx context.Context, db *store.DB) error { return one(db.MemoryTopics(ctx, admin, "")) }},
		{"MergeMemories", func(ctx context.Context, db *store.DB) error {
			return db.MergeMemories(ctx, []store.Memory{memory}, merged)
		}},
		{"DeleteMemories", func(ctx context.Context, db *store.DB) error {
			return db.DeleteMemories(ctx, ann, []string{merged.MemoryID.String()}, "")
		}},
	}
}

// one wants exactly one of what was asked for.
func one[T any](list []T, err error) error { return did(len(list) == 1, err) }

func did(it bool, err error) error {
	if err == nil && !it {
		err = errors.New("nothing was found")
	}
	return err
}

func TestEverythingIsEachMethodThatAsksTheDatabase(t *testing.T) {
	t.Parallel()
	var want, got []string
	for m := range reflect.TypeFor[*store.DB]().Methods() {
		if m.Name != "Close" {
			want = append(want, m.Name)
		}
	}
	for _, c := range everything() {
		got = append(got, c.method)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
		t.Error(diff)
	}
}

// heard calls everything and gives what was said to PostgreSQL, and how often it was
// waited for, except to connect.
func heard(t *testing.T, unnamed bool) ([]wiretap.Message, int) {
	t.Helper()
	var mu sync.Mutex
	var said []wiretap.Message
	tap, err := wiretap.Open(t.Context(), storetest.URL(t), func(m wiretap.Message) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, m)
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
	if err := db.Check(t.Context()); err != nil { // connects
		t.Fatal(err)
	}
	before := tap.Trips.Load()
	for _, c := range everything() {
		if err := c.do(t.Context(), db); err != nil {
			t.Errorf("%s: %v", c.method, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(said), int(tap.Trips.Load() - before)
}

const ping = "-- ping" // of the pool, after a second without a query

// What pins a connection of RDS Proxy, by its documentation: settings, prepared statements,
// temporary tables, cursors, LISTEN, sequences, advisory locks, texts over 16 KB.
func TestWithoutNamesNothingIsLeftWithAConnection(t *testing.T) {
	t.Parallel()
	plain := regexp.MustCompile(`^\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b`)
	state := regexp.MustCompile(`(?i)set_config|advisory|nextval|setval|currval|lastval|\btemp`)
	said, trips := heard(t, true)
	statements, pings := 0, 0
	for _, m := range said {
		switch {
		case m.Name != "":
			t.Errorf("a statement has a name: %+v", m)
		case m.Kind == 0 && !regexp.MustCompile(`^(database=\w+ user=\w+|user=\w+ database=\w+)$`).MatchString(m.Text):
			t.Errorf("a connection begins with %q", m.Text)
		case m.Kind == 'Q' && m.Text == ping:
			pings++
		case m.Kind == 'Q':
			t.Errorf("the simple protocol: %q", m.Text)
		case m.Kind == 'P':
			if statements++; !plain.MatchString(m.Text) || state.MatchString(m.Text) || len(m.Text) > 16<<10 {
				t.Errorf("%q", m.Text)
			}
		}
	}
	const repeated = 1 // to read the run of a request that came before
	if calls := len(everything()); statements < calls || trips != calls+repeated+pings {
		t.Errorf("%d calls: %d statements, %d round trips, %d of them pings", calls, statements, trips, pings)
	}
}

// So that the test above would notice.
func TestAServersStatementsHaveNamesAndAreKept(t *testing.T) {
	t.Parallel()
	said, trips := heard(t, false)
	named := slices.ContainsFunc(said, func(m wiretap.Message) bool { return m.Kind == 'P' && m.Name != "" })
	if calls := len(everything()); !named || trips < calls*3/2 {
		t.Errorf("named: %t; %d round trips for the first %d calls", named, trips, calls)
	}
}

func TestWithoutNamesASecretsAddressIsUsedAsWell(t *testing.T) {
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
