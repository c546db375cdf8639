package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// queueRuns stores visible pending runs of each caller, n of them, the oldest first. Their owners have the same names.
func queueRuns(t *testing.T, url string, n int, callers ...string) {
	t.Helper()
	sql(t, url, fmt.Sprintf(`
		INSERT INTO keyway.sessions (owner, session_id, created_at, updated_at)
			SELECT owner, 's', now(), now() FROM unnest('{%[1]s}'::text[]) AS owner ON CONFLICT DO NOTHING;
		INSERT INTO keyway.runs (run_id, owner, spender, session_id, agent_id, agent_name, model_id, model_provider,
			status, attempt, input, created_at, lease_until)
		SELECT gen_random_uuid(), owner, owner, 's', 'a', 'A', 'm', 'P', 'PENDING', 0, n::text, now(),
			now() - interval '1 hour' + make_interval(secs => n * 0.001)
		FROM unnest('{%[1]s}'::text[]) AS owner, generate_series(1, %[2]d) AS n`, strings.Join(callers, ","), n))
}

// receive receives runs and claims them, as a server with free processes does, and returns their callers in order.
func receive(t *testing.T, db *store.DB, n int, after string) (callers []string) {
	t.Helper()
	list, _, err := db.ReceiveRuns(t.Context(), n, time.Minute, after)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if _, claimed, err := db.ClaimRun(t.Context(), m.RunID, uuid.New(), store.Places{}); err != nil || !claimed {
			t.Fatal(claimed, err)
		}
		callers = append(callers, m.Spender)
	}
	slices.Sort(callers)
	return callers
}

func TestTheRunsOfOneCallerDoNotHoldUpAnothers(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	servers := []*store.DB{storetest.Open(t, store.Options{URL: url}), storetest.Open(t, store.Options{URL: url})}
	queueRuns(t, url, 120, "low")
	for _, db := range servers {
		if got := receive(t, db, 32, ""); len(got) != 32 {
			t.Fatalf("%d runs have a process, want all 32", len(got))
		}
	}
	queueRuns(t, url, 2, "bob")
	// Both servers have one free process after the other.
	for i, want := range []string{"bob", "bob", "low", "low"} {
		if got := receive(t, servers[i%2], 1, "low"); !slices.Equal(got, []string{want}) {
			t.Errorf("free process %d gets the run of %v, want %s", i, got, want)
		}
	}
}

func TestCallersShareTheProcessesEqually(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	queueRuns(t, url, 40, "ann", "bob")
	if got := receive(t, db, 10, ""); !slices.Equal(got, slices.Concat(slices.Repeat([]string{"ann"}, 5),
		slices.Repeat([]string{"bob"}, 5))) {
		t.Errorf("%v", got)
	}
	// Cleo comes later. She gets as many as the others have before they get more.
	queueRuns(t, url, 40, "cleo")
	if got := receive(t, db, 5, ""); !slices.Equal(got, slices.Repeat([]string{"cleo"}, 5)) {
		t.Errorf("%v", got)
	}
	if got := receive(t, db, 3, ""); !slices.Equal(got, []string{"ann", "bob", "cleo"}) {
		t.Errorf("%v", got)
	}
}

// A server with one process executes one run after the other, so nobody has runs in progress when it is free.
func TestCallersTakeTurnsWithOneProcess(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	queueRuns(t, url, 5, "low")
	queueRuns(t, url, 2, "bob", "ann")
	last, order := "", ""
	for range 9 {
		list, next, err := db.ReceiveRuns(t.Context(), 1, time.Minute, last)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		sql(t, url, "DELETE FROM keyway.runs WHERE run_id = '"+list[0].RunID.String()+"'") // It ends.
		order, last = order+" "+list[0].Spender, next
	}
	if want := " ann bob low ann bob low low low low"; order != want {
		t.Errorf("the callers of the runs are%s, want%s", order, want)
	}
}

// Without isolation, a caller can name another user in each request, and each run then has another owner.
func TestRunsShareTheTurnsOfTheirCallerWhateverOwnersTheyHave(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("a%02d", i))
	}
	queueRuns(t, url, 1, names...)
	sql(t, url, "UPDATE keyway.runs SET spender = 'low'")
	queueRuns(t, url, 3, "zoe")
	want := slices.Concat(slices.Repeat([]string{"low"}, 3), slices.Repeat([]string{"zoe"}, 3))
	if got := receive(t, db, 6, ""); !slices.Equal(got, want) {
		t.Errorf("the places go to %v, want half of them to each caller", got)
	}
}

func TestTheRunsOfACallerAreReceivedOldestFirst(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	queueRuns(t, url, 3, "ann")
	for _, want := range []string{"1", "2", "3"} {
		list, _, err := db.ReceiveRuns(t.Context(), 1, time.Minute, "")
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		r, err := db.Run(t.Context(), ann, store.RunQuery{RunID: list[0].RunID.String()})
		if err != nil || r.Input != want {
			t.Errorf("run %s %v, want %s", r.Input, err, want)
		}
	}
}

// A crashed process executes nothing, so its runs do not count once their leases have expired.
func TestACrashedRunIsNotCountedInTheShareOfItsCaller(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	queueRuns(t, url, 5, "ann")
	receive(t, db, 4, "")
	sql(t, url, "UPDATE keyway.runs SET lease_until = now() - interval '1 second' WHERE status = 'RUNNING'")
	queueRuns(t, url, 2, "bob")
	if got := receive(t, db, 2, ""); !slices.Equal(got, []string{"ann", "bob"}) {
		t.Errorf("%v", got)
	}
}

// More callers wait than one statement looks at. Half of them have many runs, so they never stop waiting.
func TestNoCallerWaitsForeverAmongHundreds(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: url})
	var busy, quiet []string
	for i := range 300 {
		busy, quiet = append(busy, fmt.Sprintf("a%04d", i)), append(quiet, fmt.Sprintf("b%04d", i))
	}
	queueRuns(t, url, 15, busy...)
	queueRuns(t, url, 1, quiet...)
	served, last, n := map[string]bool{}, "", 0
	for n < 700 && len(served) < len(quiet) { // a turn of each of the 600, and a rest
		list, next, err := db.ReceiveRuns(t.Context(), 50, time.Minute, last)
		if err != nil || len(list) != 50 {
			t.Fatal(len(list), err)
		}
		for _, m := range list {
			if n++; m.Spender >= "b" {
				served[m.Spender] = true
			}
		}
		last = next
	}
	if len(served) < len(quiet) {
		t.Errorf("after %d of 4,800 runs, %d of %d callers with one run each still wait", n, len(quiet)-len(served),
			len(quiet))
	}
}

// The plan matters and not the time. Without statistics, as in a new database, and with them, the statement must find
// what it needs in the index of shares.
func TestReceivingReadsAFewOfThousandsOfRuns(t *testing.T) {
	t.Parallel()
	for name, fill := range map[string]func(string){
		"one caller": func(url string) { queueRuns(t, url, 10_000, "low"); queueRuns(t, url, 1, "bob") },
		"thousands of callers": func(url string) {
			sql(t, url, `WITH s AS (
				INSERT INTO keyway.sessions (owner, session_id, created_at, updated_at)
				SELECT 'u' || n, 's', now(), now() FROM generate_series(1, 10000) AS n RETURNING owner)
				INSERT INTO keyway.runs (run_id, owner, spender, session_id, agent_id, agent_name, model_id, model_provider,
					status, attempt, input, created_at, lease_until)
				SELECT gen_random_uuid(), owner, owner, 's', 'a', 'A', 'm', 'P', 'PENDING', 0, 'x', now(), now() FROM s`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := storetest.URL(t)
			fill(url)
			for _, statistics := range []bool{false, true} {
				if statistics {
					sql(t, url, "ANALYZE keyway.runs")
				}
				if read := rowsRead(t, url); read > 4000 {
					t.Errorf("with statistics %t: %d rows are read to receive 32 of 10,000", statistics, read)
				}
			}
		})
	}
}

// rowsRead returns how many rows the scans of the statement that receives read.
func rowsRead(t *testing.T, url string) (rows int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	args := pgx.NamedArgs{"limit": 32, "invisible": 30.0, "last": "u5000", "repeated": false}
	var plans []json.RawMessage
	if err := conn.QueryRow(t.Context(), "EXPLAIN (ANALYZE, FORMAT JSON) "+store.ReceiveQuery, args).
		Scan(&plans); err != nil {
		t.Fatal(err)
	}
	type plan struct {
		Node    string  `json:"Node Type"`
		Rows    float64 `json:"Actual Rows"`
		Removed float64 `json:"Rows Removed by Filter"`
		Index   float64 `json:"Rows Removed by Index Recheck"`
		Loops   float64 `json:"Actual Loops"`
		Plans   []plan
	}
	var top struct {
		Plan plan
		Time float64 `json:"Execution Time"`
	}
	if err := json.Unmarshal(plans[0], &top); err != nil {
		t.Fatal(err)
	}
	var walk func(plan)
	walk = func(p plan) {
		if strings.Contains(p.Node, "Scan") && p.Node != "CTE Scan" && p.Node != "WorkTable Scan" &&
			p.Node != "Subquery Scan" {
			rows += int((p.Rows + p.Removed + p.Index) * p.Loops)
		}
		for _, child := range p.Plans {
			walk(child)
		}
	}
	walk(top.Plan)
	t.Logf("%d rows in %.1f ms", rows, top.Time)
	if rows == 0 {
		t.Fatalf("no scan in the plan: %s", plans[0])
	}
	return rows
}
