package functions_test

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// role is the database role that the functions of every test in this package log in as.
const role = "keyway_app"

var makeRole sync.Once

// asRole migrates for the role, and returns the URL with which the role logs in. It has a
// password in tests only; on RDS it has none.
func asRole(t *testing.T, owner string) string {
	t.Helper()
	makeRole.Do(func() { query(t, owner, "CREATE ROLE "+role+" LOGIN PASSWORD 'of-the-test'") })
	if _, err := migrations.Run(t.Context(),
		migrations.Target{URL: owner, Schema: storetest.Schema, OSID: storetest.OSID, Role: role}); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "of-the-test")
	return u.String()
}

// The migrate function creates or corrects the role in each deployment, and reports why it can't.
func TestDeploymentCreatesRoleOfFunctions(t *testing.T) {
	t.Parallel()
	empty := storetest.EmptyURL(t)
	m := migrate(t, keyway, "DATABASE_URL="+empty, "DATABASE_ROLE=made_by_migrate")
	t.Cleanup(func() { query(t, empty, "DROP OWNED BY made_by_migrate; DROP ROLE made_by_migrate") })
	for _, kind := range []string{"Create", "Update"} {
		if got := m.resource(kind, "test-os/keyway"); got.Status != "SUCCESS" {
			t.Errorf("%s: %+v", kind, got)
		}
	}
	if may := query(t, empty, "SELECT has_table_privilege('made_by_migrate', 'keyway.runs', 'SELECT, INSERT, UPDATE, "+
		"DELETE') AND rolpassword IS NULL FROM pg_authid WHERE rolname = 'made_by_migrate'"); may != "t" {
		t.Errorf("it reads and writes runs, without a password: %q", may)
	}
	for _, row := range []struct{ role, want string }{
		{"keyway", `the role "keyway" has more rights than to read and write rows`},
		{"Nobody; DROP", `$DATABASE_ROLE is "Nobody; DROP", which is not a plain role name; use a-z, 0-9 and _, such as ` +
			`keyway_app`},
	} {
		if got := migrate(t, keyway, "DATABASE_URL="+empty, "DATABASE_ROLE="+row.role).resource("Update",
			"test-os/keyway"); got.Status != "FAILED" || !strings.Contains(got.Reason, row.want) {
			t.Errorf("%s: %+v", row.role, got)
		}
	}
	powerless := asRole(t, empty)
	// asRole has recorded a file without issuers
	if got := m.resource("Update", "test-os/keyway"); got.Status != "SUCCESS" {
		t.Errorf("after another file: %+v", got)
	}
	if got := migrate(t, keyway, "DATABASE_URL="+powerless).resource("Update", "test-os/keyway"); got.Status != "SUCCESS" {
		t.Errorf("the role of the functions could not migrate a schema that is up to date: %+v", got)
	}
	if got := migrate(t, keyway, "DATABASE_URL="+powerless, "DATABASE_ROLE=made_by_nobody").resource("Update",
		"test-os/keyway"); got.Status != "FAILED" ||
		!strings.Contains(got.Reason, "role made_by_nobody: ERROR: permission denied to create role") {
		t.Errorf("%+v", got)
	}
}

// The functions of all other tests in this package log in as this role, which can't do any of
// this.
func TestFunctionsCanOnlyReadAndWriteRows(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	if name := query(t, d.db, "SELECT current_user"); name != role {
		t.Fatalf("logged in as %s", name)
	}
	const denied = "42501"
	for _, sql := range []string{
		"CREATE TABLE keyway.mine (id int)",
		"CREATE SCHEMA mine",
		"CREATE ROLE mine",
		"CREATE EXTENSION pgcrypto",
		"DROP TABLE keyway.runs",
		"DROP SCHEMA keyway CASCADE",
		"ALTER TABLE keyway.runs ADD COLUMN mine int",
		"ALTER TABLE keyway.runs OWNER TO " + role,
		"CREATE INDEX ON keyway.runs (agent_id)",
		"CREATE TRIGGER mine BEFORE UPDATE ON keyway.runs FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
		"TRUNCATE keyway.run_events",
		"TRUNCATE keyway.sessions CASCADE",
		"SELECT * FROM pg_authid",
		"SELECT * FROM pg_stat_file('PG_VERSION')",
		"COPY keyway.runs TO PROGRAM 'cat'",
		"SET ROLE keyway",
		"SET SESSION AUTHORIZATION keyway",
		"ALTER ROLE " + role + " CREATEDB",
		"UPDATE keyway.schema_version SET version = 1",
		"DELETE FROM keyway.schema_version",
		"INSERT INTO keyway.schema_version VALUES (1)",
		"UPDATE keyway.os SET id = 'mine'",
		"DELETE FROM keyway.os",
		"INSERT INTO keyway.os (id) VALUES ('mine')",
		"SELECT nextval('keyway.runs_seq_seq')",
		"SELECT setval('keyway.runs_seq_seq', 1)",
	} {
		if code := codeOf(t, d.db, sql); code != denied {
			t.Errorf("%s: %q", sql, code)
		}
	}
	for _, sql := range []string{"SELECT version, oldest FROM keyway.schema_version", "SELECT id FROM keyway.os",
		"DELETE FROM keyway.sessions"} {
		if code := codeOf(t, d.db, sql); code != "" {
			t.Errorf("%s: %q", sql, code)
		}
	}
	// No other role has rights either. PostgreSQL only warns about a GRANT that grants nothing.
	codeOf(t, d.db, "GRANT SELECT ON keyway.runs TO PUBLIC")
	if may := query(t, d.owner, "SELECT has_schema_privilege('public', 'keyway', 'USAGE') OR "+
		"has_table_privilege('public', 'keyway.runs', 'SELECT')"); may != "f" {
		t.Error("PUBLIC has rights in the schema")
	}
}

// codeOf returns the SQLSTATE of PostgreSQL's error, or "" if the statement succeeds.
func codeOf(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql).ReadAll()
	if err == nil {
		return ""
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		t.Fatal(err)
	}
	return pg.Code
}
