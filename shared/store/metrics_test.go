package store_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// on is a day of the tests of metrics.
func on(day int) time.Time { return time.Date(2026, 3, day, 0, 0, 0, 0, time.UTC) }

// used makes runs that ended on three days: two of ann on the first, one of bob on its last microsecond, one of ann on
// the second, and one without an owner on the third. One has not ended.
func used(t *testing.T) (db *store.DB, url string) {
	t.Helper()
	url = storetest.URL(t)
	db = storetest.Open(t, store.Options{URL: url})
	for _, r := range []struct{ owner, session, agent, model, metrics, ended string }{
		{"ann", "s1", "a", "m", `{"input_tokens":10,"output_tokens":5,"total_tokens":15,"cost":0.25}`,
			"2026-03-01T00:00:00Z"},
		{"ann", "s1", "a", "m", `{"input_tokens":1,"output_tokens":1,"total_tokens":2,"cost":0.5}`, "2026-03-01T10:00:00Z"},
		{"bob", "s1", "b", "n", `{}`, "2026-03-01T23:59:59.999999Z"},
		{"ann", "s2", "b", "m", `{"input_tokens":7,"total_tokens":7}`, "2026-03-02T00:00:00Z"},
		{"", "s3", "a", "m", `{"total_tokens":3}`, "2026-03-03T05:00:00Z"},
	} {
		begun := begin(t, db, r.owner, r.session, 0)
		finish(t, db, begun)
		sql(t, url, fmt.Sprintf(`UPDATE keyway.runs SET agent_id = '%s', model_id = '%s', metrics = '%s', finished_at = '%s'
			WHERE run_id = '%s'`, r.agent, r.model, r.metrics, r.ended, begun.RunID))
	}
	begin(t, db, "ann", "s1", 9)
	return db, url
}

// days returns the metrics as texts.
func days(t *testing.T, db *store.DB, v store.Viewer, q store.UsageQuery) string {
	t.Helper()
	list, err := db.MetricsByDay(t.Context(), v, q)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range list {
		out = append(out, fmt.Sprintf("%s: %d runs, %d sessions, %d users, %d+%d=%d tokens %s", d.Day.Format("01-02"), d.Runs,
			d.Sessions, d.Users, d.Input, d.Output, d.Total, strings.ReplaceAll(string(d.Models), " ", "")))
	}
	return strings.Join(out, "\n")
}

func TestMetricsAreThoseOfTheRunsThatEndedOnADay(t *testing.T) {
	t.Parallel()
	db, _ := used(t)
	march := store.UsageQuery{From: on(1), To: on(31)}
	ofAnn := store.UsageQuery{From: on(1), To: on(31), Owner: "ann"}
	first := `03-01: 3 runs, 2 sessions, 2 users, 11+6=17 tokens ` +
		`[{"model_id":"m","model_provider":"P","count":2},{"model_id":"n","model_provider":"P","count":1}]`
	anns := `03-01: 2 runs, 1 sessions, 1 users, 11+6=17 tokens [{"model_id":"m","model_provider":"P","count":2}]`
	second := `03-02: 1 runs, 1 sessions, 1 users, 7+0=7 tokens [{"model_id":"m","model_provider":"P","count":1}]`
	third := `03-03: 1 runs, 1 sessions, 0 users, 0+0=3 tokens [{"model_id":"m","model_provider":"P","count":1}]`
	for name, test := range map[string]struct {
		viewer store.Viewer
		query  store.UsageQuery
		want   string
	}{
		"all users":                 {admin, march, first + "\n" + second + "\n" + third},
		"one day":                   {admin, store.UsageQuery{From: on(1), To: on(2)}, first},
		"no day":                    {admin, store.UsageQuery{From: on(4), To: on(5)}, ""},
		"of one user":               {admin, ofAnn, anns + "\n" + second},
		"one's own":                 {store.Viewer{Owner: "ann"}, march, anns + "\n" + second},
		"another's":                 {store.Viewer{Owner: "bob"}, ofAnn, ""},
		"of the token's session":    {store.Viewer{Owner: "ann", Session: "s2"}, march, second},
		"a viewer who owns nothing": {store.Viewer{}, march, ""},
	} {
		if got := days(t, db, test.viewer, test.query); got != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, test.want)
		}
	}
}

func TestUsageIsDividedByDayAgentUserAndModel(t *testing.T) {
	t.Parallel()
	db, _ := used(t)
	read := func(v store.Viewer, q store.UsageQuery, limit, page int) (string, int) {
		t.Helper()
		rows, total, err := db.UsageByDay(t.Context(), v, q, limit, page)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, u := range rows {
			cost := "none"
			if u.Cost != nil {
				cost = fmt.Sprint(*u.Cost)
			}
			out = append(out, fmt.Sprintf("%s %s %q %s/%s %d %d+%d %s", u.Day.Format("01-02"), u.AgentID, u.Owner, u.Provider,
				u.ModelID, u.Runs, u.Input, u.Output, cost))
		}
		return strings.Join(out, "\n"), total
	}
	march := store.UsageQuery{From: on(1), To: on(31)}
	want := []string{`03-03 a "" P/m 1 0+0 none`, `03-02 b "ann" P/m 1 7+0 none`, `03-01 a "ann" P/m 2 11+6 0.75`,
		`03-01 b "bob" P/n 1 0+0 none`}
	if got, total := read(admin, march, 10, 1); got != strings.Join(want, "\n") || total != 4 {
		t.Errorf("%s of %d", got, total)
	}
	if got, total := read(admin, march, 3, 2); got != want[3] || total != 4 {
		t.Errorf("the second page is %s of %d", got, total)
	}
	one := store.UsageQuery{From: on(1), To: on(31), AgentID: "b", Owner: "ann"}
	if got, _ := read(admin, one, 10, 1); got != want[1] {
		t.Errorf("of one agent and user: %s", got)
	}
	if got, _ := read(store.Viewer{Owner: "bob"}, march, 10, 1); got != want[3] {
		t.Errorf("what bob sees: %s", got)
	}
}

// Years of runs may be stored, and only those of the days that were asked for are read.
func TestMetricsReadOnlyTheRunsOfTheirDays(t *testing.T) {
	t.Parallel()
	db, url := used(t)
	queueRuns(t, url, 3000, "ann")
	sql(t, url, `UPDATE keyway.runs SET status = 'COMPLETED', lease_until = NULL, finished_at = '2025-01-01T00:00:00Z'
		WHERE finished_at IS NULL; ANALYZE keyway.runs`)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	query, args := store.MetricsQuery(db, admin, store.UsageQuery{From: on(1), To: on(31)})
	var plan json.RawMessage
	if err := conn.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+query, args).Scan(&plan); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(plan), "runs_finished") || strings.Contains(string(plan), `"Seq Scan"`) {
		t.Errorf("%s", plan)
	}
}
