package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/limit"
)

// Budgets are counted in PostgreSQL, so that they are exact for any number of processes. The statement that begins a
// run counts and refuses. Before it, in the same round trip and transaction, another one locks everybody whose use is
// counted: with pg_advisory_xact_lock, in one order for all. Each statement of a READ COMMITTED transaction has a
// snapshot of its own, so the second one sees what all earlier holders of the locks have committed.
// See docs/adr/0020.

// Budget is whose use a run counts for, and what they may use.
type Budget struct {
	// Spender is the caller: the owner name of the token's issuer and subject, "" without a subject.
	Spender string
	// Caller, Agent and OS are the limits of the caller, of all runs of the agent together, and of all runs.
	Caller, Agent, OS limit.Limits
}

// use is what a run does that a budget is checked for. It decides which limits count.
type use int

const (
	useRun      use = iota // a run begins, and executes at once
	useWaiting             // a run begins, and waits for a worker
	useContinue            // a paused run executes again
	useMerge               // memories are merged
	useAny                 // every limit, for Uses
)

// MergesPerMinute is how many merges of memories a caller can begin in a minute, whatever the limits are.
const MergesPerMinute = 6

// merges is whose merges of memories are counted: those of one caller. It is no limit.Whose of an answer.
const merges = "merges"

// scope is one of those whose use is counted, with the limits that count for one use.
type scope struct {
	whose  string
	key    string
	limits limit.Limits
}

// scopes are those who have a limit for this use. Without any, nothing is locked or counted.
func (b Budget) scopes(agent string, u use) (list []scope) {
	all := []scope{
		{string(limit.Agent), agent, b.Agent}, {string(limit.Caller), b.Spender, b.Caller},
		{string(limit.OS), "", b.OS},
	}
	if u == useMerge {
		all = append(all[1:], scope{merges, b.Spender, limit.Limits{RunsPerMinute: MergesPerMinute}})
	}
	for _, s := range all {
		switch s.limits.TokensPerRun = 0; u {
		case useWaiting:
			s.limits.ConcurrentRuns = 0
		case useContinue:
			s.limits.RunsPerMinute, s.limits.RunsPerDay, s.limits.WaitingRuns = 0, 0, 0
		case useRun, useMerge:
			s.limits.WaitingRuns = 0
		}
		if !s.limits.None() {
			list = append(list, s)
		}
	}
	return list
}

// counts reports whether the limits of a run count what it uses on its day, at its begin or at its end.
func (b Budget) counts() bool { return b.Caller.AtBegin() || b.Agent.AtBegin() || b.OS.AtBegin() }

// check is a part of a statement that checks a budget: which scopes there are, and what is counted if the statement
// does what it is for.
type check struct {
	scopes []scope
	// runs is how many runs begin: 0 if a run is continued.
	runs int
}

// args adds the named arguments of a check. Each is an array with a value for each scope, as PostgreSQL writes it: pgx
// takes several times as long for slices. limits has the numbers of a scope as a row, because each argument of a
// statement takes some time too.
func (c check) args(to pgx.NamedArgs) pgx.NamedArgs {
	if len(c.scopes) == 0 {
		return to
	}
	to["counted_runs"] = c.runs
	to["whose"] = c.array(func(text []byte, s scope) []byte { return appendQuoted(text, s.whose) })
	to["keys"] = c.array(func(text []byte, s scope) []byte { return appendQuoted(text, s.key) })
	to["limits"] = c.array(func(text []byte, s scope) []byte {
		for i, n := range [...]int64{
			int64(s.limits.ConcurrentRuns), int64(s.limits.WaitingRuns), int64(s.limits.RunsPerMinute),
			int64(s.limits.RunsPerDay), int64(s.limits.TokensPerDay), microUSD(s.limits.USDPerDay),
		} {
			text = strconv.AppendInt(append(text, "{,"[min(i, 1)]), n, 10)
		}
		return append(text, '}')
	})
	return to
}

// array returns an array with an element for each scope.
func (c check) array(add func([]byte, scope) []byte) string {
	text := append(make([]byte, 0, 128), '{')
	for i, s := range c.scopes {
		if i > 0 {
			text = append(text, ',')
		}
		text = add(text, s)
	}
	return string(append(text, '}'))
}

// appendQuoted appends a text as an element of an array.
func appendQuoted(array []byte, text string) []byte {
	array = append(array, '"')
	for _, b := range []byte(text) {
		if b == '"' || b == '\\' {
			array = append(array, '\\')
		}
		array = append(array, b)
	}
	return append(array, '"')
}

// microUSD converts US dollars to millionths, as they are counted. A limit is at least one of them.
func microUSD(usd float64) int64 {
	if usd == 0 {
		return 0
	}
	return int64(max(1, min(usd*1e6, 1<<62)))
}

// lockScopes is the statement before that of a check. It returns the isolation level and the number of locks. A
// session of the same transaction is locked first, as by all statements that need a session and something else: it
// may be locked for long by one that deletes it, and nobody else has to wait for that. The arguments are its key,
// and an array with the names of the scopes as lockPlaces makes them.
const lockScopes = `
	WITH session AS (
		SELECT FROM keyway.sessions WHERE owner = $1 AND session_id = $2 FOR NO KEY UPDATE
	)
	SELECT current_setting('transaction_isolation'), count(pg_advisory_xact_lock(l.k))
	FROM (SELECT count(*) FROM session) s, (
		SELECT hashtextextended(name, 0) AS k FROM unnest($3::text[]) AS name ORDER BY 1 OFFSET 0
	) l`

// sql returns the parts of a statement that check the budget: the CTEs at its start, the condition under which it
// may do what it is for, the CTE that counts what it has done, and the day to which the run's tokens are added.
// done is the CTE that has a row if it was done.
//
// The time is that of the check, and not of the transaction's start, which was before the locks.
func (c check) sql(done string) (with, allowed, counted, day string) {
	if len(c.scopes) == 0 {
		return "", "", "", `(now() AT TIME ZONE 'UTC')::date`
	}
	with = `clock AS MATERIALIZED (
			SELECT t AS now, (t AT TIME ZONE 'UTC')::date AS day, date_trunc('minute', t) AS minute
			FROM (SELECT clock_timestamp() AS t OFFSET 0) AS c
		), budget AS MATERIALIZED (` + usedQuery + `
		), refused AS MATERIALIZED (
			SELECT json_agg(u) AS uses FROM budget u
			WHERE concurrent > 0 AND running >= concurrent OR waiting > 0 AND pending >= waiting
				OR per_minute > 0 AND in_minute >= per_minute OR per_day > 0 AND in_day >= per_day
				OR tokens > 0 AND used_tokens >= tokens OR micro_usd > 0 AND used_micro_usd >= micro_usd
			HAVING count(*) > 0 OR current_setting('transaction_isolation') <> 'read committed'
		), `
	allowed = ` AND NOT EXISTS (SELECT FROM refused)`
	counted = `, counted AS (
			INSERT INTO keyway.spending AS p (whose, key, day, runs, minute, minute_runs)
			SELECT u.whose, u.key, c.day, @counted_runs::bigint, c.minute, @counted_runs::bigint
			FROM ` + done + `, budget u, clock c
			WHERE u.per_minute > 0 OR u.per_day > 0 OR u.tokens > 0 OR u.micro_usd > 0 ORDER BY u.whose
			ON CONFLICT (whose, key, day) DO UPDATE SET runs = p.runs + EXCLUDED.runs, minute = EXCLUDED.minute,
				minute_runs = EXCLUDED.minute_runs + CASE WHEN p.minute = EXCLUDED.minute THEN p.minute_runs ELSE 0 END
		)`
	return with, allowed, counted, `(SELECT day FROM clock)`
}

// usedQuery selects what each scope has used. It needs a CTE or table clock with the columns now, day and minute.
//
// There are three scopes at most, and the LIMIT says so to the planner. Without it, PostgreSQL estimates more rows
// when it does not know the arguments, takes a plan for any arguments to be worse than one for these, and makes a
// new plan each time.
const usedQuery = `
			SELECT s.*,
				CASE WHEN s.concurrent > 0 THEN ` + runningOf + ` ELSE 0 END AS running,
				CASE WHEN s.waiting = 0 THEN 0
					WHEN s.whose = 'caller' THEN (SELECT count(*) FROM keyway.runs r WHERE r.status = 'PENDING' AND r.spender = s.key)
					WHEN s.whose = 'agent' THEN (SELECT count(*) FROM keyway.runs r WHERE r.status = 'PENDING' AND r.agent_id = s.key)
					ELSE (SELECT count(*) FROM keyway.runs r WHERE r.status = 'PENDING') END AS pending,
				CASE WHEN p.minute = c.minute THEN p.minute_runs ELSE 0 END AS in_minute,
				COALESCE(p.runs, 0) AS in_day, COALESCE(p.tokens, 0) AS used_tokens,
				COALESCE(p.micro_usd, 0) AS used_micro_usd,
				extract(epoch FROM c.minute + interval '1 minute' - c.now)::float8 AS minute_left,
				extract(epoch FROM (c.day + 1)::timestamp AT TIME ZONE 'UTC' - c.now)::float8 AS day_left
			FROM (
				SELECT whose, key, l[n][1] AS concurrent, l[n][2] AS waiting, l[n][3] AS per_minute, l[n][4] AS per_day,
					l[n][5] AS tokens, l[n][6] AS micro_usd
				FROM (SELECT @limits::bigint[] AS l) AS a,
					unnest(@whose::text[], @keys::text[]) WITH ORDINALITY AS u (whose, key, n) LIMIT 3
			) AS s
			CROSS JOIN clock c
			LEFT JOIN keyway.spending p ON p.whose = s.whose AND p.key = s.key AND p.day = c.day`

// runningOf counts the runs in progress of a scope s. A run whose lease has expired is not in progress: its process
// has crashed. So its place is free at that moment, without a write.
const runningOf = `(CASE s.whose
		WHEN 'caller' THEN
			(SELECT count(*) FROM keyway.runs r WHERE r.status = 'RUNNING' AND r.spender = s.key AND r.lease_until > c.now)
			+ (SELECT count(*) FROM keyway.unsettled r WHERE r.spender = s.key AND r.lease_until > c.now)
		WHEN 'agent' THEN
			(SELECT count(*) FROM keyway.runs r WHERE r.status = 'RUNNING' AND r.agent_id = s.key AND r.lease_until > c.now)
			+ (SELECT count(*) FROM keyway.unsettled r WHERE r.agent_id = s.key AND r.lease_until > c.now)
		ELSE
			(SELECT count(*) FROM keyway.runs r WHERE r.status = 'RUNNING' AND r.lease_until > c.now)
			+ (SELECT count(*) FROM keyway.unsettled r WHERE r.lease_until > c.now) END)`

// usedRow is a row of usedQuery.
type usedRow struct {
	Whose        limit.Whose `json:"whose" db:"whose"`
	Key          string      `json:"key" db:"key"`
	Concurrent   int64       `json:"concurrent" db:"concurrent"`
	Waiting      int64       `json:"waiting" db:"waiting"`
	PerMinute    int64       `json:"per_minute" db:"per_minute"`
	PerDay       int64       `json:"per_day" db:"per_day"`
	Tokens       int64       `json:"tokens" db:"tokens"`
	MicroUSD     int64       `json:"micro_usd" db:"micro_usd"`
	Running      int64       `json:"running" db:"running"`
	Pending      int64       `json:"pending" db:"pending"`
	InMinute     int64       `json:"in_minute" db:"in_minute"`
	InDay        int64       `json:"in_day" db:"in_day"`
	UsedTokens   int64       `json:"used_tokens" db:"used_tokens"`
	UsedMicroUSD int64       `json:"used_micro_usd" db:"used_micro_usd"`
	MinuteLeft   float64     `json:"minute_left" db:"minute_left"`
	DayLeft      float64     `json:"day_left" db:"day_left"`
}

// uses returns the use of each limit that the row has.
func (r usedRow) uses() (list []limit.Use) {
	minute, day := seconds(r.MinuteLeft), seconds(r.DayLeft)
	whose, runs := r.Whose, limit.RunsPerMinute
	if whose == merges {
		whose, runs = limit.Caller, limit.MergesPerMinute
	}
	for _, u := range []limit.Use{
		{Name: limit.ConcurrentRuns, Limit: float64(r.Concurrent), Used: float64(r.Running)},
		{Name: limit.WaitingRuns, Limit: float64(r.Waiting), Used: float64(r.Pending)},
		{Name: runs, Limit: float64(r.PerMinute), Used: float64(r.InMinute), Reset: minute},
		{Name: limit.RunsPerDay, Limit: float64(r.PerDay), Used: float64(r.InDay), Reset: day},
		{Name: limit.TokensPerDay, Limit: float64(r.Tokens), Used: float64(r.UsedTokens), Reset: day},
		{Name: limit.USDPerDay, Limit: float64(r.MicroUSD) / 1e6, Used: float64(r.UsedMicroUSD) / 1e6, Reset: day},
	} {
		if u.Limit > 0 {
			u.Whose = whose
			list = append(list, u)
		}
	}
	return list
}

// seconds converts from the unit of PostgreSQL's epochs.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// errRefused returns the fault about the limits that are reached: that with the longest wait, since an earlier try
// fails because of it.
func errRefused(raw json.RawMessage) error {
	var rows []usedRow
	if err := json.Unmarshal(raw, &rows); err != nil {
		return fmt.Errorf("uses: %w", err)
	}
	var longest *limit.Use
	for _, r := range rows {
		for _, u := range r.uses() {
			if u.Reached() && (longest == nil || u.Reset > longest.Reset) {
				longest = &u
			}
		}
	}
	if longest == nil {
		return errors.New("a budget was refused without a limit that is reached")
	}
	return longest.Error()
}

// checked executes a batch whose first statements check the budget. Before them it sends the locks, also that of
// the session if there is one. For no scopes it is batch.
//
// A database whose default_transaction_isolation is another one would show the check a snapshot from before the
// locks. The first statement finds that out and does nothing; from then on, batches set the level. A setting at the
// start of a connection, or for each transaction, would be a state that a proxy need not keep, or a statement more
// for everybody.
func (e executor) checked(
	ctx context.Context, c check, owner, session string, b *pgx.Batch, read func(pgx.BatchResults) error,
) error {
	if len(c.scopes) == 0 {
		return e.batch(ctx, b, read)
	}
	names := c.array(func(text []byte, s scope) []byte {
		return appendQuoted(text, e.pool.schema+"/"+s.whose+"/"+s.key)
	})
	_, err := e.locked(ctx, e.text(lockScopes), []any{owner, session, names}, b, read)
	return err
}

// locked executes a batch after a statement that takes locks and returns the isolation level and their number.
func (e executor) locked(
	ctx context.Context, lock string, args []any, b *pgx.Batch, read func(pgx.BatchResults) error,
) (locks int, err error) {
	set := e.pool.setIsolation.Load()
	var all pgx.Batch
	if set {
		all.Queue("SET transaction_isolation = 'read committed'")
	}
	all.Queue(lock, args...)
	all.QueuedQueries = append(all.QueuedQueries, b.QueuedQueries...)
	wrong := false
	err = e.batch(ctx, &all, func(answers pgx.BatchResults) error {
		if set {
			if _, err := answers.Exec(); err != nil {
				return err
			}
		}
		var level string
		if err := answers.QueryRow().Scan(&level, &locks); err != nil {
			return err
		}
		wrong = locks > 0 && level != "read committed"
		return read(answers)
	})
	if err == nil && wrong && !set {
		e.pool.setIsolation.Store(true)
		return e.locked(ctx, lock, args, b, read)
	}
	return locks, err
}

// Uses returns how much of each limit is used, of the caller first. It locks nothing.
func (db *DB) Uses(ctx context.Context, b Budget, agent string) (list []limit.Use, err error) {
	c := check{scopes: b.scopes(agent, useAny)}
	if len(c.scopes) == 0 {
		return nil, nil
	}
	rows, err := collect[usedRow](ctx, db, `
		WITH clock AS MATERIALIZED (
			SELECT now() AS now, (now() AT TIME ZONE 'UTC')::date AS day, date_trunc('minute', now()) AS minute
		)`+usedQuery+` ORDER BY array_position(ARRAY['caller', 'agent', 'os'], s.whose)`, c.args(pgx.NamedArgs{}))
	if err != nil {
		return nil, fmt.Errorf("uses: %w", kindOf(err))
	}
	for _, r := range rows {
		list = append(list, r.uses()...)
	}
	return list, nil
}

// Settle counts the tokens of a run that was deleted while the process executed it, and frees its place. It counts
// them once: the row that the trigger of runs has kept is deleted with it.
func (db *DB) Settle(ctx context.Context, l Leg, u Usage) error {
	_, err := db.exec(ctx, `
		WITH run AS (
			DELETE FROM keyway.unsettled WHERE run_id = @run_id AND leg = @leg RETURNING spender, agent_id, spend_day
		), old AS (
			DELETE FROM keyway.unsettled WHERE run_id IN (
				SELECT run_id FROM keyway.unsettled WHERE lease_until < now() - interval '1 day'
				LIMIT 1000 FOR UPDATE SKIP LOCKED)
		)`+settle,
		pgx.NamedArgs{"run_id": l.RunID, "leg": l.ID, "total_tokens": u.Total, "micro_usd": u.MicroUSD})
	if err != nil {
		return fmt.Errorf("settle run %s: %w", l.RunID, kindOf(err))
	}
	return nil
}

// settle adds the tokens of a CTE run to the day on which its leg began. Whose use is not counted has no row. The rows
// are locked in the order in which a begin writes them: two runs that end at the same time share some of them.
const settle = `
		UPDATE keyway.spending p SET tokens = p.tokens + @total_tokens::bigint, micro_usd = p.micro_usd + @micro_usd::bigint
		FROM (
			SELECT o.whose, o.key, o.day FROM keyway.spending o, run,
				LATERAL (VALUES ('agent', run.agent_id), ('caller', run.spender), ('os', '')) AS s (whose, key)
			WHERE o.whose = s.whose AND o.key = s.key AND o.day = run.spend_day AND @total_tokens::bigint > 0
			ORDER BY o.whose FOR NO KEY UPDATE OF o
		) AS h WHERE p.whose = h.whose AND p.key = h.key AND p.day = h.day`

// BeginMerge counts a merge of memories for its caller and the OS, as a run, and refuses it with the fault of the
// limit that is reached. Of the budget, Agent does not count. The merge counts as a run in progress until Settle,
// for at most as long as a lease. l identifies it.
func (db *DB) BeginMerge(ctx context.Context, l Leg, budget Budget) error {
	c := check{scopes: budget.scopes("", useMerge), runs: 1}
	with, allowed, counted, day := c.sql("added")
	args := c.args(pgx.NamedArgs{"run_id": l.RunID, "leg": l.ID, "spender": budget.Spender})
	var b pgx.Batch
	b.Queue(db.text(`
		WITH stored AS (
			SELECT FROM keyway.unsettled WHERE run_id = @run_id
		), `+with+`added AS (
			INSERT INTO keyway.unsettled (run_id, leg, spender, agent_id, spend_day, lease_until)
			SELECT @run_id, @leg, @spender, '', `+day+`, `+newLease+`
			WHERE NOT EXISTS (SELECT FROM stored)`+allowed+`
			RETURNING run_id
		)`+counted+`
		SELECT uses FROM refused WHERE NOT EXISTS (SELECT FROM stored) AND NOT EXISTS (SELECT FROM added)`), args)
	var refused json.RawMessage
	err := db.checked(ctx, c, "", "", &b, func(answers pgx.BatchResults) error {
		refused = nil
		err := answers.QueryRow().Scan(&refused)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	if err == nil && refused != nil {
		return errRefused(refused)
	}
	if err != nil {
		return fmt.Errorf("begin a merge: %w", kindOf(err))
	}
	return nil
}

// Places are the limits of runs in progress that a claim checks.
type Places struct {
	// Callers means that callers may have limits. Those of the run's caller are in its row.
	Callers bool
	// Agents are the limits of agents, by the agent's id. An agent without a limit is absent.
	Agents map[string]int
	// OS is the limit of all runs. 0 is no limit.
	OS int
}

// none reports whether nobody can have a limit. Then a claim locks nothing.
func (p Places) none() bool { return !p.Callers && len(p.Agents) == 0 && p.OS == 0 }

// left is a further condition of the claim of a run r.
func (p Places) left() string {
	if p.none() {
		return ""
	}
	return `AND (own OR cancel_requested OR ` + placesLeft + `)`
}

// placesOf are those whose runs in progress are limited, for a run r, with the limit n.
const placesOf = `(VALUES
	('caller', r.spender, (r.caller #>> '{limits,concurrent_runs}')::bigint),
	('agent', r.agent_id, (@agent_places::jsonb ->> r.agent_id)::bigint),
	('os', '', @os_places::bigint)) AS s (whose, key, n)`

// lockPlaces is lockScopes for a claim.
const lockPlaces = `
	SELECT current_setting('transaction_isolation'), count(pg_advisory_xact_lock(l.k)) FROM (
		SELECT hashtextextended(concat_ws('/', @schema::text, s.whose, s.key), 0) AS k
		FROM keyway.runs r, LATERAL ` + placesOf + `
		WHERE r.run_id = @run_id AND r.status IN ('PENDING', 'RUNNING') AND s.n > 0 ORDER BY 1 OFFSET 0
	) l`

// placesLeft is the condition that nobody has reached their limit of runs in progress, for a run r.
const placesLeft = `NOT EXISTS (
	SELECT FROM ` + placesOf + `, (SELECT clock_timestamp() AS now) AS c
	WHERE s.n > 0 AND (s.n <= ` + runningOf + ` OR current_setting('transaction_isolation') <> 'read committed'))`

// args are the named arguments of a claim.
func (p Places) args(schema string, id, leg uuid.UUID) (pgx.NamedArgs, error) {
	agents, err := json.Marshal(p.Agents)
	return pgx.NamedArgs{
		"schema": schema, "run_id": id, "leg": leg, "agent_places": json.RawMessage(agents), "os_places": p.OS,
	}, err
}
