package store_test

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// rds makes a master user with the rights of the one on RDS: it is no superuser, can create roles and can grant
// rds_iam. Roles belong to the whole server, so each is named after the database of its test.
func rds(t *testing.T) (master, name string) {
	t.Helper()
	at := storetest.EmptyURL(t)
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	database := strings.TrimPrefix(u.Path, "/")
	name = "master_of_" + database
	sql(t, at, `DO $$ BEGIN CREATE ROLE rds_iam; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
		CREATE ROLE `+name+` LOGIN CREATEROLE CREATEDB PASSWORD 'm';
		GRANT rds_iam TO `+name+` WITH ADMIN OPTION;
		ALTER DATABASE `+database+` OWNER TO `+name)
	u.User = url.UserPassword(name, "m")
	return u.String(), name
}

func scalar[T any](t *testing.T, at, text string) (v T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), text).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestARoleIsGrantedAgainAndBySeveralAtTheSameTime(t *testing.T) {
	t.Parallel()
	master, name := rds(t)
	role := `odd "role of ` + name
	quoted, text := pgx.Identifier{role}.Sanitize(), "'"+role+"'"
	target := migrations.Target{URL: master, Schema: "odd", OSID: "os", Role: role}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := migrations.Run(t.Context(), target); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	may := "SELECT pg_has_role(" + text + ", 'rds_iam', 'MEMBER') AND NOT pg_has_role(" + text + ", '" + name +
		"', 'MEMBER')" +
		" AND has_table_privilege(" + text + ", 'odd.runs', 'DELETE') AND NOT has_table_privilege(" + text +
		", 'odd.os', 'UPDATE')"
	if !scalar[bool](t, master, may) {
		t.Error("the role lacks a right, or has one too many")
	}
	// A table of a later migration, and rights that were granted by hand.
	sql(t, master, `CREATE TABLE odd.later (id int GENERATED ALWAYS AS IDENTITY, text text);
		GRANT TRUNCATE ON odd.later TO `+quoted+`; GRANT UPDATE ON odd.os TO `+quoted)
	if !scalar[bool](t, master, "SELECT has_table_privilege("+text+", 'odd.later', 'SELECT, INSERT, UPDATE, DELETE')") {
		t.Error("the role has no right to a later table")
	}
	if _, err := migrations.Run(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if scalar[bool](t, master, "SELECT has_table_privilege("+text+", 'odd.later', 'TRUNCATE') "+
		"OR has_table_privilege("+text+", 'odd.os', 'UPDATE')") {
		t.Error("rights that were granted by hand are still there")
	}
	sql(t, master, "ALTER ROLE "+quoted+" PASSWORD 'r'") // Here it logs in without AWS.
	u, err := url.Parse(master)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "r")
	db, err := store.Open(store.Options{URL: u.String(), Schema: "odd"})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	finish(t, db, begin(t, db, "ann", "s", 0))
	if err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// A role belongs to all databases of a server.
func TestSeveralDatabasesGrantARoleAtTheSameTime(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 5 {
		at := storetest.URL(t)
		wg.Go(func() {
			target := migrations.Target{URL: at, Schema: storetest.Schema, OSID: storetest.OSID, Role: "role_of_several"}
			if _, err := migrations.Run(t.Context(), target); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// An existing role of another purpose is rejected.
func TestARoleWithOtherRightsIsRejected(t *testing.T) {
	t.Parallel()
	at := storetest.EmptyURL(t)
	sql(t, at, `CREATE ROLE makes_databases LOGIN CREATEDB;
		CREATE ROLE is_a_member LOGIN; GRANT makes_databases TO is_a_member;
		CREATE ROLE no_login; CREATE ROLE owns LOGIN; CREATE SCHEMA AUTHORIZATION owns`)
	t.Cleanup(func() {
		sql(t, at, `DROP OWNED BY owns; DROP ROLE makes_databases, is_a_member, no_login, owns`)
	})
	for _, role := range []string{"keyway", "makes_databases", "is_a_member", "no_login", "owns"} {
		_, err := migrations.Run(t.Context(), migrations.Target{URL: at, Schema: "k", OSID: "os", Role: role})
		if !errors.Is(err, fault.Conflict) || !strings.Contains(fault.Detail(err), "DATABASE_ROLE") ||
			!strings.Contains(fault.Detail(err), role) {
			t.Errorf("%s: %v", role, err)
		}
	}
}
