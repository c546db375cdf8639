package migrations_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// issuers returns the target with a file whose entries name these issuers, "" for none.
func issuers(t migrations.Target, names ...string) migrations.Target {
	t.Owners = owner.File{}
	for _, n := range names {
		spellings := []string{n}
		if n == "" {
			spellings = nil
		}
		t.Owners.Entries = append(t.Owners.Entries, spellings)
	}
	return t
}

// give stores a session for each owner.
func give(t *testing.T, conn *pgx.Conn, owners ...string) {
	t.Helper()
	for _, o := range owners {
		exec(t, conn, "INSERT INTO k.sessions (owner, session_id, created_at, updated_at) VALUES ($1, 's', now(), now())", o)
	}
}

// annOf returns the names of ann of the issuers a and b.
func annOf(t *testing.T, url string) [2]string {
	t.Helper()
	db := storetest.Open(t, store.Options{URL: url, Schema: "k"})
	if err := db.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := db.Owners()
	return [2]string{r.Name("https://a", "https://a", "ann"), r.Name("https://b", "https://b", "ann")}
}

// The first start of this version follows the rule of the versions before: with one issuer the names are bare, with
// several none is.
func TestAnOldDatabaseKeepsItsOwners(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		stored, files []string
		want          [2]string
	}{
		{[]string{"ann"}, []string{"https://a"}, [2]string{"ann", "https://b#ann"}},
		{[]string{"https://a#ann", "https://b#ann"}, []string{"https://a", "https://b"},
			[2]string{"https://a#ann", "https://b#ann"}},
		{[]string{"ann", "https://a#ann"}, []string{"https://a", "https://b"}, [2]string{"https://a#ann", "https://b#ann"}},
	} {
		url := storetest.EmptyURL(t)
		conn := connect(t, url)
		asTern(t, conn, 10)
		give(t, conn, row.stored...)
		for _, file := range [][]string{row.files, {"https://b", "https://a"}, {"https://b"}, {"https://a"}} {
			if _, err := migrations.Run(t.Context(), issuers(target(url), file...)); err != nil {
				t.Errorf("%q: %v", file, err)
			} else if got := annOf(t, url); got != row.want {
				t.Errorf("%q after %q: %q, want %q", file, row.files, got, row.want)
			}
		}
	}
}

// Nothing in the data of an earlier version shows whose it is. If the only entry was replaced with the update, the
// operator must learn it before somebody uses the data.
func TestTheFirstRecordReportsWhoseTheDataIs(t *testing.T) {
	t.Parallel()
	const line = "first record of the owners: users of https://b own the existing data (sessions: 2, runs: 0, memories: 0)"
	for _, row := range []struct {
		stored, file []string
		want         bool
	}{
		{[]string{"ann", "bob"}, []string{"https://b"}, true},
		{nil, []string{"https://b"}, false},
		{[]string{"ann", "bob"}, []string{""}, false},
		{[]string{"https://a#ann", "https://b#ann"}, []string{"https://a", "https://b"}, false},
	} {
		url := storetest.EmptyURL(t)
		conn := connect(t, url)
		asTern(t, conn, 10)
		give(t, conn, row.stored...)
		for start := range 2 {
			at, lines := issuers(target(url), row.file...), ""
			at.Progress = func(line string) { lines += line + "\n" }
			if _, err := migrations.Run(t.Context(), at); err != nil {
				t.Fatal(err)
			}
			if want := row.want && start == 0; strings.Contains(lines, line) != want ||
				strings.Contains(lines, "keyway owners move --from home --to ISSUER --apply") != want {
				t.Errorf("%+v, start %d: %s", row, start, lines)
			}
		}
	}
}

// The second issuer was added together with the update. Then nobody but the operator knows whose the names are.
func TestAFileThatCouldRenameOwnersIsRefused(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	conn := connect(t, url)
	asTern(t, conn, 10)
	give(t, conn, "ann")
	at := issuers(target(url), "https://a", "https://b")
	_, err := migrations.Run(t.Context(), at)
	if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), "set auth.home_issuer") {
		t.Errorf("two issuers: %v", err)
	}
	db := storetest.Open(t, store.Options{URL: url, Schema: "k"})
	if err := db.Check(t.Context()); !errors.Is(err, fault.Unavailable) ||
		!strings.Contains(fault.Detail(err), "run keyway migrate") || db.Owners() != nil {
		t.Errorf("nothing is recorded, and a function would answer: %v", err)
	}
	at.Owners.Home = "https://a"
	if _, err := migrations.Run(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if got := annOf(t, url); got != [2]string{"ann", "https://b#ann"} {
		t.Errorf("%q", got)
	}
	at.Owners.Home = "https://b"
	_, err = migrations.Run(t.Context(), at)
	if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), "keyway owners move") {
		t.Errorf("another home issuer: %v", err)
	}
	exec(t, conn, "DELETE FROM k.sessions")
	if _, err := migrations.Run(t.Context(), at); err != nil {
		t.Errorf("another home issuer without any data: %v", err)
	}
}

func TestANewIssuerIsReportedOnce(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	p := waitFor("https://b is new")
	at := issuers(target(url), "https://a")
	at.Progress = p.add
	for range 3 {
		if _, err := migrations.Run(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		at = issuers(at, "https://a", "https://b")
	}
	if len(p.lines) != 1 || !strings.Contains(p.lines[0], p.until) {
		t.Errorf("%q", p.lines)
	}
}

// An earlier version stored the data of the subject https://b#ann under the name of ann of https://b.
func TestNamesThatANewIssuersUsersGetAreReported(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	p := waitFor("warning: users of https://b own data already")
	at := issuers(target(url), "https://a")
	at.Progress = p.add
	if _, err := migrations.Run(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	give(t, connect(t, url), "https://b#ann")
	for range 2 {
		if _, err := migrations.Run(t.Context(), issuers(at, "https://a", "https://b")); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.lines) != 2 || !strings.Contains(p.lines[1], "keyway owners move --subject 'https://b#SUBJECT'") {
		t.Errorf("%q", p.lines)
	}
}

// A deployment rolls from a file without an issuer to one with it, and back: nobody gets another name.
func TestAnEntryGetsItsIssuerWithoutLoss(t *testing.T) {
	t.Parallel()
	url := storetest.EmptyURL(t)
	before, after := issuers(target(url), ""), issuers(target(url), "https://a")
	if _, err := migrations.Run(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	give(t, connect(t, url), "ann")
	_, err := migrations.Run(t.Context(), after)
	if want := "set auth.home_issuer: https://a if"; err == nil || !strings.Contains(fault.Detail(err), want) {
		t.Errorf("without home_issuer: %v", err)
	}
	after.Owners.Home = "https://a"
	for _, at := range []migrations.Target{after, before, after} {
		if _, err := migrations.Run(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		db := storetest.Open(t, store.Options{URL: url, Schema: "k"})
		if err := db.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, got := range []string{
			db.Owners().Name("https://a", "https://a", "ann"), db.Owners().Name("", "", "ann"), db.Owners().Name("", "x", "ann"),
		} {
			if got != "ann" {
				t.Errorf("%+v: %q", at.Owners, got)
			}
		}
	}
}
