package migrations

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyway-agents/keyway/shared/fault"
)

// admit lets the role read and write the rows of the schema, and nothing else there: not
// which OS it belongs to, nor its version. A role that is missing is made, without a
// password; on RDS it logs in with AWS's tokens.
func admit(ctx context.Context, conn *pgx.Conn, t Target) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// Two GRANTs at once on one thing collide.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('keyway.role'))`); err != nil {
			return err
		}
		if err := ordinary(ctx, tx, t.Role); err != nil {
			return err
		}
		for _, sql := range grants(t) {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("role %s: %w", t.Role, err)
	}
	return nil
}

// ordinary makes the role if it is missing, and refuses one that could do more than what
// it is granted here.
func ordinary(ctx context.Context, tx pgx.Tx, role string) error {
	if err := create(ctx, tx, role); err != nil {
		return err
	}
	const sql = `
		SELECT rolname = current_user OR NOT rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
		    OR EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname <> 'rds_iam')
		    OR EXISTS (SELECT FROM pg_namespace WHERE nspowner = r.oid)
		    OR EXISTS (SELECT FROM pg_class WHERE relowner = r.oid AND relpersistence <> 't'),
		    EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_iam')
		    AND NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname = 'rds_iam')
		FROM pg_roles r WHERE rolname = $1`
	var mayMore, lacksTokens bool
	if err := tx.QueryRow(ctx, sql, role).Scan(&mayMore, &lacksTokens); err != nil {
		return err
	}
	if mayMore {
		return fault.Public(fault.Conflict, fmt.Sprintf("the role %q may do more than read and write rows, or can't log in; set DATABASE_ROLE to a name that is free", role), nil)
	}
	if lacksTokens {
		return unlessDone(ctx, tx, "GRANT rds_iam TO "+pgx.Identifier{role}.Sanitize())
	}
	return nil
}

func create(ctx context.Context, tx pgx.Tx, role string) error {
	var exists bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&exists)
	if err != nil || exists {
		return err
	}
	return unlessDone(ctx, tx, "CREATE ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN")
}

// unlessDone runs what a migration of another database may do meanwhile: roles belong to
// all databases of a server, and the lock to one.
func unlessDone(ctx context.Context, tx pgx.Tx, sql string) error {
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql)
		return err
	})
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == duplicateObject || pg.Code == uniqueViolation) {
		return nil
	}
	return err
}

// What PostgreSQL says of a role that is there already, and of one that has just come.
const duplicateObject, uniqueViolation = "42710", "23505"

// grants are the same each time: what a migration added is covered by the next line, and
// what somebody granted beyond it is taken back. Identity columns ask for no right to
// their sequences.
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
		// A later migration may run without this, as keyway migrate by hand does.
		"ALTER DEFAULT PRIVILEGES IN SCHEMA " + schema + " GRANT " + rows + " ON TABLES TO " + role,
	}
}
