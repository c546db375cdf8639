package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// revocationCalls are the calls about revoked tokens.
func revocationCalls() []call {
	subject := store.Revocation{Issuer: "i", Subject: "ann", Before: &day, MadeAt: day, Note: "leaked"}
	id := store.Revocation{TokenID: "t-1", MadeAt: day}
	revoke := func(r store.Revocation) call {
		return call{"Revoke", func(ctx context.Context, db *store.DB) error {
			_, err := db.Revoke(ctx, r, store.MaxRevocations)
			return err
		}}
	}
	return []call{
		{"Now", func(ctx context.Context, db *store.DB) error { _, err := db.Now(ctx); return err }},
		revoke(subject), revoke(id),
		{"Revocations", func(ctx context.Context, db *store.DB) error {
			list, err := db.Revocations(ctx)
			return want(len(list) == 2, err)
		}},
		{"RevocationPage", func(ctx context.Context, db *store.DB) error {
			list, total, err := db.RevocationPage(ctx, 1, 2)
			return want(len(list) == 1 && total == 2, err)
		}},
		{"CheckedRevocations", func(ctx context.Context, db *store.DB) error {
			list, err := db.CheckedRevocations(ctx)
			return want(len(list) == 2, err)
		}},
		{"UndoRevocation", func(ctx context.Context, db *store.DB) error {
			_, err := db.UndoRevocation(ctx, subject, []string{"i"})
			return err
		}},
		{"PruneRevocations", func(ctx context.Context, db *store.DB) error {
			_, err := db.PruneRevocations(ctx, day.Add(time.Hour))
			return err
		}},
	}
}

// revoke stores a revocation and returns it as it is stored.
func revoke(t *testing.T, db *store.DB, r store.Revocation) store.Revocation {
	t.Helper()
	stored, err := db.Revoke(t.Context(), r, store.MaxRevocations)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// all returns the revocations as the list of the command and of the route shows them.
func all(t *testing.T, db *store.DB) []store.Revocation {
	t.Helper()
	list, total, err := db.RevocationPage(t.Context(), 100, 1)
	if err != nil || total != len(list) {
		t.Fatalf("%d of %d, %v", len(list), total, err)
	}
	return list
}

func TestARevocationIsStoredAndUndone(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	later := day.Add(time.Hour)
	ann := store.Revocation{Issuer: "i", Subject: "ann", Before: &day, MadeAt: day, Note: "stolen laptop"}
	elsewhere := store.Revocation{Issuer: "j", Subject: "ann", Before: &later, MadeAt: day}
	id := store.Revocation{Issuer: "i", TokenID: "ann", MadeAt: later}
	for _, r := range []store.Revocation{ann, elsewhere, id} {
		if got := revoke(t, db, r); !cmp.Equal(got, r) {
			t.Errorf("stored %+v, want %+v", got, r)
		}
	}
	if diff := cmp.Diff([]store.Revocation{ann, elsewhere, id}, all(t, db)); diff != "" {
		t.Error(diff)
	}
	for _, wanted := range []bool{true, false} { // The second time there is none.
		if found, err := db.UndoRevocation(t.Context(), ann, []string{"i"}); err != nil || found != wanted {
			t.Errorf("undone: %t, %v", found, err)
		}
	}
	if diff := cmp.Diff([]store.Revocation{elsewhere, id}, all(t, db)); diff != "" {
		t.Error(diff)
	}
}

func TestAllSpellingsOfARevocationAreUndone(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, issuer := range []string{"i", "I", "j"} {
		revoke(t, db, store.Revocation{Issuer: issuer, Subject: "ann", Before: &day, MadeAt: day})
		revoke(t, db, store.Revocation{Issuer: issuer, TokenID: "t", MadeAt: day})
	}
	for _, r := range []store.Revocation{{Issuer: "i", Subject: "ann"}, {Issuer: "i", TokenID: "t"}} {
		if found, err := db.UndoRevocation(t.Context(), r, []string{"i", "I"}); err != nil || !found {
			t.Errorf("%+v: %t, %v", r, found, err)
		}
	}
	// The subject of another issuer is another person; the id is one token.
	want := []store.Revocation{{Issuer: "j", Subject: "ann", Before: &day, MadeAt: day}}
	if diff := cmp.Diff(want, all(t, db)); diff != "" {
		t.Error(diff)
	}
}

// A second revocation with an earlier time must not allow tokens again.
func TestARepeatedRevocationKeepsTheLaterTime(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	at := func(hours int) *time.Time { return new(day.Add(time.Duration(hours) * time.Hour)) }
	r := store.Revocation{Subject: "ann", MadeAt: day}
	for _, step := range []struct {
		before, want *time.Time
		note, kept   string
	}{{at(2), at(2), "first", "first"}, {at(1), at(2), "", "first"}, {at(3), at(3), "third", "third"}} {
		again := r
		again.Before, again.Note, again.MadeAt = step.before, step.note, *step.before
		if got := revoke(t, db, again); !got.Before.Equal(*step.want) || got.Note != step.kept || len(all(t, db)) != 1 {
			t.Errorf("%+v: %+v", step, got)
		}
	}
	if got := all(t, db)[0]; !got.MadeAt.Equal(*at(2)) {
		t.Errorf("made at %s", got.MadeAt)
	}
}

func TestOldRevocationsArePruned(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	later := day.Add(2 * time.Hour)
	kept := []store.Revocation{
		{Subject: "bob", Before: &later, MadeAt: day}, // Tokens that are issued until then are refused too.
		{TokenID: "new", MadeAt: later},
	}
	gone := []store.Revocation{{Subject: "ann", Before: &day, MadeAt: day}, {TokenID: "old", MadeAt: day}}
	for _, r := range slices.Concat(kept, gone) {
		revoke(t, db, r)
	}
	if n, err := db.PruneRevocations(t.Context(), day.Add(time.Hour)); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if diff := cmp.Diff(kept, all(t, db)); diff != "" {
		t.Error(diff)
	}
}

func TestRevocationsHaveANumberAndSizes(t *testing.T) {
	t.Parallel()
	at := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: at})
	long := func(n int) string { return strings.Repeat("x", n) }
	largest := store.Revocation{Issuer: long(store.MaxIssuer), Subject: long(store.MaxSubject), Before: &day, MadeAt: day,
		Note: long(store.MaxNote)}
	revoke(t, db, largest)
	revoke(t, db, store.Revocation{Issuer: long(store.MaxIssuer), TokenID: long(store.MaxTokenID), MadeAt: day})
	sql(t, at, fmt.Sprintf(`INSERT INTO keyway.revocations (issuer, token_id, subject, made_at, note)
		SELECT '', 't-' || n, '', now(), '' FROM generate_series(1, %d) AS n`, store.MaxRevocations-2))
	_, err := db.Revoke(t.Context(), store.Revocation{TokenID: "one more", MadeAt: day}, store.MaxRevocations)
	if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), "keyway revoke --prune 90d") {
		t.Error(err)
	}
	const reserve = store.MaxRevocations - store.ReservedRevocations
	_, err = db.Revoke(t.Context(), store.Revocation{TokenID: "by a request", MadeAt: day}, reserve)
	if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err),
		"There are 9000 revocations already, which is the limit for requests; the command keyway revoke can make 1000 more") {
		t.Error(err)
	}
	revoke(t, db, largest) // One that exists is no further one.
	if list, err := db.Revocations(t.Context()); len(list) != store.MaxRevocations || err != nil {
		t.Errorf("%d, %v", len(list), err)
	}
}

// The first request of a function reads the version of the schema and the revocations together.
func TestCheckedRevocationsRejectASchemaThatDoesNotFit(t *testing.T) {
	t.Parallel()
	at := storetest.EmptyURL(t)
	if _, err := migrations.Run(t.Context(),
		migrations.Target{URL: at, Schema: storetest.Schema, OSID: storetest.OSID}); err != nil {
		t.Fatal(err)
	}
	db := storetest.Open(t, store.Options{URL: at})
	revoke(t, db, store.Revocation{TokenID: "t", MadeAt: day})
	if list, err := db.CheckedRevocations(t.Context()); len(list) != 1 || list[0].TokenID != "t" || err != nil {
		t.Errorf("%+v, %v", list, err)
	}
	for statement, remedy := range map[string]string{
		"UPDATE keyway.schema_version SET version = version - 1":     "run keyway migrate",
		"UPDATE keyway.schema_version SET version = 99, oldest = 99": "run the newer Keyway",
	} {
		sql(t, at, statement)
		_, err := db.CheckedRevocations(t.Context())
		if !errors.Is(err, fault.Unavailable) || !strings.Contains(fault.Detail(err), remedy) {
			t.Errorf("%s: %v", statement, err)
		}
		sql(t, at, fmt.Sprintf("UPDATE keyway.schema_version SET version = %d, oldest = 6", store.SchemaVersion))
	}
	sql(t, at, "DROP TABLE keyway.revocations; UPDATE keyway.schema_version SET version = 10")
	if _, err := storetest.Open(t, store.Options{URL: at}).CheckedRevocations(t.Context()); !errors.Is(err,
		fault.Unavailable) || !strings.Contains(fault.Detail(err), "run keyway migrate") {
		t.Error(err)
	}
}

// A function reads the list while it answers requests, and moves of owners with it.
func TestTheListIsReadTogetherWithTheOwners(t *testing.T) {
	t.Parallel()
	at := storetest.URL(t)
	db := storetest.Open(t, store.Options{URL: at})
	if err := db.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := db.Owners()
	sql(t, at, `UPDATE keyway.os SET owners = jsonb_set(owners, '{home}', '"https://moved.example"')`)
	if _, err := db.CheckedRevocations(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := db.Owners(); after == before || fmt.Sprint(*after) == fmt.Sprint(*before) {
		t.Errorf("the owners are still %+v", *after)
	}
}
