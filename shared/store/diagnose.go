package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is what the database server allows this program.
type Server struct {
	// MaxConns is how many connections the server allows to ordinary roles, and UsedConns how many it has now.
	MaxConns, UsedConns int
	// Missing are the tables of the schema that the role can't use as this package does, each with the missing rights, as
	// in "runs: DELETE, UPDATE".
	Missing []string
	// Exists reports that the schema exists, and Enters that the role can use the names in it.
	Exists, Enters bool
}

// Server asks for the limits of the server and the rights of the role. It reads only the catalog of PostgreSQL, so it
// also works if the schema is missing or old.
func (db *DB) Server(ctx context.Context) (Server, error) {
	found, err := collect[Server](ctx, db, `
		SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS max_conns,
			(SELECT coalesce(sum(numbackends), 0)::int FROM pg_stat_database) AS used_conns,
			EXISTS (SELECT FROM pg_namespace WHERE nspname = @schema) AS "exists",
			EXISTS (SELECT FROM pg_namespace WHERE nspname = @schema AND has_schema_privilege(oid, 'USAGE')) AS enters,
			ARRAY(
				SELECT c.relname::text || ': ' || string_agg(r.name, ', ' ORDER BY r.name)
				FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
					CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS r (name)
				WHERE n.nspname = @schema AND c.relkind IN ('r', 'p') AND NOT has_table_privilege(c.oid, r.name)
					AND (r.name = 'SELECT' OR c.relname NOT IN ('os', 'schema_version')) -- only migrations write them
				GROUP BY c.relname ORDER BY c.relname
			) AS missing`, pgx.NamedArgs{"schema": db.pool.schema})
	if err != nil {
		return Server{}, fmt.Errorf("database server: %w", kindOf(err))
	}
	return found[0], nil
}

// Backlog is the work that no process does.
type Backlog struct {
	// Waiting is how many background runs wait for a process, and OldestWait how long the first of them has.
	Waiting    int
	OldestWait time.Duration
	// Orphaned is how many runs have lost their process, and OldestLoss how long ago the first of them has.
	Orphaned   int
	OldestLoss time.Duration
}

// Backlog counts the runs that no process executes although one could, up to 10,000 of each kind.
func (db *DB) Backlog(ctx context.Context) (b Backlog, err error) {
	var waits, lost float64
	err = db.queryRow(ctx, `
		SELECT waiting.n, waiting.oldest, orphaned.n, orphaned.oldest FROM (
			SELECT count(*) AS n, coalesce(extract(epoch FROM now() - min(lease_until)), 0)::float8 AS oldest FROM (
				SELECT lease_until FROM keyway.runs WHERE status = 'PENDING' AND lease_until <= now()
				ORDER BY lease_until LIMIT 10000) AS r
		) AS waiting, (
			SELECT count(*) AS n, coalesce(extract(epoch FROM now() - min(lease_until)), 0)::float8 AS oldest FROM (
				SELECT lease_until FROM keyway.runs WHERE status = 'RUNNING' AND lease_until <= now()
				ORDER BY lease_until LIMIT 10000) AS r
		) AS orphaned`).Scan(&b.Waiting, &waits, &b.Orphaned, &lost)
	if err != nil {
		return Backlog{}, fmt.Errorf("waiting runs: %w", kindOf(err))
	}
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	b.OldestWait, b.OldestLoss = seconds(waits), seconds(lost)
	return b, nil
}
