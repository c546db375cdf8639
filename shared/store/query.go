package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/keyway-agents/keyway/shared/pgvalue"
)

// text returns a query for the configured schema. Queries are written for the default schema "keyway", so that they
// can be pasted into psql.
//
// Setting search_path instead would be shorter, but it is state of the connection. RDS Proxy pins a connection on
// which a client executes SET (AWS's documentation, "Avoiding pinning an RDS Proxy"), and a proxy that shares
// connections without pinning would execute the next client's statements in the wrong schema. A name in the text is
// also independent of the search_path that a database or a role sets. The texts are cached, because there are few
// different queries and each is executed often.
func (e executor) text(sql string) string {
	if t, ok := e.pool.sql.Load(sql); ok {
		return t.(string)
	}
	t := strings.ReplaceAll(sql, "keyway.", pgx.Identifier{e.pool.schema}.Sanitize()+".")
	e.pool.sql.Store(sql, t)
	return t
}

// arguments are the named arguments of a query. They do what pgx.NamedArgs does, but parse each text once: to parse
// the text of a statement that begins a run takes longer than to send it.
type arguments struct {
	pool  *pool
	named pgx.NamedArgs
}

// parsed is a query with $1 in place of @name, and the names in the order of the numbers.
type parsed struct {
	sql   string
	names []string
}

// RewriteQuery implements pgx.QueryRewriter.
func (a arguments) RewriteQuery(
	ctx context.Context, conn *pgx.Conn, sql string, _ []any,
) (text string, values []any, err error) {
	found, ok := a.pool.parsed.Load(sql)
	if !ok {
		names := make(pgx.NamedArgs, len(a.named)) // Each argument is its own name.
		for name := range a.named {
			names[name] = name
		}
		p := parsed{}
		if p.sql, values, err = names.RewriteQuery(ctx, conn, sql, nil); err != nil {
			return "", nil, err
		}
		for _, v := range values {
			name, ok := v.(string)
			if !ok { // A name of the query is missing here: it is NULL, and another call may have it.
				return a.named.RewriteQuery(ctx, conn, sql, nil)
			}
			p.names = append(p.names, name)
		}
		found, _ = a.pool.parsed.LoadOrStore(sql, p)
	}
	p := found.(parsed)
	values = make([]any, len(p.names))
	for i, name := range p.names {
		values[i] = simple(a.named[name])
	}
	return p.sql, values, nil
}

// simple returns an argument in the form that pgx encodes with the least work. pgx would ask a uuid.UUID for a text
// after it has tried it as bytes, and reflect on a number; it sends a string as it is, as the text of a value of any
// type. A value that is NULL is nil.
func simple(arg any) any {
	switch v := arg.(type) {
	case uuid.UUID:
		return pgtype.UUID{Bytes: v, Valid: true}
	case *uuid.UUID:
		if v == nil {
			return nil
		}
		return pgtype.UUID{Bytes: *v, Valid: true}
	case []uuid.UUID:
		if v == nil {
			return nil
		}
		return array(v, len("00000000-0000-0000-0000-000000000000"), func(to []byte, id uuid.UUID) []byte {
			return append(to, id.String()...)
		})
	case []int32:
		if v == nil {
			return nil
		}
		return array(v, len("1"), func(to []byte, n int32) []byte { return strconv.AppendInt(to, int64(n), 10) })
	case int:
		return strconv.Itoa(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	case *string:
		if v == nil {
			return nil
		}
		return *v
	case json.RawMessage:
		if v == nil {
			return nil
		}
	}
	return arg
}

// array returns the text of an array of PostgreSQL, whose elements are some size bytes long and need no quotes.
func array[T any](elements []T, size int, add func([]byte, T) []byte) string {
	text := append(make([]byte, 0, 2+len(elements)*(size+1)), '{')
	for i, e := range elements {
		if i > 0 {
			text = append(text, ',')
		}
		text = add(text, e)
	}
	return string(append(text, '}'))
}

// arguments returns the arguments of a query for pgx.
func (e executor) arguments(args []any) []any {
	if len(args) == 1 {
		if named, ok := args[0].(pgx.NamedArgs); ok {
			return []any{arguments{e.pool, named}}
		}
	}
	return args
}

// statements is a DB, or one of its executors.
type statements interface {
	do(ctx context.Context, statement func(context.Context, *pgx.Conn) error) error
	text(sql string) string
	arguments(args []any) []any
}

// row is a query that returns at most one row. It is executed by Scan.
type row struct {
	e    executor
	ctx  context.Context
	sql  string
	args []any
}

// queryRow returns a query that returns at most one row.
func (e executor) queryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return row{e, ctx, e.text(sql), args}
}

// Scan executes the query and reads its row. Without a row, the error is pgx.ErrNoRows.
func (r row) Scan(into ...any) error {
	return r.e.carrying(r.args...).do(r.ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, r.sql, r.e.arguments(r.args)...).Scan(into...)
	})
}

// exec executes a statement and returns the number of affected rows.
func (e executor) exec(ctx context.Context, sql string, args ...any) (affected int64, err error) {
	err = e.carrying(args...).do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		tag, err := conn.Exec(ctx, e.text(sql), e.arguments(args)...)
		affected = tag.RowsAffected()
		return err
	})
	return affected, err
}

// batch executes several statements in one round trip and one transaction. Their texts must be those of text. read
// reads the results; it starts anew with each call, because the batch may be repeated.
func (e executor) batch(ctx context.Context, b *pgx.Batch, read func(pgx.BatchResults) error) error {
	var args []any
	for _, q := range b.QueuedQueries {
		args = append(args, q.Arguments...)
	}
	return e.carrying(args...).do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var one pgx.Batch // SendBatch stores in the batch which statements this connection has prepared.
		for _, q := range b.QueuedQueries {
			one.Queue(q.SQL, e.arguments(q.Arguments)...)
		}
		if e.callsReady(conn) {
			return e.sendWithReady(ctx, conn, &one, read)
		}
		answers := conn.SendBatch(ctx, &one)
		err := read(answers)
		return cmp.Or(err, answers.Close())
	})
}

// list executes a query and reads each row with read.
func list[T any](
	ctx context.Context, on statements, read pgx.RowToFunc[T], sql string, args ...any,
) (out []T, err error) {
	err = on.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, _ := conn.Query(ctx, on.text(sql), on.arguments(args)...) // CollectRows returns its error.
		out, err = pgx.CollectRows(rows, read)
		return err
	})
	return out, err
}

// collect executes a query and reads every row into a T, by the names of the columns.
func collect[T any](ctx context.Context, on statements, sql string, args pgx.NamedArgs) ([]T, error) {
	return list(ctx, on, pgx.RowToStructByName[T], sql, args)
}

// listing describes one page of a list. Its texts become part of the SQL, so they must be constants of this package
// and never come from a request.
type listing struct {
	// on executes it: pages, or bulk if its rows are made of many others.
	on                   executor
	columns, from, order string
	// limit and page are at least 1.
	limit, page int
}

// paged reads one page, each row with read, and counts all rows, in one round trip. The two statements see the same
// rows only if nothing is written between them, so total may differ from the rows by what was written at that moment,
// and by what totals allows.
func paged[T any](
	ctx context.Context, db *DB, read pgx.RowToFunc[T], l listing, args pgx.NamedArgs,
) (page []T, total int, err error) {
	key := keyOf(l.from, args)
	args["limit"], args["offset"] = l.limit, int64(l.page-1)*int64(l.limit)
	var b pgx.Batch
	b.Queue(db.text(
		`SELECT `+l.columns+` FROM `+l.from+` ORDER BY `+l.order+` LIMIT @limit OFFSET @offset`), args)
	total, known := db.totals.get(key, time.Now())
	if !known {
		b.Queue(db.text(`SELECT count(*) FROM `+l.from), args)
	}
	begin := time.Now()
	err = l.on.batch(ctx, &b, func(answers pgx.BatchResults) error {
		rows, _ := answers.Query() // AppendRows returns its error.
		if page, err = pgx.AppendRows(make([]T, 0, min(l.limit, 20)), rows, read); err != nil || known {
			return err
		}
		return answers.QueryRow().Scan(&total)
	})
	if err != nil {
		return nil, 0, err
	}
	if !known { // Both statements together took that long: PostgreSQL sends the first answer with the second one.
		db.totals.put(key, total, time.Since(begin))
	}
	return page, total, nil
}

// keyOf returns a text for a list and its arguments, which differs for each two lists.
func keyOf(from string, args pgx.NamedArgs) string {
	var room [8]string // on the stack
	names := slices.AppendSeq(room[:0], maps.Keys(args))
	slices.Sort(names)
	key := append(make([]byte, 0, 256), from...)
	for _, name := range names {
		key = append(append(key, ' '), name...)
		if text, ok := args[name].(string); ok {
			key = strconv.AppendQuote(append(key, '='), text)
			continue
		}
		key = fmt.Appendf(append(key, '='), "%q", args[name])
	}
	return string(key)
}

// totals keeps large numbers of rows that took PostgreSQL long to count: it reads each of the rows, and a list of a
// million sessions would cost a hundred times as much as its first page. A number is kept for 50 times as long as it
// took, so counting takes at most 2 % of the time, and for a minute at most.
type totals struct {
	mu    sync.Mutex
	known map[string]keptTotal
	// many is the least number that is kept, and slow is what it must have taken. They default to manyRows and slowCount.
	many int
	slow time.Duration
}

type keptTotal struct {
	n     int
	until time.Time
}

const (
	manyRows  = 10_000
	slowCount = 20 * time.Millisecond
	keepCount = 50
	maxTotals = 1000
)

// get returns the number of rows of a list, if it is kept.
func (t *totals) get(key string, now time.Time) (n int, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept, ok := t.known[key]
	if ok && now.After(kept.until) {
		delete(t.known, key)
		return 0, false
	}
	return kept.n, ok
}

// put keeps the number of rows of a list if it is large and took long.
func (t *totals) put(key string, n int, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n < cmp.Or(t.many, manyRows) || took < cmp.Or(t.slow, slowCount) {
		return
	}
	if t.known == nil || len(t.known) >= maxTotals {
		t.known = map[string]keptTotal{}
	}
	t.known[key] = keptTotal{n, time.Now().Add(min(keepCount*took, time.Minute))}
}

// pageOf returns the clauses that select a page, "" for a limit of 0, which means all rows. It adds their arguments.
func pageOf(limit, page int, args pgx.NamedArgs) string {
	if limit == 0 {
		return ""
	}
	args["limit"], args["offset"] = limit, int64(page-1)*int64(limit)
	return " LIMIT @limit OFFSET @offset"
}

// direction returns the SQL for the direction of an order.
func direction(ascending bool) string {
	if ascending {
		return " ASC"
	}
	return " DESC"
}

// Viewer decides which rows a query can see: those of one owner, or all rows for an administrator. The zero Viewer
// sees nothing, so that a forgotten Viewer shows no data rather than everyone's.
type Viewer struct {
	Owner string
	All   bool
	// Session is the only session whose rows a query for sessions or runs can see, of those that Owner and All allow.
	// Defaults to any session. Memories belong to no session.
	Session string
}

// where returns the condition that restricts a column to the viewer's rows. It uses the named argument @viewer.
func (v Viewer) where(column string) string {
	switch {
	case v.All:
		return "true"
	case v.Owner == "":
		return "false"
	}
	return column + " = @viewer"
}

// inSession is where for a table with rows of sessions, and restricts them to the viewer's session. It uses the named
// arguments @viewer and @bound.
func (v Viewer) inSession(owner, session string) string {
	switch {
	case v.Session == "":
		return v.where(owner)
	case !ValidID(v.Session, MaxSessionID):
		return "false"
	}
	return v.where(owner) + " AND " + session + " = @bound"
}

// filter is the condition of a query: what the viewer can see, restricted further.
type filter struct {
	sql  string
	args pgx.NamedArgs
}

// filter returns a filter that lets the viewer see their own rows. owner is the name of the owner column.
func (v Viewer) filter(owner string) filter {
	return filter{v.where(owner), pgx.NamedArgs{"viewer": v.Owner}}
}

// filterSessions is filter for a table with rows of sessions. owner and session are the names of its columns.
func (v Viewer) filterSessions(owner, session string) filter {
	return filter{v.inSession(owner, session), pgx.NamedArgs{"viewer": v.Owner, "bound": v.Session}}
}

// and restricts the filter by a condition that uses the named argument.
func (f *filter) and(condition, name string, value any) {
	f.sql += " AND " + condition
	f.args[name] = value
}

// ifAsked is and, unless the value is empty.
func (f *filter) ifAsked(condition, name, value string) {
	if value != "" {
		f.and(condition, name, value)
	}
}

// ValidID reports whether text can be an id: it is not empty, has at most maxBytes bytes and satisfies
// pgvalue.ValidText. A query for any other id finds nothing, instead of an error of PostgreSQL.
func ValidID(text string, maxBytes int) bool {
	return text != "" && len(text) <= maxBytes && pgvalue.ValidText(text)
}
