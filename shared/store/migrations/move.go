package migrations

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/store"
)

// Holding counts what the users of one issuer own.
type Holding struct {
	// Group is the beginning of their names; see owner.Stored.
	Group string
	// Owners counts the users who own something.
	Owners, Sessions, Runs, Memories int
}

// Holdings returns the record of a schema and what the users of each issuer own. The schema must be at the version of
// this program or later.
func Holdings(ctx context.Context, t Target) (r *owner.Record, list []Holding, err error) {
	err = t.inspect(ctx, func(tx pgx.Tx) error {
		if r, err = t.owners(ctx, tx); err != nil {
			return err
		}
		list, err = t.holdings(ctx, tx, "owner <> ''", nil)
		return err
	})
	return r, list, err
}

// inspect executes do in a transaction with the lock, if the schema is migrated and belongs to the OS.
func (t Target) inspect(ctx context.Context, do func(pgx.Tx) error) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return store.AtStart(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	now, err := t.state(ctx, conn)
	switch {
	case err != nil:
		return store.AtStart(err)
	case now.version < store.SchemaVersion:
		text := "the database schema %q is at version %d; run keyway migrate first"
		return fault.Public(fault.Conflict, fmt.Sprintf(text, t.Schema, now.version), nil)
	}
	if err := t.checkOwner(now.owner); err != nil {
		return err
	}
	return t.locked(ctx, conn, do)
}

// holdings counts the rows for which the condition is true, by the groups of their owners.
func (t Target) holdings(ctx context.Context, tx pgx.Tx, where string, args pgx.NamedArgs) ([]Holding, error) {
	var parts []string
	for _, table := range []string{"sessions", "runs", "memories"} {
		parts = append(parts, "SELECT owner, '"+table+"' AS kind FROM "+t.table(table)+" WHERE "+where)
	}
	count := func(kind string) string { return "count(*) FILTER (WHERE kind = '" + kind + "')" }
	if args == nil {
		args = pgx.NamedArgs{}
	}
	rows, _ := tx.Query(ctx, `SELECT `+group+`, count(DISTINCT owner), `+count("sessions")+`, `+count("runs")+`, `+
		count("memories")+` FROM (`+strings.Join(parts, " UNION ALL ")+`) AS held GROUP BY 1 ORDER BY 1`, args)
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Holding]) // It returns the error of Query.
}

// Move describes a change of the names of owners.
type Move struct {
	// From and To are issuers, "" for tokens without an issuer, or Home.
	From, To string
	// Subject is a subject of the home issuer that contains #. If it is set, what is stored under it is moved to the name
	// that it has today, and From and To are ignored.
	Subject string
	// Apply makes the change. Otherwise it is only examined.
	Apply bool
}

// Home is the home issuer in a Move. It can't be an issuer's name in one.
const Home = "home"

// Moved is what a move has changed, or would change.
type Moved struct {
	Holding
	// Live counts the runs that are in progress, and Conflicts the ids that both owners have. With one of either
	// nothing is moved.
	Live, Conflicts int
	// Examples are the first 20 conflicts.
	Examples []Conflict
	// Record is the record after the move.
	Record *owner.Record
	// Done reports that the change was made.
	Done bool
}

// Conflict is an id that the old and the new owner have both.
type Conflict struct {
	// From and To are the owners.
	From string `json:"from"`
	To   string `json:"to"`
	// Kind is "session" or "idempotency key".
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// MoveOwners renames owners in one transaction. While it looks for conflicts and makes the change, nobody can write
// to the tables. It is fault.Conflict if the file or the record contradicts the move.
func MoveOwners(ctx context.Context, t Target, m Move) (out Moved, err error) {
	err = t.inspect(ctx, func(tx pgx.Tx) error {
		out, err = t.move(ctx, tx, m)
		return err
	})
	return out, err
}

// ownerTables are the tables with a column owner.
var ownerTables = []string{"sessions", "session_usage", "runs", "memories"}

func (t Target) move(ctx context.Context, tx pgx.Tx, m Move) (out Moved, err error) {
	was, err := t.owners(ctx, tx)
	if err != nil {
		return out, err
	}
	if was == nil {
		was = &owner.Record{Issuers: map[string]string{}}
	}
	r, err := t.plan(was, m)
	if err != nil {
		return out, err
	}
	out.Record = r.record
	if m.Apply {
		for _, table := range ownerTables {
			if _, err := tx.Exec(ctx, "LOCK TABLE "+t.table(table)+" IN SHARE ROW EXCLUSIVE MODE"); err != nil {
				return out, err
			}
		}
	}
	if err := t.examine(ctx, tx, r, &out); err != nil {
		return out, err
	}
	if from := was.Issuer(m.From); out.Owners == 0 && m.Subject == "" && from != "" && from != Home &&
		was.Issuers[from] == "" && !was.Named(t.Owners, from) {
		return out, fault.Public(fault.Conflict, "nobody owns data of "+from+", and no keyway.yaml has named this issuer; "+
			"compare it with those of: keyway owners list", nil)
	}
	if !m.Apply || out.Live > 0 || out.Conflicts > 0 {
		return out, nil
	}
	if _, err := tx.Exec(ctx, "SET CONSTRAINTS ALL DEFERRED"); err != nil {
		return out, err
	}
	for _, table := range ownerTables {
		_, err := tx.Exec(ctx, "UPDATE "+t.table(table)+" SET owner = "+r.name+" WHERE "+r.where, r.args)
		if err != nil {
			return out, tooLong(err)
		}
	}
	if err := t.renameSpenders(ctx, tx, r); err != nil {
		return out, tooLong(err)
	}
	out.Done = true
	return out, t.setOwners(ctx, tx, r.record)
}

// tooLong adds a text to the error of a name that the CHECK constraints refuse.
func tooLong(err error) error {
	if code(err) != checkViolation {
		return err
	}
	text := "an issuer and a subject are longer together than the 1024 bytes that a name can have"
	return fault.Public(fault.Conflict, text, err)
}

// checkViolation is PostgreSQL's error code for a row that a CHECK constraint refuses.
const checkViolation = "23514"

// renameSpenders renames the callers whose use is counted, so that their limits follow: in the runs, and in the counts.
// What was counted under the new name on the same day is added.
func (t Target) renameSpenders(ctx context.Context, tx pgx.Tx, r renaming) error {
	for _, table := range []string{"runs", "unsettled"} {
		to := r.of("spender")
		_, err := tx.Exec(ctx, "UPDATE "+t.table(table)+" SET spender = "+to.name+" WHERE "+to.where, r.args)
		if err != nil {
			return err
		}
	}
	key := r.of("key")
	_, err := tx.Exec(ctx, `
		WITH moved AS (
			DELETE FROM `+t.table("spending")+` WHERE whose IN ('caller', 'merges') AND `+key.where+` RETURNING *
		)
		INSERT INTO `+t.table("spending")+` AS p (whose, key, day, runs, tokens, micro_usd, minute, minute_runs)
		SELECT whose, `+key.name+`, day, runs, tokens, micro_usd, minute, minute_runs FROM moved
		ON CONFLICT (whose, key, day) DO UPDATE SET runs = p.runs + EXCLUDED.runs, tokens = p.tokens + EXCLUDED.tokens,
			micro_usd = p.micro_usd + EXCLUDED.micro_usd, minute = GREATEST(p.minute, EXCLUDED.minute),
			minute_runs = CASE WHEN p.minute = EXCLUDED.minute THEN p.minute_runs + EXCLUDED.minute_runs
				WHEN EXCLUDED.minute IS NULL OR p.minute > EXCLUDED.minute THEN p.minute_runs
				ELSE EXCLUDED.minute_runs END`, r.args)
	return err
}

// renaming is a move in SQL: which owners, and their new name.
type renaming struct {
	where, name string
	args        pgx.NamedArgs
	record      *owner.Record
}

// of returns the renaming for a column with another name than owner.
func (r renaming) of(column string) renaming {
	r.where, r.name = strings.ReplaceAll(r.where, "owner", column), strings.ReplaceAll(r.name, "owner", column)
	return r
}

// plan translates a move.
func (t Target) plan(was *owner.Record, m Move) (r renaming, err error) {
	if m.Subject != "" {
		name := owner.HomeName(m.Subject)
		if name == m.Subject {
			return r, fault.Public(fault.Conflict, "the subject contains no #, so its name is the same as ever", nil)
		}
		args := pgx.NamedArgs{"from": m.Subject, "to": name}
		return renaming{where: "owner = @from::text", name: "@to::text", args: args, record: was}, nil
	}
	canonical := func(issuer string) string {
		if issuer == Home {
			return Home
		}
		return was.Issuer(issuer)
	}
	from, to := canonical(m.From), canonical(m.To)
	if r.record, err = was.Move(from, to, t.Owners); err != nil {
		return r, err
	}
	if err := r.record.Agrees(t.Owners.Home); err != nil {
		return r, err
	}
	r.args = pgx.NamedArgs{"from": owner.Group(from), "to": owner.Group(to)}
	rest := "substr(owner, length(@from::text) + 1)"
	r.where = "starts_with(owner, @from::text)"
	if from == Home {
		rest = "CASE WHEN starts_with(owner, '%#') THEN substr(owner, 3) ELSE owner END"
		r.where = "(position('#' IN owner) = 0 AND owner <> '' OR starts_with(owner, '%#'))"
	}
	r.name = "@to::text || " + rest
	if to == Home {
		r.name = "CASE WHEN position('#' IN " + rest + ") > 0 THEN '%#' ELSE '' END || " + rest
	}
	return r, nil
}

// examine counts what a move would change, and what prevents it.
func (t Target) examine(ctx context.Context, tx pgx.Tx, r renaming, out *Moved) error {
	groups, err := t.holdings(ctx, tx, r.where, r.args)
	if err != nil {
		return err
	}
	for _, h := range groups {
		out.Owners, out.Sessions = out.Owners+h.Owners, out.Sessions+h.Sessions
		out.Runs, out.Memories = out.Runs+h.Runs, out.Memories+h.Memories
	}
	err = tx.QueryRow(ctx, "SELECT count(*) FROM "+t.table("runs")+" WHERE status IN ('PENDING', 'RUNNING') AND "+r.where,
		r.args).Scan(&out.Live)
	if err != nil {
		return err
	}
	renamed := func(columns, table string) string {
		return "(SELECT owner, " + r.name + " AS name, " + columns + " FROM " + t.table(table) + " WHERE " + r.where +
			") AS m"
	}
	conflicts := `SELECT m.owner, m.name, 'session', m.session_id FROM ` + renamed("session_id", "sessions") +
		` JOIN ` + t.table("sessions") + ` o ON o.owner = m.name AND o.session_id = m.session_id
		UNION ALL SELECT m.owner, m.name, 'idempotency key', m.idempotency_key FROM ` +
		renamed("agent_id, idempotency_key", "runs") + ` JOIN ` + t.table("runs") +
		` o ON o.owner = m.name AND o.agent_id = m.agent_id AND o.idempotency_key = m.idempotency_key`
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM ("+conflicts+") AS c", r.args).Scan(&out.Conflicts); err != nil {
		return err
	}
	rows, _ := tx.Query(ctx, conflicts+" ORDER BY 1, 3, 4 LIMIT 20", r.args) // CollectRows returns its error.
	out.Examples, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Conflict])
	return err
}
