package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// withReady returns an executor whose batches call ready when their rows are read and their transaction is not
// committed yet. A commit waits for the disk, and PostgreSQL sends the rows of a batch with the end of the commit,
// unless the client asks for them before. The message Flush does that, in the same write as the statements.
//
// What ready receives may never be stored: the commit can fail. If the batch is repeated, ready is called again. In the
// modes of pgx that Keyway itself does not choose, it is not called.
func (e executor) withReady(ready func()) executor {
	e.ready = ready
	return e
}

// callsReady reports whether a batch on this connection calls ready.
func (e executor) callsReady(conn *pgx.Conn) bool {
	mode := conn.Config().DefaultQueryExecMode
	return e.ready != nil && (mode == pgx.QueryExecModeCacheStatement || mode == pgx.QueryExecModeExec)
}

// sendWithReady executes a batch as pgx does, and calls ready between its rows and its commit.
func (e executor) sendWithReady(
	ctx context.Context, conn *pgx.Conn, b *pgx.Batch, read func(pgx.BatchResults) error,
) error {
	for _, q := range b.QueuedQueries {
		var err error
		if q.Arguments, err = e.rewrite(ctx, conn, q); err != nil {
			return err
		}
	}
	statements := make([]*pgconn.StatementDescription, len(b.QueuedQueries))
	if conn.Config().DefaultQueryExecMode != pgx.QueryExecModeExec {
		var err error
		if statements, err = prepared(ctx, conn.PgConn(), b.QueuedQueries); err != nil {
			_ = conn.Close(ctx) // It may have some of the names.
			return err
		}
	}
	answers := &results{pipeline: conn.PgConn().StartPipeline(ctx), types: conn.TypeMap()}
	for i, q := range b.QueuedQueries {
		if err := answers.send(q, statements[i]); err != nil {
			return cmp.Or(err, answers.Close())
		}
	}
	answers.pipeline.SendFlushRequest()
	err := answers.pipeline.Sync()
	if err == nil {
		err = read(answers)
	}
	if err == nil {
		e.ready()
	}
	closed := answers.Close()
	return cmp.Or(err, closed)
}

// prepared returns the descriptions of queries. Those that the connection has not prepared are prepared in one round
// trip. Their names are hashes of the texts, as pgx's are.
func prepared(
	ctx context.Context, conn *pgconn.PgConn, queries []*pgx.QueuedQuery,
) ([]*pgconn.StatementDescription, error) {
	const key = "keyway.prepared"
	known, ok := conn.CustomData()[key].(map[string]*pgconn.StatementDescription)
	if !ok {
		known = map[string]*pgconn.StatementDescription{}
		conn.CustomData()[key] = known
	}
	all := make([]*pgconn.StatementDescription, len(queries))
	var missing []*pgconn.StatementDescription
	for i, q := range queries {
		if all[i] = known[q.SQL]; all[i] == nil {
			hash := sha256.Sum256([]byte(q.SQL))
			all[i] = &pgconn.StatementDescription{Name: "keyway_" + hex.EncodeToString(hash[:16]), SQL: q.SQL}
			missing = append(missing, all[i])
		}
	}
	if len(missing) == 0 {
		return all, nil
	}
	p := conn.StartPipeline(ctx)
	for _, d := range missing {
		p.SendPrepare(d.Name, d.SQL, nil)
	}
	err := p.Sync()
	for _, d := range missing {
		if err != nil {
			break
		}
		var answer any
		if answer, err = p.GetResults(); err == nil {
			described, ok := answer.(*pgconn.StatementDescription)
			if !ok {
				err = fmt.Errorf("expected a description, got %T", answer)
				break
			}
			d.ParamOIDs, d.Fields = described.ParamOIDs, described.Fields
			known[d.SQL] = d
		}
	}
	closed := p.Close()
	return all, cmp.Or(err, closed)
}

// rewrite replaces the names of arguments in the text of a query by numbers, and returns the arguments in their order.
func (e executor) rewrite(ctx context.Context, conn *pgx.Conn, q *pgx.QueuedQuery) (values []any, err error) {
	if len(q.Arguments) != 1 {
		return q.Arguments, nil
	}
	named, ok := q.Arguments[0].(pgx.QueryRewriter)
	if !ok {
		return q.Arguments, nil
	}
	q.SQL, values, err = named.RewriteQuery(ctx, conn, q.SQL, nil)
	return values, err
}

// results are the results of a batch. Of pgx.BatchResults it has what this package uses.
type results struct {
	pgx.BatchResults
	pipeline *pgconn.Pipeline
	types    *pgtype.Map
}

// send adds a statement to the batch. statement is nil for one without a name.
func (r *results) send(q *pgx.QueuedQuery, statement *pgconn.StatementDescription) error {
	var values pgx.ExtendedQueryBuilder
	if err := values.Build(r.types, statement, q.Arguments); err != nil {
		return fmt.Errorf("arguments: %w", err)
	}
	if statement == nil {
		r.pipeline.SendQueryParams(q.SQL, values.ParamValues, nil, values.ParamFormats, values.ResultFormats)
	} else {
		r.pipeline.SendQueryStatement(statement, values.ParamValues, values.ParamFormats, values.ResultFormats)
	}
	return nil
}

// Query returns the rows of the next statement.
func (r *results) Query() (pgx.Rows, error) {
	next, err := r.pipeline.GetResults()
	reader, ok := next.(*pgconn.ResultReader)
	if err == nil && !ok {
		err = fmt.Errorf("expected rows, got %T", next)
	}
	if err != nil {
		return failed{err: err}, err
	}
	return pgx.RowsFromResultReader(r.types, reader), nil
}

// QueryRow returns the first row of the next statement.
func (r *results) QueryRow() pgx.Row {
	rows, _ := r.Query() // Scan returns its error.
	return firstRow{rows}
}

// Exec executes the next statement and ignores its rows.
func (r *results) Exec() (pgconn.CommandTag, error) {
	rows, _ := r.Query() // Err returns its error.
	rows.Close()
	return rows.CommandTag(), rows.Err()
}

// Close returns when the transaction is committed, or with the error of the commit.
func (r *results) Close() error { return r.pipeline.Close() }

// firstRow is the first of several rows.
type firstRow struct{ pgx.Rows }

// Scan reads the row. Without one, the error is pgx.ErrNoRows.
func (r firstRow) Scan(into ...any) error {
	defer r.Close()
	if !r.Next() {
		return cmp.Or(r.Err(), pgx.ErrNoRows)
	}
	if err := r.Rows.Scan(into...); err != nil {
		return err
	}
	r.Close()
	return r.Err()
}

// failed are the rows of a statement that has failed.
type failed struct {
	pgx.Rows
	err error
}

func (failed) Close()                        {}
func (failed) Next() bool                    { return false }
func (f failed) Err() error                  { return f.err }
func (failed) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }
