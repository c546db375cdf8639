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
	run := store.Run{
		RunID: uuid.New(), Owner: "ann", SessionID: "s", AgentID: "a", Status: "PENDING", Background: true, CreatedAt: day, SessionState: json.RawMessage(`{"a":1}`),
		Input: strings.Repeat("x", 20_000), // is no part of a statement's text
	}
	query, long := store.RunQuery{RunID: run.RunID.String()}, day.Add(time.Hour)
	held, events := store.Held{RunID: run.RunID, Attempt: 1}, store.Events{RunID: run.RunID, Attempt: 1, Count: 1, Frames: "f\n\n"}
	memory := store.Memory{MemoryID: uuid.New(), Owner: "ann", Memory: "likes tea", Topics: []string{"food"}, CreatedAt: day, UpdatedAt: day}
	merged := store.Memory{MemoryID: uuid.New(), Owner: "ann", Memory: "likes green tea", Topics: []string{"food"}, CreatedAt: long, UpdatedAt: long}
	id := memory.MemoryID.String()
	end := func(status string) func(context.Context, *store.DB) error {
		return func(ctx context.Context, db *store.DB) error {
			r := run
			r.Attempt, r.Status, r.Messages, r.Metrics, r.Requirements = 1, status, json.RawMessage(`[{"role":"user","content":"x"}]`), json.RawMessage(`{}`), json.RawMessage(`[]`)
			return db.FinishRun(ctx, r, store.Events{}, store.Usage{ModelID: "m", Total: 1}, day)
		}
	}
	return []call{
		{"Check", func(ctx context.Context, db *store.DB) error { return db.Check(ctx) }},
		{"BeginRun", func(ctx context.Context, db *store.DB) error { _, err := db.BeginRun(ctx, run); return err }},
		{"EnqueueRun", func(ctx context.Context, db *store.DB) error { return db.EnqueueRun(ctx, run.RunID, day) }},
		{"ReceiveRuns", func(ctx context.Context, db *store.DB) error { return one(db.ReceiveRuns(ctx, 1, day, long)) }},
		{"AcknowledgeRun", func(ctx context.Context, db *store.DB) error { return db.AcknowledgeRun(ctx, run.RunID, long) }},
		{"TakeRun", func(ctx context.Context, db *store.DB) error {
			_, taken, err := db.TakeRun(ctx, run.RunID, day)
			return did(taken, err)
		}},
		{"Checkpoint", func(ctx context.Context, db *store.DB) error {
			return db.Checkpoint(ctx, held, store.Checkpoint{Data: json.RawMessage(`{}`), Events: events, Next: 1})
		}},
		{"AddEvents", func(ctx context.Context, db *store.DB) error {
			e := events
			e.First = 1
			return db.AddEvents(ctx, []store.Events{e})
		}},
		{"EventsAfter", func(ctx context.Context, db *store.DB) error { return one(db.EventsAfter(ctx, run.RunID, 0)) }},
		{"RequestCancel", func(ctx context.Context, db *store.DB) error { return did(db.RequestCancel(ctx, ann, query, day)) }},
		{"Pulse", func(ctx context.Context, db *store.DB) error {
			cancel, _, err := db.Pulse(ctx, []store.Held{held}, day, true)
			return one(cancel, err)
		}},
		{"Pulse", func(ctx context.Context, db *store.DB) error {
			cancel, _, err := db.Pulse(ctx, []store.Held{held}, day, false)
			return one(cancel, err)
		}},
		{"FinishRun", end("PAUSED")},
		{"ContinueRun", func(ctx context.Context, db *store.DB) error {
			_, taken, err := db.ContinueRun(ctx, store.Run{RunID: run.RunID, Checkpoint: json.RawMessage(`{}`)}, day)
			return did(taken, err)
		}},
		{"FinishRun", end("COMPLETED")},
		{"RequeueExpired", func(ctx context.Context, db *store.DB) error { _, err := db.RequeueExpired(ctx, expired); return err }},
		{"History", func(ctx context.Context, db *store.DB) error { return one(db.History(ctx, "ann", "s", "a", 3)) }},
		{"Conversation", func(ctx context.Context, db *store.DB) error {
			_, err := db.Conversation(ctx, ann, "ann", "s")
			return err
		}},
		{"Run", func(ctx context.Context, db *store.DB) error { _, err := db.Run(ctx, ann, query); return err }},
		{"Runs", func(ctx context.Context, db *store.DB) error {
			return one(db.Runs(ctx, admin, store.RunQuery{
				Owner: "ann", SessionID: "s", AgentID: "a", Statuses: []string{"COMPLETED"}, After: new(day.Unix()), Before: new(day.Unix()), ByLength: true,
			}))
		}},
		{"CreateSession", func(ctx context.Context, db *store.DB) error {
			return db.CreateSession(ctx, store.Session{Owner: "ann", SessionID: "t", SessionType: "agent", Name: new("n"), Metadata: json.RawMessage(`{}`), CreatedAt: day})
		}},
		{"Session", func(ctx context.Context, db *store.DB) error { _, err := db.Session(ctx, ann, "s", ""); return err }},
		{"ChangeSession", func(ctx context.Context, db *store.DB) error {
			_, err := db.ChangeSession(ctx, store.Session{Owner: "ann", SessionID: "s"}, store.SessionChange{State: json.RawMessage(`{}`)}, day)
			return err
		}},
		{"Sessions", func(ctx context.Context, db *store.DB) error {
			page, _, err := db.Sessions(ctx, ann, store.SessionQuery{Owner: "ann", Type: "agent", Component: "a", NameHas: "x", Limit: 1, Page: 1})
			return one(page, err)
		}},
		{"DeleteSessions", func(ctx context.Context, db *store.DB) error { return db.DeleteSessions(ctx, ann, []string{"t"}, "ann") }},
		{"AddMemory", func(ctx context.Context, db *store.DB) error { return db.AddMemory(ctx, memory) }},
		{"Memory", func(ctx context.Context, db *store.DB) error { _, err := db.Memory(ctx, ann, id, ""); return err }},
		{"ChangeMemory", func(ctx context.Context, db *store.DB) error {
			_, err := db.ChangeMemory(ctx, ann, id, "likes tea", nil, day)
			return err
		}},
		{"Memories", func(ctx context.Context, db *store.DB) error {
			page, _, err := db.Memories(ctx, ann, store.MemoryQuery{Owner: "ann", Has: "TEA", Topics: []string{"food"}, Limit: 1, Page: 1})
			return one(page, err)
		}},
		{"MemoryStats", func(ctx context.Context, db *store.DB) error {
			page, _, err := db.MemoryStats(ctx, admin, store.MemoryQuery{Limit: 1, Page: 1})
			return one(page, err)
		}},
		{"MemoryTopics", func(ctx context.Context, db *store.DB) error { return one(db.MemoryTopics(ctx, admin, "")) }},
		{"MergeMemories", func(ctx context.Context, db *store.DB) error { return db.MergeMemories(ctx, []store.Memory{memory}, merged) }},
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
func heard(t *testing.T, unnamed bool) (said []wiretap.Message, trips int) {
	t.Helper()
	var mu sync.Mutex
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
	if calls := len(everything()); statements < calls || trips != calls+pings {
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
