package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/pgvalue"
)

// Everything that the database holds about one owner can be read and removed as a whole: for a person who asks for a
// copy of their data, or for its erasure. Both go in pages, so that the size of the data bounds neither.

// UserItem is one thing that an owner has.
type UserItem struct {
	// Kind is session, run, events, memory or spending.
	Kind string `json:"kind"`
	// Data is the row as a JSON object, without what only Keyway itself uses.
	Data json.RawMessage `json:"data"`
}

// userKinds are the kinds of UserItem in the order in which they are read. Each query selects the place of a row, by
// which a page continues, and the row. The order is that of an index.
var userKinds = []struct{ kind, query string }{
	{"session", `SELECT s.session_id AS id, 0::bigint AS seq, 0 AS first, (SELECT row_to_json(d) FROM (SELECT s.session_id,
			s.session_type, s.agent_id, s.team_id, s.workflow_id, s.name, s.summary, s.state, s.metadata, s.created_at,
			s.updated_at, (SELECT json_agg(json_build_object('model_id', u.model_id, 'input_tokens', u.input_tokens,
				'output_tokens', u.output_tokens, 'total_tokens', u.total_tokens) ORDER BY u.model_id, u.model_family)
				FROM keyway.session_usage u WHERE u.owner = s.owner AND u.session_id = s.session_id) AS usage) AS d) AS data
		FROM keyway.sessions s WHERE s.owner = @owner AND s.session_id > @id::text ORDER BY s.session_id`},
	{"run", `SELECT r.session_id AS id, r.seq, 0 AS first, (SELECT row_to_json(d) FROM (SELECT r.run_id, r.session_id,
			r.agent_id, r.agent_name, r.model_id, r.model_provider, r.status, r.cancellation_stage, r.background,
			r.streamed, r.input, r.files, r.history, r.content, r.reasoning_content, r.provider_data, r.messages, r.tools,
			r.requirements, r.metrics, r.metadata, r.session_state, r.idempotency_key, r.created_at, r.finished_at) AS d) AS data
		FROM keyway.runs r WHERE r.owner = @owner AND (r.session_id, r.seq) > (@id::text, @seq::bigint)
			ORDER BY r.session_id, r.seq`},
	{"events", `SELECT r.session_id AS id, r.seq, e.first_index AS first, json_build_object('run_id', e.run_id,
			'first_index', e.first_index, 'count', e.count, 'frames', e.frames) AS data
		FROM keyway.runs r JOIN keyway.run_events e ON e.run_id = r.run_id AND e.attempt = r.attempt
		WHERE r.owner = @owner AND (r.session_id, r.seq) >= (@id::text, @seq::bigint)
			AND (r.session_id, r.seq, e.first_index) > (@id::text, @seq::bigint, @first::int) ORDER BY r.session_id, r.seq,
				e.first_index`},
	{"memory", `SELECT m.memory_id::text AS id, 0::bigint AS seq, 0 AS first, (SELECT row_to_json(d)
		FROM (SELECT m.memory_id,
			m.memory, m.topics, m.agent_id, m.team_id, m.created_at, m.updated_at) AS d) AS data
		FROM keyway.memories m WHERE m.owner = @owner AND (@id::text = '' OR m.memory_id > NULLIF(@id::text, '')::uuid)
		ORDER BY m.memory_id`},
	// What was counted for the limits of the owner as a caller; see budget.go.
	{"spending", `SELECT p.whose || ' ' || to_char(p.day, 'YYYY-MM-DD') AS id, 0::bigint AS seq, 0 AS first,
			json_build_object('counted', p.whose, 'day', p.day, 'runs', p.runs, 'tokens', p.tokens,
				'micro_usd', p.micro_usd) AS data
		FROM keyway.spending p WHERE p.key = @owner AND p.whose IN ('caller', 'merges')
			AND p.whose || ' ' || to_char(p.day, 'YYYY-MM-DD') > @id::text ORDER BY 1`},
}

// maxUserPage are the most rows of one kind in a page.
const maxUserPage = 100

// userPageBytes is the size of a page, which is held in memory.
const userPageBytes = 4 << 20

// UserPlace is where a page continues: after the row of a kind. The zero value is the beginning.
type UserPlace struct {
	kind, id string
	seq      int64
	first    int32
}

// String returns the place as a text, which ParseUserPlace reads. That of the beginning is "".
func (c UserPlace) String() string {
	if c.kind == "" {
		return ""
	}
	return fmt.Sprintf("%s~%d~%d~%s", c.kind, c.seq, c.first, base64.RawURLEncoding.EncodeToString([]byte(c.id)))
}

// ParseUserPlace reads the text of a place. It reports false for any other text.
func ParseUserPlace(text string) (c UserPlace, ok bool) {
	if text == "" {
		return c, true
	}
	parts := strings.Split(text, "~")
	if len(parts) != 4 {
		return c, false
	}
	known := slices.ContainsFunc(userKinds, func(k struct{ kind, query string }) bool { return k.kind == parts[0] })
	seq, errSeq := strconv.ParseInt(parts[1], 10, 64)
	first, errFirst := strconv.ParseInt(parts[2], 10, 32)
	id, errID := base64.RawURLEncoding.DecodeString(parts[3])
	if !known || errSeq != nil || errFirst != nil || errID != nil || !pgvalue.ValidText(string(id)) {
		return c, false
	}
	if parts[0] == "memory" && len(id) > 0 && (len(id) != len(uuid.Nil.String()) || uuid.Validate(string(id)) != nil) {
		return c, false
	}
	return UserPlace{kind: parts[0], id: string(id), seq: seq, first: int32(first)}, true
}

// userPage reads a page of what an owner has, and where the next page begins; more is false after the last one. A page
// has at most most bytes, but at least one item. It continues with the next kind while there is room.
func (db *DB) userPage(ctx context.Context, conn *pgx.Conn, owner string, from UserPlace, most int) (
	items []UserItem, next UserPlace, more bool, err error,
) {
	begin := slices.IndexFunc(userKinds, func(k struct{ kind, query string }) bool { return k.kind == from.kind })
	for _, k := range userKinds[max(begin, 0):] {
		if k.kind != from.kind {
			from = UserPlace{kind: k.kind, first: -1}
		}
		// The sizes are added up in the database, so that what doesn't fit is not sent.
		rows, _ := conn.Query(ctx, db.text(`
			SELECT id, seq, first, data::text FROM (
				SELECT *, row_number() OVER w AS n, sum(octet_length(data::text)) OVER w AS bytes
				FROM (`+k.query+` LIMIT @limit) AS found WINDOW w AS (ROWS UNBOUNDED PRECEDING)
			) AS summed WHERE bytes <= @most OR n = 1 AND @empty ORDER BY n`),
			from.args(pgx.NamedArgs{"owner": owner, "limit": maxUserPage, "most": most, "empty": len(items) == 0}))
		var data string
		if _, err = pgx.ForEachRow(rows, []any{&from.id, &from.seq, &from.first, &data}, func() error {
			items, most = append(items, UserItem{k.kind, json.RawMessage(data)}), most-len(data)
			return nil
		}); err != nil {
			return nil, next, false, err
		}
		var rest bool
		if err := conn.QueryRow(ctx, db.text(`SELECT EXISTS (`+k.query+`)`),
			from.args(pgx.NamedArgs{"owner": owner})).Scan(&rest); err != nil {
			return nil, next, false, err
		}
		if rest {
			return items, from, true, nil
		}
	}
	return items, UserPlace{}, false, nil
}

// args adds the arguments that the queries of userKinds have of the cursor.
func (c UserPlace) args(more pgx.NamedArgs) pgx.NamedArgs {
	more["id"], more["seq"], more["first"] = c.id, c.seq, c.first
	return more
}

// ExportUser passes all that an owner has to emit, as it is at one moment. It uses one connection for as long as emit
// takes.
func (db *DB) ExportUser(ctx context.Context, owner string, emit func(UserItem) error) error {
	conn, err := db.pool.acquire(ctx, 0)
	if err != nil {
		return fmt.Errorf("data of a user: %w", kindOf(err))
	}
	defer conn.Release()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("data of a user: %w", kindOf(err))
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	for from, more := (UserPlace{}), true; more; {
		var items []UserItem
		limited, cancel := context.WithTimeout(ctx, db.pool.limits.bulk)
		items, from, more, err = db.userPage(limited, tx.Conn(), owner, from, userPageBytes)
		cancel()
		if err != nil {
			return fmt.Errorf("data of a user: %w", kindOf(err))
		}
		for _, item := range items {
			if err := emit(item); err != nil {
				return err
			}
		}
	}
	return nil
}

// UserPage returns a page of what an owner has, and the place of the next page: the beginning after the last one. The
// pages show different moments, so data that is added or deleted meanwhile may be in none.
func (db *DB) UserPage(ctx context.Context, owner string, from UserPlace) (
	items []UserItem, next UserPlace, err error,
) {
	err = db.bulk.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		items, next, _, err = db.userPage(ctx, conn, owner, from, userPageBytes)
		return err
	})
	if err != nil {
		return nil, next, fmt.Errorf("data of a user: %w", kindOf(err))
	}
	return items, next, nil
}

// UserCounts counts what an owner has, or what was deleted of it.
type UserCounts struct {
	Sessions int `json:"sessions"`
	Runs     int `json:"runs"`
	Memories int `json:"memories"`
	// Live is the work in progress that may write more: runs that are PENDING or RUNNING and merges of memories, also
	// those of others that count for the owner as the caller.
	Live int `json:"live_runs"`
}

// liveOf counts UserCounts.Live.
const liveOf = `(SELECT count(*) FROM keyway.runs
		WHERE status IN ('PENDING', 'RUNNING') AND (owner = @owner OR spender = @owner))
	+ (SELECT count(*) FROM keyway.unsettled WHERE spender = @owner AND lease_until > now())`

// CountUser counts what an owner has.
func (db *DB) CountUser(ctx context.Context, owner string) (n UserCounts, err error) {
	err = db.bulk.queryRow(ctx, `SELECT
		(SELECT count(*) FROM keyway.sessions WHERE owner = @owner),
		(SELECT count(*) FROM keyway.runs WHERE owner = @owner),
		(SELECT count(*) FROM keyway.memories WHERE owner = @owner), `+liveOf,
		pgx.NamedArgs{"owner": owner}).Scan(&n.Sessions, &n.Runs, &n.Memories, &n.Live)
	if err != nil {
		return n, fmt.Errorf("count the data of a user: %w", kindOf(err))
	}
	return n, nil
}

// eraseBatch is how many sessions, and twenty times how many memories, one statement of EraseUser deletes. A session
// may have thousands of runs.
const eraseBatch = 50

// EraseUser deletes sessions, runs, events, usage and memories of an owner, in at most the given number of batches.
// When nothing of these is left, it also deletes what was counted for the owner as a caller, and removes the name from
// runs of others that the owner has begun. more reports that something may be left. It returns what it has deleted,
// also with an error; it is less than that if the answer to a statement was lost.
//
// While work of the owner is in progress it is fault.Conflict, and nothing more is deleted: the work would write on.
// Each batch is complete in itself, so a call that failed can be repeated.
func (db *DB) EraseUser(ctx context.Context, owner string, batches int) (did UserCounts, more bool, err error) {
	for range batches {
		var n UserCounts
		// The locks are taken in the order of DeleteSessions and of MergeMemories.
		if err := db.bulk.queryRow(ctx, `
			WITH live AS MATERIALIZED (
				SELECT `+liveOf+` AS n
			), held AS (
				SELECT owner, session_id FROM keyway.sessions WHERE owner = @owner AND (SELECT n FROM live) = 0
				ORDER BY owner, session_id LIMIT @batch FOR UPDATE
			), runs AS (
				SELECT r.run_id FROM keyway.runs r JOIN held h USING (owner, session_id) ORDER BY r.run_id FOR UPDATE OF r
			), memories AS (
				SELECT memory_id FROM keyway.memories WHERE owner = @owner AND (SELECT n FROM live) = 0
				ORDER BY memory_id LIMIT 20 * @batch FOR UPDATE
			), forgotten AS (
				DELETE FROM keyway.memories m USING memories h WHERE m.memory_id = h.memory_id
			), gone AS (
				DELETE FROM keyway.sessions s USING held h
				WHERE s.owner = h.owner AND s.session_id = h.session_id AND (SELECT count(*) FROM runs) >= 0
				RETURNING s.session_id
			)
			SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM runs), (SELECT count(*) FROM memories), n FROM live`,
			pgx.NamedArgs{"owner": owner, "batch": eraseBatch}).
			Scan(&n.Sessions, &n.Runs, &n.Memories, &n.Live); err != nil {
			return did, true, fmt.Errorf("erase the data of a user: %w", kindOf(err))
		}
		if n.Live > 0 {
			return did, true, fault.Public(fault.Conflict, fmt.Sprintf("The user has runs in progress (%d); cancel them, or "+
				"wait until they end, and repeat", n.Live), nil)
		}
		did.Sessions, did.Runs, did.Memories = did.Sessions+n.Sessions, did.Runs+n.Runs, did.Memories+n.Memories
		if n == (UserCounts{}) {
			return did, false, db.eraseSpender(ctx, owner)
		}
	}
	return did, true, nil
}

// eraseSpender removes the name of an owner as a caller, whose use is counted. It is a statement of its own, because
// one that begins a run locks the session first and the counts later.
func (db *DB) eraseSpender(ctx context.Context, owner string) error {
	for n := int64(eraseBatch); n == eraseBatch; {
		var err error
		if n, err = db.bulk.exec(ctx, `
			WITH held AS ( -- in the order of settle
				SELECT whose, key, day FROM keyway.spending WHERE key = @owner AND whose IN ('caller', 'merges')
				ORDER BY whose, day FOR UPDATE
			), spent AS (
				DELETE FROM keyway.spending p USING held h WHERE p.whose = h.whose AND p.key = h.key AND p.day = h.day
			), unsettled AS (
				DELETE FROM keyway.unsettled WHERE spender = @owner AND lease_until <= now()
			)
			UPDATE keyway.runs SET spender = '' WHERE run_id IN (
				SELECT run_id FROM keyway.runs WHERE spender = @owner AND spender <> owner AND spender <> ''
					AND status NOT IN ('PENDING', 'RUNNING') ORDER BY run_id LIMIT @batch FOR UPDATE)`,
			pgx.NamedArgs{"owner": owner, "batch": eraseBatch}); err != nil {
			return fmt.Errorf("erase what was counted for a user: %w", kindOf(err))
		}
	}
	return nil
}
