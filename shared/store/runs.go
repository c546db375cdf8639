package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Run is one row of runs. The JSON members are as the run loop wrote them.
type Run struct {
	RunID             uuid.UUID
	Owner             string
	SessionID         string
	AgentID           string
	AgentName         string
	ModelID           string
	ModelProvider     string
	Status            string
	CancellationStage *string
	Background        bool
	Streamed          bool // its events are kept
	Input             string
	Files             json.RawMessage
	Content           *string
	ProviderData      json.RawMessage
	Messages          json.RawMessage
	Tools             json.RawMessage
	Requirements      json.RawMessage // what a paused run waits for, or waited for
	Metrics           json.RawMessage
	Metadata          json.RawMessage
	SessionState      json.RawMessage
	CreatedAt         time.Time
	Attempt           int // who carries it: the fencing number of its lease
	Losses            int // how many processes died while they carried it
	CancelRequested   bool
	Caller            json.RawMessage // who was admitted to what, while it hasn't ended
	Checkpoint        json.RawMessage // what the next attempt goes on from
}

const runColumns = `run_id, owner, session_id, agent_id, agent_name, model_id, model_provider, status,
	cancellation_stage, background, streamed, input, files, content, provider_data, messages, tools, requirements, metrics,
	metadata, session_state, created_at, attempt, losses, cancel_requested, caller, checkpoint`

// runColumnsByLength has the members of JSON objects in jsonb's order: by length.
var runColumnsByLength = strings.NewReplacer("messages", "messages::jsonb", "tools", "tools::jsonb", "metrics", "metrics::jsonb").Replace(runColumns)

// BeginOptions is what else there is to know of a run that starts.
type BeginOptions struct {
	Request Request
	History int // how many earlier runs to read, as History does; 0: none
}

// BeginResult is what a run starts with.
type BeginResult struct {
	State   json.RawMessage // of its session
	History []json.RawMessage
}

// BeginRun records that a run starts: the session, made when absent, and the row,
// in one statement. What it starts with is read in the same round trip. r.SessionState, if any, is merged
// into the session's state, which it gives back. For a request that came before the
// error is *Repeated, or fault.Conflict when it asks for something else by the same key;
// then nothing is written.
func (db *DB) BeginRun(ctx context.Context, r Run, how BeginOptions) (out BeginResult, err error) {
	var b pgx.Batch
	b.Queue(db.text(`
		WITH session AS (
			INSERT INTO keyway.sessions AS s (owner, session_id, agent_id, name, state, created_at, updated_at)
			VALUES (@owner, @session_id, @agent_id, left(@input, 1000), COALESCE(@state::jsonb, '{}'), @now, @now)
			ON CONFLICT (owner, session_id) DO UPDATE SET
				state = COALESCE(s.state, '{}') || COALESCE(@state::jsonb, '{}'),
				name = COALESCE(s.name, EXCLUDED.name),
				agent_id = COALESCE(s.agent_id, EXCLUDED.agent_id),
				updated_at = GREATEST(s.updated_at, EXCLUDED.updated_at)
			RETURNING state
		)
		INSERT INTO keyway.runs (run_id, owner, session_id, agent_id, agent_name, model_id, model_provider,
			status, attempt, caller, lease_until, background, streamed, input, files, metadata, session_state, created_at,
			idempotency_key, request_digest)
		SELECT @run_id, @owner, @session_id, @agent_id, @agent_name, @model_id, @model_provider,
			@status, @attempt, @caller, @lease_until, @background, @streamed, @input, @files, @metadata, state, @now,
			NULLIF(@key, ''), @digest
		FROM session
		RETURNING session_state`),
		pgx.NamedArgs{
			"run_id": r.RunID, "owner": r.Owner, "session_id": r.SessionID, "agent_id": r.AgentID, "agent_name": r.AgentName,
			"model_id": r.ModelID, "model_provider": r.ModelProvider, "status": r.Status, "background": r.Background, "streamed": r.Streamed,
			"input": r.Input, "files": r.Files, "metadata": r.Metadata, "state": r.SessionState,
			"now": r.CreatedAt, "lease_until": r.CreatedAt.Add(LeaseDuration), "attempt": r.Attempt, "caller": r.Caller,
			"key": how.Request.Key, "digest": how.Request.Digest,
		})
	if how.History > 0 {
		b.Queue(db.text(history), earlier(r.Owner, r.SessionID, r.AgentID, how.History))
	}
	answers := db.pool.SendBatch(ctx, &b)
	err = answers.QueryRow().Scan(&out.State)
	if err == nil && how.History > 0 {
		rows, _ := answers.Query() // CollectRows gives its error
		out.History, err = pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
	}
	err = cmp.Or(err, answers.Close())
	if before := db.repeats(ctx, r, how.Request, err); before != nil {
		return BeginResult{}, before
	}
	if err != nil {
		return BeginResult{}, fmt.Errorf("begin run %s: %w", r.RunID, kindOf(err))
	}
	return out, nil
}

// history reads what an agent said and heard in its last completed runs of a session.
const history = `
	SELECT messages FROM (
		SELECT seq, messages FROM keyway.runs
		WHERE owner = @owner AND session_id = @session_id AND agent_id = @agent_id AND status = 'COMPLETED'
		ORDER BY seq DESC LIMIT @limit
	) AS latest ORDER BY seq`

func earlier(owner, sessionID, agentID string, limit int) pgx.NamedArgs {
	return pgx.NamedArgs{"owner": owner, "session_id": sessionID, "agent_id": agentID, "limit": limit}
}

// ContinueRun takes a PAUSED run over; taken is false when it isn't paused (any
// more). r has the caller, the checkpoint and whether its events are kept; index is
// that of its next event.
func (db *DB) ContinueRun(ctx context.Context, r Run, now time.Time) (index int, taken bool, err error) {
	err = db.queryRow(ctx, `
		UPDATE keyway.runs SET status = 'RUNNING', lease_until = @lease_until, streamed = @streamed, caller = @caller, checkpoint = @checkpoint,
			kept_events = (SELECT COALESCE(max(first_index + count), 0) FROM keyway.run_events WHERE run_id = @run_id)
		WHERE run_id = @run_id AND status = 'PAUSED'
		RETURNING kept_events`,
		pgx.NamedArgs{"run_id": r.RunID, "streamed": r.Streamed, "caller": r.Caller, "checkpoint": r.Checkpoint, "lease_until": now.Add(LeaseDuration)}).Scan(&index)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("continue run %s: %w", r.RunID, kindOf(err))
	}
	return index, true, nil
}

var errElsewhere = fault.Public(fault.Conflict, "The run was deleted, ended or taken over elsewhere while it was in progress", nil)

// Usage is what one run adds to its session's counters.
type Usage struct {
	ModelID, ModelFamily string
	Input, Output, Total int
}

// FinishRun writes the end of a run, or that it is PAUSED, with the last of its
// events, and adds its usage to the session's totals, in one statement: all of it
// happens or nothing. A run that is gone (its session was deleted meanwhile), already
// finished or another attempt's is fault.Conflict; then nothing is written. The id
// alone finds the run: beside the owner, PostgreSQL without statistics would as soon
// read all that the owner has. The session is locked before the run, as whoever begins a
// run or deletes a session does: the other way round they would wait for each other.
func (db *DB) FinishRun(ctx context.Context, r Run, e Events, u Usage, now time.Time) error {
	n, err := db.exec(ctx, `
		WITH held AS (
			SELECT owner FROM keyway.sessions WHERE owner = @owner AND session_id = @session_id FOR NO KEY UPDATE
		), run AS (
			UPDATE keyway.runs SET
				status = @status, cancellation_stage = @cancellation_stage, content = @content,
				provider_data = @provider_data, messages = @messages, tools = @tools, requirements = @requirements, metrics = @metrics,
				lease_until = NULL, caller = NULL, checkpoint = NULL,
				finished_at = CASE WHEN @status = 'PAUSED' THEN NULL ELSE @now::timestamptz END
			WHERE run_id = @run_id AND status = 'RUNNING' AND attempt = @attempt AND EXISTS (SELECT FROM held)
			RETURNING owner, session_id
		), usage AS (
			INSERT INTO keyway.session_usage AS u
				(owner, session_id, model_id, model_family, input_tokens, output_tokens, total_tokens)
			SELECT owner, session_id, @model_id, @model_family, @input_tokens::bigint, @output_tokens::bigint, @total_tokens::bigint
			FROM run WHERE @total_tokens::bigint > 0
			ON CONFLICT (owner, session_id, model_id, model_family) DO UPDATE SET
				input_tokens = u.input_tokens + EXCLUDED.input_tokens,
				output_tokens = u.output_tokens + EXCLUDED.output_tokens,
				total_tokens = u.total_tokens + EXCLUDED.total_tokens
		), events AS (
			INSERT INTO keyway.run_events (run_id, attempt, first_index, count, frames)
			SELECT @run_id, @attempt, @first::integer, @count::integer, @frames FROM run WHERE @count::integer > 0
		)
		UPDATE keyway.sessions s SET updated_at = GREATEST(s.updated_at, @now)
		FROM run WHERE s.owner = run.owner AND s.session_id = run.session_id`,
		pgx.NamedArgs{
			"run_id": r.RunID, "owner": r.Owner, "session_id": r.SessionID, "status": r.Status, "cancellation_stage": r.CancellationStage,
			"content": r.Content, "provider_data": r.ProviderData, "messages": r.Messages, "tools": r.Tools, "requirements": r.Requirements,
			"metrics": r.Metrics, "now": now, "model_id": u.ModelID, "model_family": u.ModelFamily,
			"input_tokens": u.Input, "output_tokens": u.Output, "total_tokens": u.Total,
			"first": e.First, "count": e.Count, "frames": e.Frames, "attempt": r.Attempt,
		})
	if err != nil {
		return fmt.Errorf("finish run %s: %w", r.RunID, kindOf(err))
	}
	if n == 0 {
		return errElsewhere
	}
	return nil
}

// History reads what the agent said and heard in its last completed runs of this
// session, at most limit of them and no other row: their messages, oldest first.
func (db *DB) History(ctx context.Context, owner, sessionID, agentID string, limit int) ([]json.RawMessage, error) {
	rows, err := db.pool.Query(ctx, db.text(history), earlier(owner, sessionID, agentID, limit))
	if err != nil {
		return nil, fmt.Errorf("history of session %q: %w", sessionID, kindOf(err))
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
	if err != nil {
		return nil, fmt.Errorf("history of session %q: %w", sessionID, kindOf(err))
	}
	return out, nil
}

// RunQuery names runs. Empty members don't narrow.
type RunQuery struct {
	Owner     string // an administrator's narrowing to one user
	SessionID string
	AgentID   string
	RunID     string
	Statuses  []string
	After     *int64 // made at this second (Unix time) or later
	Before    *int64 // or earlier

	ByLength bool // the members of messages, tools and metrics in jsonb's order, as AgentOS's session routes have them
}

// Runs lists the runs that match, oldest first.
func (db *DB) Runs(ctx context.Context, v Viewer, q RunQuery) ([]Run, error) {
	where, args, ok := q.where(v)
	if !ok {
		return nil, nil
	}
	columns := runColumns
	if q.ByLength {
		columns = runColumnsByLength
	}
	runs, err := collect[Run](ctx, db, `SELECT `+columns+` FROM keyway.runs WHERE `+where+` ORDER BY seq`, args)
	if err != nil {
		return nil, fmt.Errorf("runs of session %q: %w", q.SessionID, kindOf(err))
	}
	return runs, nil
}

// Run finds one run: fault.NotFound when there is none that the viewer may see.
func (db *DB) Run(ctx context.Context, v Viewer, q RunQuery) (Run, error) {
	runs, err := db.Runs(ctx, v, q)
	if err == nil && len(runs) == 0 {
		err = fmt.Errorf("run %q: %w", q.RunID, fault.NotFound)
	}
	if err != nil {
		return Run{}, err
	}
	return runs[0], nil
}

// RequestCancel asks whoever carries the run to stop; a paused run, which nobody
// carries, ends at once. It reports whether the run is there; one that has ended
// stays as it is.
func (db *DB) RequestCancel(ctx context.Context, v Viewer, q RunQuery, now time.Time) (found bool, err error) {
	where, args, ok := q.where(v)
	if !ok {
		return false, nil
	}
	args["now"] = now
	n, err := db.exec(ctx, `
		UPDATE keyway.runs SET
			cancel_requested = cancel_requested OR finished_at IS NULL,
			cancellation_stage = CASE WHEN status = 'PAUSED' THEN 'EXECUTING' ELSE cancellation_stage END,
			finished_at = CASE WHEN status = 'PAUSED' THEN @now::timestamptz ELSE finished_at END,
			status = CASE WHEN status = 'PAUSED' THEN 'CANCELLED' ELSE status END
		WHERE `+where, args)
	if err != nil {
		return false, fmt.Errorf("cancel run %q: %w", q.RunID, kindOf(err))
	}
	return n > 0, nil
}

// where builds the condition. ok is false when no row can match.
func (q RunQuery) where(v Viewer) (sql string, args pgx.NamedArgs, ok bool) {
	owner := "owner"
	if q.RunID != "" { // the key finds it; without statistics PostgreSQL would as soon read all that the owner has
		owner = "(owner || '')"
	}
	f := v.filter(owner)
	if q.SessionID != "" {
		if !ValidID(q.SessionID, MaxSessionID) {
			return "", nil, false
		}
		f.and("session_id = @session_id", "session_id", q.SessionID)
	}
	if q.RunID != "" {
		id, err := uuid.Parse(q.RunID)
		if err != nil || id.String() != q.RunID { // not an id that was ever handed out
			return "", nil, false
		}
		f.and("run_id = @run_id", "run_id", id)
	}
	f.ifAsked(owner+" = @owner", "owner", q.Owner)
	f.ifAsked("agent_id = @agent_id", "agent_id", q.AgentID)
	if len(q.Statuses) > 0 {
		f.and("status = ANY(@statuses)", "statuses", q.Statuses)
	}
	if q.After != nil {
		f.and("floor(extract(epoch FROM created_at)) >= @after", "after", *q.After)
	}
	if q.Before != nil {
		f.and("floor(extract(epoch FROM created_at)) <= @before", "before", *q.Before)
	}
	return f.sql, f.args, true
}
