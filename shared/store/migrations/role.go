package migrations

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
)

// grantRole gives the role the right to read and write the rows of the schema, except the tables that hold the owner
// and the version, which it can only read. A missing role is created without a password; on RDS it logs in with tokens
// of AWS IAM. So the functions that answer requests cannot change the schema, or take it for another OS.
//
// The transaction has the lock of the migrations: of two GRANTs on the same object at the same time one fails with
// "tuple concurrently updated".
func grantRole(ctx context.Context, tx pgx.Tx, t Target) error {
	err := ensureOrdinaryRole(ctx, tx, t.Role)
	for _, sql := range grants(t) {
		if err == nil {
			_, err = tx.Exec(ctx, sql)
		}
	}
	if err != nil {
		return fmt.Errorf("role %s: %w", t.Role, err)
	}
	return nil
}

// ensureOrdinaryRole creates the role if it is missing, and rejects one that has other rights than those granted here.
// An operator who names an existing role by mistake would otherwise give the functions its rights.
func ensureOrdinaryRole(ctx context.Context, tx pgx.Tx, role string) error {
	if err := createRole(ctx, tx, role); err != nil {
		return err
	}
	const sql = `
		SELECT rolname = current_user OR NOT rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb
			OR rolreplication OR rolbypassrls
			OR EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
				WHERE m.member = r.oid AND g.rolname <> 'rds_iam')
			OR EXISTS (SELECT FROM pg_namespace WHERE nspowner = r.oid)
			OR EXISTS (SELECT FROM pg_class WHERE relowner = r.oid AND relpersistence <> 't'),
			EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_iam')
			AND NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
				WHERE m.member = r.oid AND g.rolname = 'rds_iam')
		FROM pg_roles r WHERE rolname = $1`
	// The first column is about rights beyond those granted here. The second one is about RDS only, where the role rds_iam
	// lets its members log in with a token instead of a password.
	var otherRights, lacksIAM bool
	if err := tx.QueryRow(ctx, sql, role).Scan(&otherRights, &lacksIAM); err != nil {
		return err
	}
	if otherRights {
		text := "the role %q has more rights than to read and write rows, or can't log in; set DATABASE_ROLE to the name " +
			"of a role that does not exist yet"
		return fault.Public(fault.Conflict, fmt.Sprintf(text, role), nil)
	}
	if lacksIAM {
		return ignoreDuplicate(ctx, tx, "GRANT rds_iam TO "+pgx.Identifier{role}.Sanitize())
	}
	return nil
}

// createRole creates a role that can log in, unless it exists.
func createRole(ctx context.Context, tx pgx.Tx, role string) error {
	var exists bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&exists)
	if err != nil || exists {
		return err
	}
	return ignoreDuplicate(ctx, tx, "CREATE ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN")
}

// ignoreDuplicate executes a statement about a role, and ignores the error if the role exists or is granted already.
// Roles belong to all databases of a server, while the advisory lock belongs to one. So the migration of another
// database may execute the same statement at the same time.
func ignoreDuplicate(ctx context.Context, tx pgx.Tx, sql string) error {
	// A transaction in a transaction is a savepoint. Without it, the error would abort the outer transaction too.
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql)
		return err
	})
	if c := code(err); c == duplicateObject || c == uniqueViolation {
		return nil
	}
	return err
}

// grants returns the statements that give a role exactly its rights. They are the same for every migration: rights on
// new tables are added, and rights that somebody granted by hand are revoked. Identity columns need no right to their
// sequences.
func grants(t Target) []string {
	schema, role := pgx.Identifier{t.Schema}.Sanitize(), pgx.Identifier{t.Role}.Sanitize()
	own := schema + ".schema_version, " + schema + ".os"
	const rows = "SELECT, INSERT, UPDATE, DELETE"
	return []string{
		"REVOKE ALL ON SCHEMA " + schema + " FROM PUBLIC, " + role,
		"REVOKE ALL ON ALL TABLES IN SCHEMA " + schema + " FROM PUBLIC, " + role,
		"GRANT USAGE ON SCHEMA " + schema + " TO " + role,
		"GRANT " + rows + " ON ALL TABLES IN SCHEMA " + schema + " TO " + role,
		"REVOKE ALL ON " + own + " FROM " + role,
		"GRANT SELECT ON " + own + " TO " + role,
		// Everybody may execute a new function, unless an operator has changed the default privileges.
		"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA " + schema + " TO " + role,
		// A later migration may run without Role, as `keyway migrate` by hand does. Its new tables need the rights too.
		"ALTER DEFAULT PRIVILEGES IN SCHEMA " + schema + " GRANT " + rows + " ON TABLES TO " + role,
	}
}
