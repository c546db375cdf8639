package store

import (
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

// Run is one row of runs. The JSON fields are as the run loop encoded them; the store does not read them.
type Run struct {
	RunID uuid.UUID
	// Owner is the user that the run belongs to, or "" without one. With SessionID it is the key of the session.
	Owner     string
	SessionID string
	// Spender is the caller that the run counts for. BeginRun and ContinueRun set it to that of their Budget.
	Spender       string
	AgentID       string
	AgentName     string
	ModelID       string
	ModelProvider string
	// Status is PENDING, RUNNING, PAUSED, COMPLETED, ERROR or CANCELLED. docs/runs.md has the transitions.
	Status string
	// CancellationStage is set if and only if Status is CANCELLED. AgentOS shows it.
	CancellationStage *string
	// Background means that the run was started without a client that waits for it.
	Background bool
	// Streamed means that the events of the run are stored in run_events.
	Streamed bool
	Input    string
	Files    json.RawMessage
	// History is the conversation before the run, as the caller sent it: a JSON array. Nil without one.
	History json.RawMessage
	// Content is the answer, the text of the error, or AgentOS's text for a paused run. It is nil until then.
	Content *string
	// ReasoningContent is the text of the model's thoughts, or nil without any.
	ReasoningContent *string
	// ProviderData is what the provider sent with the last answer, such as its id.
	ProviderData json.RawMessage
	Messages     json.RawMessage
	Tools        json.RawMessage
	// Requirements are what a person must decide, or has decided.
	Requirements json.RawMessage
	// Opaque is what the provider requires back of the answers of a PAUSED run. Clients never see it.
	Opaque   json.RawMessage
	Metrics  json.RawMessage
	Metadata json.RawMessage
	// SessionState is the state of the session when the run started, after the merge. With StateInSession it is the
	// state that the session has now, and nil in a list of runs.
	SessionState   json.RawMessage
	StateInSession bool
	CreatedAt      time.Time
	// Attempt is the number of the last attempt, 0 for a run that was never claimed. See Leg.
	Attempt int
	// Losses is how many attempts ended with a crash.
	Losses int
	// Notify makes FinishRun leave a Notice about the pause or the end. It is no column.
	Notify bool `db:"-"`
	// CancelRequested means that the run is to be cancelled by the process that executes it.
	CancelRequested bool
	// Caller is the identity that was allowed to run the agent. It is NULL after the end.
	Caller json.RawMessage
	// Checkpoint is what the next attempt continues from. NULL means the beginning.
	Checkpoint json.RawMessage
}

const runColumns = `run_id, owner, session_id, spender, agent_id, agent_name, model_id, model_provider, status,
	cancellation_stage, background, streamed, input, files, history, content, reasoning_content, provider_data, messages,
	tools, requirements, opaque, metrics, metadata, ` + runState + `, state_in_session, created_at, attempt, losses,
	cancel_requested, caller, checkpoint`

// runColumnsByLength returns the JSON objects with their members in jsonb's order, which is by length of the name.
var runColumnsByLength = strings.NewReplacer(
	"messages", "messages::jsonb", "tools", "tools::jsonb", "metrics", "metrics::jsonb",
).Replace(runColumns)

// BeginOptions are further arguments of BeginRun.
type BeginOptions struct {
	// Leg is the id of the leg that starts the run. Defaults to none: the run is PENDING.
	Leg *uuid.UUID
	// Request identifies the request for idempotency. Defaults to no key.
	Request Request
	// History is how many earlier runs to read, as DB.History does. Defaults to 0: none.
	History int
	// MaxState is the size of the largest state that the session may have after the merge. Defaults to 0: no limit.
	MaxState int
	// Budget is whose use the run counts for, and what they may use. Defaults to no limit.
	Budget Budget
	// Ready is called when everything is known but whether the run is stored: the transaction is about to be committed,
	// which waits for the disk. It is called again if the statement is repeated, and must return soon. Defaults to
	// nothing. A run whose begin fails has no effect, so what Ready starts must be undone then.
	Ready func(BeginResult)
}

// BeginResult is what BeginRun has read.
type BeginResult struct {
	State          json.RawMessage   // the session's state after the merge
	StateInSession bool              // the run refers to the state instead of keeping a copy
	History        []json.RawMessage // see DB.History
}

// BeginRun stores a new run, and its session if it does not exist, in one statement. r.SessionState, if any, is merged
// into the session's state. The session's state and history are read in the same round trip: on Lambda, round trips
// to the database are a large part of the time before the model is called.
//
// An existing session keeps its agent and its name. A session without a name gets the first 1,000 characters of the
// message. The states are merged as in AgentOS, by the function merge_objects of the schema: objects member by
// member at every level, and any other value of the new state replaces the old one.
//
// The row has a lease from the start, whether it is RUNNING or PENDING. A pending run that was never enqueued, because
// its process crashed in between, is therefore found when the lease expires.
//
// For a request with an idempotency key that is in use, the error is *Repeated, or fault.Conflict if the earlier
// request asked for something else. Then nothing is written. No violation of the unique index is raised, because
// PostgreSQL would write the owner and the key into its log.
//
// If a limit of the budget is reached, the error is fault.LimitReached and nothing is stored. A repeated request is
// not refused. The counts are those at this moment, also if other processes begin and end runs at the same time.
func (db *DB) BeginRun(ctx context.Context, r Run, o BeginOptions) (out BeginResult, err error) {
	c := check{scopes: o.Budget.scopes(r.AgentID, useRun), runs: 1}
	if o.Leg == nil {
		c.scopes = o.Budget.scopes(r.AgentID, useWaiting)
	}
	with, allowed, counted, day := c.sql("added")
	refusal := ""
	if with != "" {
		refusal = ` UNION ALL SELECT NULL, false, uses FROM refused WHERE NOT EXISTS (SELECT FROM used)`
	}
	if !o.Budget.counts() {
		day = "NULL::date"
	}
	args := c.args(pgx.NamedArgs{
		"run_id": r.RunID, "owner": r.Owner, "session_id": r.SessionID, "agent_id": r.AgentID,
		"agent_name": r.AgentName, "model_id": r.ModelID, "model_provider": r.ModelProvider, "status": r.Status,
		"background": r.Background, "streamed": r.Streamed,
		"input": r.Input, "files": r.Files, "history": r.History, "metadata": r.Metadata, "state": r.SessionState,
		"now": r.CreatedAt, "attempt": r.Attempt, "leg": o.Leg, "caller": r.Caller, "spender": o.Budget.Spender,
		"key": o.Request.Key, "digest": o.Request.Digest, "max_state": o.MaxState,
	})
	var b pgx.Batch
	// If the run is stored already, the answer of this statement was lost. Then it only reads the state again.
	b.Queue(db.text(`
		WITH stored AS (
			SELECT `+runState+`, state_in_session FROM keyway.runs r WHERE run_id = @run_id
		), used AS (
			SELECT FROM keyway.runs
			WHERE owner = @owner AND agent_id = @agent_id AND idempotency_key = NULLIF(@key, '') AND run_id <> @run_id
		), `+with+`session AS (
			INSERT INTO keyway.sessions AS s (owner, session_id, agent_id, name, state, created_at, updated_at)
			SELECT @owner, @session_id, @agent_id, left(@input, 1000), COALESCE(@state::jsonb, '{}'), @now, @now
			WHERE NOT EXISTS (SELECT FROM stored) AND NOT EXISTS (SELECT FROM used)
				AND (@state::jsonb IS NULL OR `+fits("@state::jsonb", "'{}'")+`)`+allowed+`
			ON CONFLICT (owner, session_id) DO UPDATE SET
				state = `+mergedState+`,
				name = COALESCE(s.name, EXCLUDED.name),
				agent_id = COALESCE(s.agent_id, EXCLUDED.agent_id),
				updated_at = GREATEST(s.updated_at, EXCLUDED.updated_at)
			WHERE @state::jsonb IS NULL OR `+fits(mergedState, "s.state")+`
			RETURNING state, octet_length(state::text) > `+maxCopiedState+` AS is_large
		), added AS (
			INSERT INTO keyway.runs (run_id, owner, session_id, agent_id, agent_name, model_id, model_provider,
				status, attempt, leg, caller, lease_until, background, streamed, input, files, history, metadata, session_state,
				state_in_session, created_at, idempotency_key, request_digest, spender, spend_day)
			SELECT @run_id, @owner, @session_id, @agent_id, @agent_name, @model_id, @model_provider,
				@status, @attempt, @leg, @caller, `+newLease+`, @background, @streamed, @input, @files, @history, @metadata,
				CASE WHEN NOT is_large THEN state END, is_large, @now, NULLIF(@key, ''), @digest, @spender, `+day+`
			FROM session
			ON CONFLICT DO NOTHING
			RETURNING run_id
		)`+counted+`
		SELECT session.state, is_large, NULL::json FROM added, session
		UNION ALL SELECT session_state, state_in_session, NULL FROM stored`+refusal+`
		UNION ALL SELECT NULL, false, NULL WHERE `+lostRace+` = 0`), args)
	if o.History > 0 {
		b.Queue(db.text(historyQuery), historyArgs(r.Owner, r.SessionID, r.AgentID, o.History))
	}
	var refused json.RawMessage
	on := db.executor
	if o.Ready != nil {
		on = on.withReady(func() {
			if refused == nil {
				o.Ready(out)
			}
		})
	}
	err = on.checked(ctx, c, r.Owner, r.SessionID, &b, func(answers pgx.BatchResults) error {
		out, refused = BeginResult{}, nil
		err := answers.QueryRow().Scan(&out.State, &out.StateInSession, &refused)
		if err == nil && o.History > 0 {
			rows, _ := answers.Query() // CollectRows returns its error.
			out.History, err = pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
		}
		return err
	})
	if isLostRace(err) { // The next statement sees the row of the other one.
		return db.BeginRun(ctx, r, o)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		if o.Request.Key != "" {
			if err := db.repeated(ctx, r, o.Request); !errors.Is(err, errChanged) {
				return BeginResult{}, err
			}
		}
		if err := db.stateTooLarge(ctx, r, o.MaxState); err != nil {
			return BeginResult{}, err
		}
		return BeginResult{}, errChanged
	}
	if err != nil {
		return BeginResult{}, fmt.Errorf("begin run %s: %w", r.RunID, kindOf(err))
	}
	if refused != nil {
		return BeginResult{}, errRefused(refused)
	}
	return out, nil
}

// WithdrawRun deletes a run that BeginRun may have stored although it returned an error: the caller got that error, so
// the run must not be executed later. It deletes no run that has been claimed since.
func (db *DB) WithdrawRun(ctx context.Context, id uuid.UUID, leg *uuid.UUID) error {
	_, err := db.exec(ctx, `DELETE FROM keyway.runs
		WHERE run_id = @run_id AND leg IS NOT DISTINCT FROM @leg AND status IN ('PENDING', 'RUNNING')`,
		pgx.NamedArgs{"run_id": id, "leg": leg})
	if err != nil {
		return fmt.Errorf("withdraw run %s: %w", id, kindOf(err))
	}
	return nil
}

// historyQuery reads the messages of an agent's last completed runs in a session. The index runs_history has exactly
// these rows, so the query reads no others, however long the session is.
const historyQuery = `
	SELECT messages FROM (
		SELECT seq, messages FROM keyway.runs
		WHERE owner = @owner AND session_id = @session_id AND agent_id = @agent_id AND status = 'COMPLETED'
		ORDER BY seq DESC LIMIT @limit
	) AS latest ORDER BY seq`

// historyArgs are the named arguments of historyQuery.
func historyArgs(owner, sessionID, agentID string, limit int) pgx.NamedArgs {
	return pgx.NamedArgs{"owner": owner, "session_id": sessionID, "agent_id": agentID, "limit": limit}
}

// ContinueRun makes a PAUSED run RUNNING, with a leg of the same attempt. claimed is true for at most one leg, and
// false if the run is not paused or is to be cancelled. Of r it stores Caller, Checkpoint and Streamed. index is the
// index of the run's next event. For a request with an idempotency key that has continued the run before, the error is
// *Repeated, or fault.Conflict if the earlier request asked for something else.
//
// All events so far belong to the state that the pause stored, so the next attempt keeps them: kept_events becomes the
// index after the last one.
//
// From then on, the run counts for the spender of the budget. If a limit of runs in progress, tokens or dollars is
// reached, the error is fault.LimitReached and the run stays PAUSED.
func (db *DB) ContinueRun(
	ctx context.Context, r Run, leg uuid.UUID, q Request, budget Budget,
) (index int, claimed bool, err error) {
	c := check{scopes: budget.scopes(r.AgentID, useContinue)}
	with, allowed, counted, day := c.sql("run")
	refusal := ""
	if with != "" {
		refusal = ` UNION ALL SELECT NULL, uses FROM refused WHERE NOT EXISTS (SELECT FROM run)
			AND EXISTS (SELECT FROM keyway.runs WHERE run_id = @run_id AND status = 'PAUSED')`
	}
	if !budget.counts() {
		day = "NULL::date"
	}
	args := c.args(pgx.NamedArgs{
		"run_id": r.RunID, "leg": leg, "streamed": r.Streamed, "caller": r.Caller, "checkpoint": r.Checkpoint,
		"key": q.Key, "digest": q.Digest, "spender": budget.Spender,
	})
	var b pgx.Batch
	// The second condition is true if this statement continued the run before, and its answer was lost.
	b.Queue(db.text(`
		WITH `+with+`run AS (
			UPDATE keyway.runs SET status = 'RUNNING', leg = @leg, lease_until = `+newLease+`,
				spender = @spender, spend_day = `+day+`, streamed = @streamed, caller = @caller, checkpoint = @checkpoint,
					kept_events = `+nextIndex+`
			WHERE run_id = @run_id AND (
				status = 'PAUSED' AND NOT cancel_requested
					AND NOT EXISTS (SELECT FROM keyway.continuations WHERE run_id = @run_id AND key = @key)`+allowed+`
				OR status = 'RUNNING' AND leg = @leg)
			RETURNING kept_events
		), request AS (
			INSERT INTO keyway.continuations (run_id, key, digest, first_index)
			SELECT @run_id, @key, @digest, kept_events FROM run WHERE @key <> ''
			ON CONFLICT DO NOTHING
		)`+counted+`
		SELECT kept_events, NULL::json FROM run`+refusal), args)
	var refused json.RawMessage
	var kept *int
	err = db.checked(ctx, c, r.Owner, r.SessionID, &b, func(answers pgx.BatchResults) error {
		kept, refused = nil, nil
		return answers.QueryRow().Scan(&kept, &refused)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, db.continuedBefore(ctx, r, q)
	}
	if err != nil {
		return 0, false, fmt.Errorf("continue run %s: %w", r.RunID, kindOf(err))
	}
	if refused != nil {
		if err := db.continuedBefore(ctx, r, q); err != nil {
			return 0, false, err
		}
		return 0, false, errRefused(refused)
	}
	return *kept, true, nil
}

// WithdrawContinuation makes a run PAUSED again that ContinueRun may have continued although it returned an error: the
// caller got that error, and may decide again with the same idempotency key. If the run is to be cancelled meanwhile,
// it becomes PENDING, as in RequestCancel. It changes no run that another leg has continued or claimed since.
func (db *DB) WithdrawContinuation(ctx context.Context, id, leg uuid.UUID, key string) error {
	_, err := db.exec(ctx, `
		WITH run AS (
			UPDATE keyway.runs SET
				status = CASE WHEN cancel_requested THEN 'PENDING' ELSE 'PAUSED' END,
				lease_until = CASE WHEN cancel_requested THEN now() END,
				leg = NULL, caller = NULL, checkpoint = NULL
			WHERE run_id = @run_id AND leg = @leg AND status = 'RUNNING'
			RETURNING run_id
		)
		DELETE FROM keyway.continuations c USING run WHERE c.run_id = run.run_id AND c.key = @key`,
		pgx.NamedArgs{"run_id": id, "leg": leg, "key": key})
	if err != nil {
		return fmt.Errorf("withdraw the continuation of run %s: %w", id, kindOf(err))
	}
	return nil
}

// nextIndex is the index after the last stored event of a run, or after those that it keeps.
const nextIndex = `GREATEST(kept_events,
	(SELECT max(first_index + count) FROM keyway.run_events WHERE run_id = runs.run_id))`

// errElsewhere is the error of a write that names an attempt which does not execute the run any more.
var errElsewhere = fault.Public(fault.Conflict,
	"The run was deleted, ended or claimed by another server while it was in progress", nil)

// Usage is what one run adds to its session's counters. A run without tokens adds no row.
type Usage struct {
	ModelID, ModelFamily string
	Input, Output, Total int
	// MicroUSD is the cost in millionths of a US dollar, 0 without a price.
	MicroUSD int64
}

// FinishRun stores the end of a run, or that it is PAUSED, with its last events, and adds its usage to the session's
// totals. It is one statement, so all of it happens or nothing. Totals are added in SQL, so that runs of one session
// that end at the same time do not overwrite each other's.
//
// A pause differs from an end in three ways: the run gets no time of its end, the caller and the checkpoint are
// removed but the messages so far are stored in their own columns, and a later ContinueRun can start it again.
//
// cancel means that nothing was stored because the run is to be cancelled: then its only end is CANCELLED. If the run
// was deleted with its session, has ended otherwise or belongs to another leg, the error is fault.Conflict and nothing
// is written.
//
// The run is found by its id alone. With the owner in the condition, PostgreSQL without statistics might use an index
// on the owner and read all runs of that owner.
//
// Every statement that needs a session and its run locks the session first: this one, BeginRun and DeleteSessions.
// If this one locked the run first, it and DeleteSessions could wait for each other, a deadlock.
func (db *DB) FinishRun(ctx context.Context, l Leg, r Run, events []Events, u Usage, now time.Time) (
	cancel bool, err error,
) {
	// The last part reads the row as it was before the statement. If this leg has ended the run already, the statement
	// was repeated because its answer was lost.
	args := l.args(addEventArgs(pgx.NamedArgs{
		"owner": r.Owner, "session_id": r.SessionID, "status": r.Status,
		"cancellation_stage": r.CancellationStage, "content": r.Content, "provider_data": r.ProviderData,
		"reasoning_content": r.ReasoningContent, "opaque": r.Opaque,
		"messages": r.Messages, "tools": r.Tools, "requirements": r.Requirements, "metrics": r.Metrics,
		"now": now, "model_id": u.ModelID, "model_family": u.ModelFamily,
		"input_tokens": u.Input, "output_tokens": u.Output, "total_tokens": u.Total, "micro_usd": u.MicroUSD,
	}, events))
	args["next"] = 0
	if n := len(events); n > 0 {
		args["next"] = events[n-1].First + events[n-1].Count
	}
	statement := finishRun
	if r.Notify {
		statement = finishRunWithNotice
	}
	var outcome string
	err = db.queryRow(ctx, statement, args).Scan(&outcome)
	switch {
	case err != nil:
		return false, fmt.Errorf("finish run %s: %w", l.RunID, kindOf(err))
	case outcome == "changed": // The row was changed while the statement waited for it.
		return db.FinishRun(ctx, l, r, events, u, now)
	case outcome == "elsewhere":
		return false, errElsewhere
	}
	return outcome == "cancel", nil
}

// The texts of FinishRun have 3 KB, and are not made for each run.
var finishRun, finishRunWithNotice = finishing(""), finishing(leaveNotice)

// finishing returns the text of FinishRun. notice is a further part, or "".
func finishing(notice string) string {
	return `
	WITH session AS (
		SELECT owner FROM keyway.sessions
		WHERE owner = @owner AND session_id = @session_id FOR NO KEY UPDATE
	), run AS (
		UPDATE keyway.runs SET
			status = @status, cancellation_stage = @cancellation_stage, content = @content,
			reasoning_content = @reasoning_content, provider_data = @provider_data, messages = @messages,
			tools = @tools, requirements = @requirements, opaque = @opaque, metrics = @metrics,
			lease_until = NULL, caller = NULL, checkpoint = NULL,
			kept_events = GREATEST(kept_events, @next),
			finished_at = CASE WHEN @status = 'PAUSED' THEN NULL ELSE @now::timestamptz END
		WHERE ` + held + ` AND (NOT cancel_requested OR @status = 'CANCELLED') AND EXISTS (SELECT FROM session)
		RETURNING owner, session_id, spender, agent_id, spend_day
	), usage AS (
		INSERT INTO keyway.session_usage AS u
			(owner, session_id, model_id, model_family, input_tokens, output_tokens, total_tokens)
		SELECT owner, session_id, @model_id, @model_family,
			@input_tokens::bigint, @output_tokens::bigint, @total_tokens::bigint
		FROM run WHERE @total_tokens::bigint > 0
		ON CONFLICT (owner, session_id, model_id, model_family) DO UPDATE SET
			input_tokens = u.input_tokens + EXCLUDED.input_tokens,
			output_tokens = u.output_tokens + EXCLUDED.output_tokens,
			total_tokens = u.total_tokens + EXCLUDED.total_tokens
	), events AS (` + insertEvents + `
	), spent AS (` + settle + `
	), steps AS (
		DELETE FROM keyway.run_steps WHERE run_id = @run_id AND EXISTS (SELECT FROM run)
	), touched AS (
		UPDATE keyway.sessions s SET updated_at = GREATEST(s.updated_at, @now)
		FROM run WHERE s.owner = run.owner AND s.session_id = run.session_id
	)` + notice + `
	SELECT COALESCE((SELECT 'stored' FROM run), (
		SELECT CASE WHEN status = @status THEN 'stored'
			WHEN status <> 'RUNNING' THEN 'elsewhere' WHEN cancel_requested THEN 'cancel' ELSE 'changed' END
		FROM keyway.runs WHERE run_id = @run_id AND attempt = @attempt AND leg = @leg
	), 'elsewhere')`
}

// History returns the messages of the agent's last completed runs in this session, oldest run first, one JSON array a
// run. It reads at most limit runs and no other row.
func (db *DB) History(ctx context.Context, owner, sessionID, agentID string, limit int) ([]json.RawMessage, error) {
	out, err := list(ctx, db, pgx.RowTo[json.RawMessage], historyQuery, historyArgs(owner, sessionID, agentID, limit))
	if err != nil {
		return nil, fmt.Errorf("history of a session: %w", kindOf(err))
	}
	return out, nil
}

// RunQuery selects runs. Fields with their zero value do not restrict the selection.
type RunQuery struct {
	// Owner restricts an administrator's view to one user.
	Owner     string
	SessionID string
	AgentID   string
	// RunID is an id in canonical form. Any other text matches no run.
	RunID string
	// Statuses are alternatives: a run matches if it has one of them.
	Statuses []string
	// After and Before are inclusive, in seconds of Unix time.
	After, Before *int64

	// Unstreamed leaves out the runs whose first client is still reading their events.
	Unstreamed bool
	// Limit is the size of a page, and Page its number from 1. Defaults to all runs.
	Limit, Page int

	// ByLength returns the JSON members of messages, tools and metrics in jsonb's order, as AgentOS's session routes do.
	ByLength bool
}

// Runs returns the runs that match and that the viewer can see, oldest first.
func (db *DB) Runs(ctx context.Context, v Viewer, q RunQuery) ([]Run, error) {
	where, args, ok := q.where(v)
	if !ok {
		return nil, nil
	}
	columns := runColumns
	if q.ByLength {
		columns = runColumnsByLength
	}
	if q.RunID == "" { // A list with many runs would have the state of the session as often.
		columns = strings.Replace(columns, runState, "session_state", 1)
	}
	sql := `SELECT ` + columns + ` FROM keyway.runs r WHERE ` + where + ` ORDER BY seq` + pageOf(q.Limit, q.Page, args)
	runs, err := collect[Run](ctx, db.bulk, sql, args)
	if err != nil {
		return nil, fmt.Errorf("runs of a session: %w", kindOf(err))
	}
	return runs, nil
}

// Run returns the first run that matches. It is fault.NotFound if there is none that the viewer can see.
func (db *DB) Run(ctx context.Context, v Viewer, q RunQuery) (Run, error) {
	runs, err := db.Runs(ctx, v, q)
	if err == nil && len(runs) == 0 {
		err = fmt.Errorf("run: %w", fault.NotFound)
	}
	if err != nil {
		return Run{}, err
	}
	return runs[0], nil
}

// RequestCancel does not wait for the end of the run, because a process may need a second to notice. It marks the run
// as to be cancelled, and from then on its only end is CANCELLED. The process that executes it reads the mark with its
// next Pulse. A pending run ends when it is claimed. A paused run, which no process executes, becomes pending, so that
// the process that claims it stores its last event. RequestCancel reports whether the viewer has such a run. One that
// has ended stays as it is.
func (db *DB) RequestCancel(ctx context.Context, v Viewer, id uuid.UUID) (found bool, err error) {
	where, args, _ := RunQuery{RunID: id.String()}.where(v)
	n, err := db.exec(ctx, markCancelled+` WHERE `+where, args)
	if err != nil {
		return false, fmt.Errorf("cancel run %s: %w", id, kindOf(err))
	}
	return n > 0, nil
}

// DeleteRun deletes a run that has ended, with its events. Its session stays, and so does what the run has used. It is
// fault.NotFound if there is no run that the viewer can see, and fault.Conflict if it has not ended.
func (db *DB) DeleteRun(ctx context.Context, v Viewer, id uuid.UUID) error {
	where, args, _ := RunQuery{RunID: id.String()}.where(v)
	var found, gone int
	err := db.queryRow(ctx, `
		WITH found AS (
			SELECT run_id, finished_at FROM keyway.runs WHERE `+where+` FOR UPDATE
		), gone AS (
			DELETE FROM keyway.runs r USING found f WHERE r.run_id = f.run_id AND f.finished_at IS NOT NULL RETURNING 1
		)
		SELECT (SELECT count(*) FROM found), (SELECT count(*) FROM gone)`, args).Scan(&found, &gone)
	switch {
	case err != nil:
		return fmt.Errorf("delete run %s: %w", id, kindOf(err))
	case found == 0:
		return fmt.Errorf("run: %w", fault.NotFound)
	case gone == 0:
		return fault.Public(fault.Conflict, "The run has not ended; cancel it first", nil)
	}
	return nil
}

// markCancelled marks runs as to be cancelled; see RequestCancel.
const markCancelled = `
	UPDATE keyway.runs SET
		cancel_requested = cancel_requested OR finished_at IS NULL,
		lease_until = CASE WHEN status = 'PAUSED' THEN now() ELSE lease_until END,
		kept_events = CASE WHEN status = 'PAUSED' THEN ` + nextIndex + ` ELSE kept_events END,
		status = CASE WHEN status = 'PAUSED' THEN 'PENDING' ELSE status END`

// where returns the condition of a query. ok is false if no row can match.
func (q RunQuery) where(v Viewer) (sql string, args pgx.NamedArgs, ok bool) {
	owner := "owner"
	if q.RunID != "" {
		// The primary key finds the run. An expression instead of the column keeps PostgreSQL from using an index on the
		// owner, and reading all runs of the owner, as it might without statistics.
		owner = "(owner || '')"
	}
	f := v.filterSessions(owner, "session_id")
	if q.SessionID != "" {
		if !ValidID(q.SessionID, MaxSessionID) {
			return "", nil, false
		}
		f.and("session_id = @session_id", "session_id", q.SessionID)
	}
	if q.RunID != "" {
		id, err := uuid.Parse(q.RunID)
		if err != nil || id.String() != q.RunID { // Ids are issued in canonical form only.
			return "", nil, false
		}
		f.and("run_id = @run_id", "run_id", id)
	}
	f.ifAsked(owner+" = @owner", "owner", q.Owner)
	f.ifAsked("agent_id = @agent_id", "agent_id", q.AgentID)
	if len(q.Statuses) > 0 {
		f.and("status = ANY(@statuses)", "statuses", q.Statuses)
	}
	if q.Unstreamed {
		// Another process continues a run that has a second attempt, so the stream of its first client has ended.
		f.sql += " AND NOT (streamed AND status = 'RUNNING' AND attempt <= 1)"
	}
	if q.After != nil {
		f.and("floor(extract(epoch FROM created_at)) >= @after", "after", *q.After)
	}
	if q.Before != nil {
		f.and("floor(extract(epoch FROM created_at)) <= @before", "before", *q.Before)
	}
	return f.sql, f.args, true
}
