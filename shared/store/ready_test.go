package store_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// Ready gets what BeginRun returns, at a time when no other connection sees the run.
func TestReadyIsCalledBeforeTheCommit(t *testing.T) {
	t.Parallel()
	for name, unnamed := range map[string]bool{"a server": false, "a function": true} {
		for limits, budget := range map[string]store.Budget{"no limits": {}, "limits": allLimits("ann", 9)} {
			t.Run(name+", "+limits, func(t *testing.T) {
				t.Parallel()
				url := storetest.URL(t)
				db, err := store.Open(store.Options{URL: url, Schema: storetest.Schema, Unnamed: unnamed})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(db.Close)
				earlier := newRun("RUNNING")
				if err := start(t.Context(), db, earlier, budget); err != nil {
					t.Fatal(err)
				}
				earlier.Status, earlier.Messages = "COMPLETED", json.RawMessage(`["hello"]`)
				earlier.Metrics = json.RawMessage("{}")
				if _, err := db.FinishRun(t.Context(), leg(earlier), earlier, nil, store.Usage{}, day); err != nil {
					t.Fatal(err)
				}
				other := holdCommits(t, url)
				r := newRun("RUNNING")
				r.SessionID, r.SessionState = earlier.SessionID, json.RawMessage(`{"a": 1}`)
				calls, stored := 0, -1
				var before store.BeginResult
				begun, err := db.BeginRun(t.Context(), r, store.BeginOptions{
					Leg: &r.RunID, Budget: budget, History: 3, Ready: func(b store.BeginResult) {
						before, stored = b, runsIn(t, other)
						calls++
						letCommit(t, other)
					},
				})
				if err != nil || calls != 1 || stored != 1 || runsIn(t, other) != 2 {
					t.Errorf("%v, %d calls, %d and then %d runs", err, calls, stored, runsIn(t, other))
				}
				want := store.BeginResult{
					State: json.RawMessage(`{"a": 1}`), History: []json.RawMessage{earlier.Messages},
				}
				if diff := cmp.Diff(want, begun) + cmp.Diff(want, before); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// holdCommits makes the commit of each new run wait until letCommit is called with the connection that it returns.
func holdCommits(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	for _, sql := range []string{
		`CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$`,
		`CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON keyway.runs DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION wait()`,
		`SELECT pg_advisory_lock(1)`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

func letCommit(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), "SELECT pg_advisory_unlock(1)"); err != nil {
		t.Error(err)
	}
}

// runsIn counts the runs that another connection sees.
func runsIn(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM keyway.runs").Scan(&n); err != nil {
		t.Error(err)
	}
	return n
}

func TestReadyIsNotCalledForARunThatIsRefused(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	keyed := store.BeginOptions{Request: store.Request{Key: "k", Digest: []byte{1}}}
	once := allLimits("zoe", 1)
	if err := start(t.Context(), db, newRun("RUNNING"), once); err != nil {
		t.Fatal(err)
	}
	if _, err := db.BeginRun(t.Context(), newRun("RUNNING"), keyed); err != nil {
		t.Fatal(err)
	}
	large := newRun("RUNNING")
	large.SessionState = json.RawMessage(`{"a": "more than ten bytes"}`)
	for name, row := range map[string]struct {
		run store.Run
		how store.BeginOptions
	}{
		"a repeated request": {newRun("RUNNING"), keyed},
		"another request with the key": {newRun("RUNNING"), store.BeginOptions{
			Request: store.Request{Key: "k", Digest: []byte{2}},
		}},
		"a limit":               {newRun("RUNNING"), store.BeginOptions{Budget: once}},
		"a state over its size": {large, store.BeginOptions{MaxState: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row.how.Leg = &row.run.RunID
			row.how.Ready = func(store.BeginResult) { t.Error("Ready was called") }
			if _, err := db.BeginRun(t.Context(), row.run, row.how); err == nil {
				t.Error("the run began")
			}
		})
	}
}

// A statement that fails leaves its connection usable.
func TestAConnectionIsUsedAfterABeginThatFailed(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url, MaxConns: 1})
	for range 2 {
		r := newRun("RUNNING")
		r.Metadata = json.RawMessage(`{"a": "\u0000"}`) // jsonb refuses it
		if err := start(t.Context(), db, r, store.Budget{}); err == nil {
			t.Error("the run began")
		}
		if err := start(t.Context(), db, newRun("RUNNING"), store.Budget{}); err != nil {
			t.Error(err)
		}
	}
}
