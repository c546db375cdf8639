package migrations_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// holder is a migrated database whose only issuer is https://a, with data.
type holder struct {
	t    *testing.T
	conn *pgx.Conn
	at   migrations.Target
}

// newHolder makes a database with these issuers in the file. Each owner has the session s with a run and its usage, and
// a memory.
func newHolder(t *testing.T, file []string, owners ...string) holder {
	t.Helper()
	url := storetest.EmptyURL(t)
	h := holder{t, connect(t, url), issuers(target(url), file...)}
	if _, err := migrations.Run(t.Context(), h.at); err != nil {
		t.Fatal(err)
	}
	for _, o := range owners {
		h.give(o, "s", "COMPLETED", "key of "+o)
	}
	return h
}

// give stores a session of an owner.
func (h holder) give(owner, session, status, key string) {
	h.t.Helper()
	give := func(sql string, args ...any) { h.t.Helper(); exec(h.t, h.conn, sql, args...) }
	give("INSERT INTO k.sessions (owner, session_id, created_at, updated_at) VALUES ($1, $2, now(), now())", owner,
		session)
	give("INSERT INTO k.session_usage VALUES ($1, $2, 'm', 'f', 1, 2, 3)", owner, session)
	give(`INSERT INTO k.runs (run_id, owner, session_id, agent_id, agent_name, model_id, model_provider, status, input,
		created_at, finished_at, lease_until, idempotency_key) VALUES ($1, $2, $3, 'a', 'A', 'm', 'p', $4::text, '', now(),
		CASE WHEN $4 = 'COMPLETED' THEN now() END, CASE WHEN $4 IN ('PENDING', 'RUNNING') THEN now() END, $5)`,
		uuid.New(), owner, session, status, key)
	if owner != "" {
		give(`INSERT INTO k.memories (memory_id, owner, memory, topics, created_at, updated_at)
			VALUES ($1, $2, 'x', '{}', now(), now())`, uuid.New(), owner)
	}
}

// owners returns the owners of the rows of each table.
func (h holder) owners() string {
	h.t.Helper()
	var all []string
	for _, table := range []string{"sessions", "session_usage", "runs", "memories"} {
		rows, _ := h.conn.Query(h.t.Context(), "SELECT DISTINCT owner FROM k."+table+" ORDER BY 1")
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, strings.Join(list, " "))
	}
	if all = slices.Compact(all); len(all) != 1 {
		h.t.Errorf("the tables have different owners: %q", all)
	}
	return all[0]
}

func (h holder) move(m migrations.Move) (migrations.Moved, error) {
	h.t.Helper()
	return migrations.MoveOwners(h.t.Context(), h.at, m)
}

func TestDataMovesToTheUsersOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	several := []string{"https://a", "https://b"}
	for _, row := range []struct {
		file   []string
		owners string
		move   migrations.Move
		want   string
	}{
		{several, "https://a#ann https://a#x#y https://b#ann", migrations.Move{From: "https://a", To: migrations.Home},
			"%#x#y ann https://b#ann"},
		{several, "#ann https://b#ann", migrations.Move{From: "", To: migrations.Home}, "ann https://b#ann"},
		{[]string{"https://a"}, "%#x#y ann https://b#ann", migrations.Move{From: migrations.Home, To: "https://a"},
			"https://a#ann https://a#x#y https://b#ann"},
		{[]string{"https://a"}, "https://b#ann https://c%23#ann", migrations.Move{From: "https://c#", To: "https://b/%"},
			"https://b#ann https://b/%25#ann"},
		{[]string{"https://a"}, "https://a#ann https://aa#ann", migrations.Move{From: "https://a", To: migrations.Home},
			"ann https://aa#ann"},
		{[]string{"https://a"}, "https://b#ann", migrations.Move{Subject: "https://b#ann"}, "%#https://b#ann"},
	} {
		h := newHolder(t, row.file, strings.Fields(row.owners)...)
		if did, err := h.move(row.move); err != nil || did.Done || h.owners() != row.owners {
			t.Errorf("%+v: examined: %+v, error %v", row.move, did, err)
		}
		row.move.Apply = true
		did, err := h.move(row.move)
		if err != nil || !did.Done || did.Sessions != did.Owners || did.Runs != did.Owners || did.Memories != did.Owners {
			t.Errorf("%+v: %+v, error %v", row.move, did, err)
		}
		if got := h.owners(); got != row.want {
			t.Errorf("%+v: %s, want %s", row.move, got, row.want)
		}
		if _, err := migrations.Run(t.Context(), h.at); err != nil {
			t.Errorf("%+v: the file does not fit any more: %v", row.move, err)
		}
	}
}

// After the move, ann of the issuer that was renamed finds her data under her bare subject.
func TestAMovedIssuerIsAtHome(t *testing.T) {
	t.Parallel()
	h := newHolder(t, []string{"https://a", "https://b"}, "https://a#ann", "https://b#ann")
	if got, want := annOf(t, h.at.URL), [2]string{"https://a#ann", "https://b#ann"}; got != want {
		t.Fatalf("%q", got)
	}
	if _, err := h.move(migrations.Move{From: "https://a", To: migrations.Home, Apply: true}); err != nil {
		t.Fatal(err)
	}
	if got, want := annOf(t, h.at.URL), [2]string{"ann", "https://b#ann"}; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	// What a server wrote under the old name before it knew.
	h.give("https://a#ann", "late", "COMPLETED", "late")
	if did, err := h.move(migrations.Move{From: "https://a", To: migrations.Home, Apply: true}); err != nil || !did.Done {
		t.Errorf("%+v %v", did, err)
	}
	if got := h.owners(); got != "ann https://b#ann" {
		t.Error(got)
	}
}

func TestAMoveThatWouldLoseSomethingIsRefused(t *testing.T) {
	t.Parallel()
	h := newHolder(t, []string{"https://a", "https://b"}, "https://a#ann")
	home := migrations.Move{From: "https://a", To: migrations.Home, Apply: true}
	refused := func(what string, live, conflicts int) {
		t.Helper()
		before := h.owners()
		did, err := h.move(home)
		if err != nil || did.Done || did.Live != live || did.Conflicts != conflicts || len(did.Examples) != min(20,
			conflicts) {
			t.Errorf("%s: %+v, error %v", what, did, err)
		}
		if got := h.owners(); got != before {
			t.Errorf("%s: %s, before it was %s", what, got, before)
		}
	}
	for _, status := range []string{"PENDING", "RUNNING"} {
		h.give("https://a#bob", status, status, status)
		refused("a live run", 1, 0)
		exec(t, h.conn, "DELETE FROM k.sessions WHERE session_id = $1", status)
	}
	h.give("https://a#bob", "paused", "PAUSED", "p")
	h.give("ann", "other", "COMPLETED", "key of https://a#ann")
	refused("the same idempotency key", 0, 1)
	exec(t, h.conn, "DELETE FROM k.sessions WHERE owner = 'ann'")
	for i := range 25 {
		id := fmt.Sprint("s", i)
		h.give("ann", id, "COMPLETED", id+" of ann")
		h.give("https://a#ann", id, "COMPLETED", id)
	}
	refused("the same sessions", 0, 25)
	exec(t, h.conn, "DELETE FROM k.sessions WHERE owner = 'ann'")
	if did, err := h.move(home); err != nil || !did.Done {
		t.Errorf("without conflicts: %+v, error %v", did, err)
	}
}

func TestAMoveThatContradictsTheFileOrTheRecordIsRefused(t *testing.T) {
	t.Parallel()
	h := newHolder(t, []string{"https://a"})
	h.give(strings.Repeat("x", 1020), "s", "COMPLETED", "k")
	demanding := h
	demanding.at.Owners.Home = "https://a"
	for _, row := range []struct {
		h    holder
		move migrations.Move
		want string
	}{
		{h, migrations.Move{From: "https://b", To: migrations.Home}, "the home issuer is https://a"},
		{demanding, migrations.Move{From: migrations.Home, To: "https://a"}, "auth.home_issuer in keyway.yaml is https://a"},
		{h, migrations.Move{From: migrations.Home, To: "https://a", Apply: true}, "1024 bytes"},
		{h, migrations.Move{From: "https://typo", To: "https://b"}, "no keyway.yaml has named this issuer"},
		{h, migrations.Move{Subject: "ann"}, "contains no #"},
	} {
		if did, err := row.h.move(row.move); !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err),
			row.want) {
			t.Errorf("%+v: %+v, error %v", row.move, did, err)
		}
	}
	old := holder{t, h.conn, target(storetest.EmptyURL(t))}
	if _, err := old.move(migrations.Move{Subject: "a#b"}); !strings.Contains(fault.Detail(err),
		"run keyway migrate first") {
		t.Errorf("an empty database: %v", err)
	}
	other := h
	other.at.OSID = "another"
	if _, err := other.move(migrations.Move{Subject: "a#b"}); !strings.Contains(fault.Detail(err),
		`belongs to the OS "os"`) {
		t.Errorf("another OS: %v", err)
	}
}

// Each remedy of a refused home issuer is followed as it is printed.
func TestTheRemedyOfAWrongHomeIssuerWorks(t *testing.T) {
	t.Parallel()
	h := newHolder(t, []string{"https://a"}, "ann", "https://b#ann")
	wrong := issuers(h.at, "https://a", "https://b")
	wrong.Owners.Home = "https://b"
	_, err := migrations.Run(t.Context(), wrong)
	want := "run then: keyway owners move --from home --to https://a, and: keyway owners move --from https://b --to home"
	if err == nil || !strings.Contains(fault.Detail(err), want) {
		t.Fatal(err)
	}
	h.at = issuers(h.at, "https://a", "https://b")
	for _, m := range []migrations.Move{
		{From: migrations.Home, To: "https://a", Apply: true}, {From: "https://b", To: migrations.Home, Apply: true},
	} {
		if did, err := h.move(m); err != nil || !did.Done {
			t.Errorf("%+v: %+v, error %v", m, did, err)
		}
	}
	if _, err := migrations.Run(t.Context(), wrong); err != nil || h.owners() != "ann https://a#ann" {
		t.Errorf("%s, error %v", h.owners(), err)
	}
}

func TestTheRemedyOfAJoinedHomeIssuerWorks(t *testing.T) {
	t.Parallel()
	h := newHolder(t, []string{"https://a"}, "ann", "https://b#bob")
	if _, err := migrations.Run(t.Context(), issuers(h.at, "https://a", "https://b")); err != nil {
		t.Fatal(err)
	}
	h.at.Owners.Entries = [][]string{{"https://b", "https://a"}}
	_, err := migrations.Run(t.Context(), h.at)
	if want := "keyway owners move --from https://b --to home"; err == nil || !strings.Contains(fault.Detail(err), want) {
		t.Error(err)
	}
	if did, err := h.move(migrations.Move{From: "https://b", To: migrations.Home, Apply: true}); err != nil || !did.Done {
		t.Errorf("%+v, error %v", did, err)
	}
	if _, err := migrations.Run(t.Context(), h.at); err != nil || h.owners() != "ann bob" {
		t.Errorf("%s, error %v", h.owners(), err)
	}
}

// A new table with owners must be moved too, and be counted and checked for conflicts if it has ids.
func TestEveryTableWithAnOwnerIsMoved(t *testing.T) {
	t.Parallel()
	h := newHolder(t, []string{"https://a"})
	rows, _ := h.conn.Query(t.Context(), `SELECT table_name::text FROM information_schema.columns
		WHERE table_schema = 'k' AND column_name = 'owner' ORDER BY 1`)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if want := slices.Sorted(slices.Values(migrations.OwnerTables)); err != nil || !slices.Equal(tables, want) {
		t.Errorf("%q have owners, and %q are moved; error %v", tables, want, err)
	}
}

// Limits are counted for the owner name of the caller. After a move they must count what was used before it, also if
// the caller has begun a run for somebody else.
func TestLimitsFollowAMovedOwner(t *testing.T) {
	t.Parallel()
	h := newHolder(t, []string{"https://a", "https://b"}, "https://a#ann", "https://b#bob")
	exec(t, h.conn, `UPDATE k.runs SET spender = 'https://a#ann'`)
	exec(t, h.conn, `INSERT INTO k.unsettled
		SELECT gen_random_uuid(), gen_random_uuid(), 'https://a#ann', '', current_date, now()`)
	exec(t, h.conn, `INSERT INTO k.spending (whose, key, day, runs, tokens, micro_usd, minute, minute_runs) VALUES
		('caller', 'https://a#ann', '2026-11-29', 1, 10, 100, '2026-11-29 08:00Z', 1),
		('caller', 'ann',           '2026-11-29', 2, 20, 200, '2026-11-29 08:00Z', 2),
		('caller', 'https://a#ann', '2026-11-28', 4, 40, 400, '2026-11-28 08:01Z', 4),
		('caller', 'ann',           '2026-11-28', 8, 80, 800, '2026-11-28 08:00Z', 8),
		('merges', 'https://a#ann', '2026-11-29', 3, 0,  0,   NULL, 0),
		('agent',  'https://a#ann', '2026-11-29', 5, 0,  0,   NULL, 0),
		('caller', 'https://b#bob', '2026-11-29', 6, 0,  0,   NULL, 0)`)
	if _, err := h.move(migrations.Move{From: "https://a", To: migrations.Home, Apply: true}); err != nil {
		t.Fatal(err)
	}
	var got string
	err := h.conn.QueryRow(t.Context(), `SELECT concat_ws(E'\n',
		(SELECT string_agg(owner || ' for ' || spender, ', ' ORDER BY owner) FROM k.runs),
		(SELECT string_agg(spender, ',') FROM k.unsettled),
		(SELECT string_agg(concat_ws(' ', whose, key, to_char(day, 'DD'), runs, tokens, micro_usd,
			to_char(minute AT TIME ZONE 'UTC', 'HH24:MI'), minute_runs), E'\n' ORDER BY whose, key, day)
			FROM k.spending))`).Scan(&got)
	const want = `ann for ann, https://b#bob for ann
ann
agent https://a#ann 29 5 0 0 0
caller ann 28 12 120 1200 08:01 4
caller ann 29 3 30 300 08:00 3
caller https://b#bob 29 6 0 0 0
merges ann 29 3 0 0 0`
	if err != nil || got != want {
		t.Errorf("%s\n%v", got, err)
	}
}

func TestHoldingsAreCountedByIssuer(t *testing.T) {
	t.Parallel()
	h := newHolder(t, []string{"https://a"}, "ann", "bob", "%#x#y", "https://b#ann", "")
	h.give("ann", "s2", "RUNNING", "k2")
	r, list, err := migrations.Holdings(t.Context(), h.at)
	want := []migrations.Holding{
		{Group: "", Owners: 2, Sessions: 3, Runs: 3, Memories: 3}, {Group: "%#", Owners: 1, Sessions: 1, Runs: 1,
			Memories: 1},
		{Group: "https://b#", Owners: 1, Sessions: 1, Runs: 1, Memories: 1},
	}
	if err != nil || r == nil || !slices.Equal(list, want) {
		t.Errorf("%+v %v", list, err)
	}
}
