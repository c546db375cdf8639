package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Session is one row of sessions, with the usage of its runs.
//
// Owner and SessionID together are the key. Two owners can have sessions with the same id, because a caller chooses
// the id: with a key of the id alone, a caller could occupy an id, or find out which ids others use.
type Session struct {
	Owner     string
	SessionID string
	// SessionType is "agent", "team" or "workflow". Keyway runs only agents; the others can be created through the API.
	SessionType string
	// AgentID is the agent of the first run, or the one that the session was created for.
	AgentID    *string
	TeamID     *string
	WorkflowID *string
	// Name is the name that was given, or else the message of the first run. It is nil without either.
	Name     *string
	State    json.RawMessage
	Metadata json.RawMessage
	Summary  json.RawMessage
	// CreatedAt and UpdatedAt are times of the processes. UpdatedAt never decreases, even if their clocks differ.
	CreatedAt time.Time
	UpdatedAt time.Time
	// Usage is read with the session and never written through it; FinishRun adds to it.
	Usage Usages
	// Omitted names the members that a list has left out: state, metadata or summary. It is empty for a single session.
	Omitted []string
}

// SessionUsage counts the tokens of one model in one session.
type SessionUsage struct {
	ModelID, Family      string
	Input, Output, Total int
}

// Usages are the usages of all models that were called in a session.
type Usages []SessionUsage

// readUsages reads the column "usage" of sessionColumns: a line for each model, with tabs between the values. The
// format is not JSON, because decoding JSON took as long as reading everything else of a list. It is "" if no model
// was called.
func readUsages(text string) (u Usages, err error) {
	for line := range strings.Lines(text) {
		// The names come first, then the three counters.
		var f [5]string
		rest, more := strings.TrimSuffix(line, "\n"), true
		for i := range f {
			if !more {
				return nil, errUsage
			}
			f[i], rest, more = strings.Cut(rest, "\t")
		}
		if more {
			return nil, errUsage
		}
		one := SessionUsage{ModelID: f[0], Family: f[1]}
		counters := f[2:]
		for i, n := range [...]*int{&one.Input, &one.Output, &one.Total} {
			if *n, err = strconv.Atoi(counters[i]); err != nil {
				return nil, fmt.Errorf("usage of a session: %w", err)
			}
		}
		u = append(u, one)
	}
	return u, nil
}

var errUsage = errors.New("the usage of a session can't be read")

// readSessions returns a function that reads rows of sessionColumns or listedColumns, whose order it has. To find the
// fields by the names of the columns, and to read each nullable column and each JSON through reflection, took most of
// the time of a list. One Session serves all rows, because what pgx reads into is allocated.
func readSessions() pgx.RowToFunc[Session] {
	var s Session
	return func(row pgx.CollectableRow) (Session, error) {
		s = Session{}
		var null struct{ agent, team, workflow, name, omitted, usage pgtype.Text } // together, for one allocation
		err := row.Scan(&s.Owner, &s.SessionID, &s.SessionType, &null.agent, &null.team, &null.workflow, &null.name,
			(*[]byte)(&s.State), (*[]byte)(&s.Metadata), (*[]byte)(&s.Summary), &s.CreatedAt, &s.UpdatedAt,
			&null.omitted, &null.usage)
		if err != nil {
			return s, err
		}
		s.AgentID, s.TeamID, s.WorkflowID = textOf(&null.agent), textOf(&null.team), textOf(&null.workflow)
		s.Name = textOf(&null.name)
		if null.omitted.String != "" {
			s.Omitted = strings.Split(null.omitted.String, " ")
		}
		s.Usage, err = readUsages(null.usage.String)
		return s, err
	}
}

// textOf returns nil for NULL.
func textOf(t *pgtype.Text) *string {
	if !t.Valid {
		return nil
	}
	return &t.String
}

// sessionColumns reads the usage with a subquery rather than a join, so that it is collected for the rows of a page
// only, not for all rows that are counted. Tabs and line breaks in names become spaces, because they separate values.
const sessionColumns = `s.owner, s.session_id, s.session_type, s.agent_id, s.team_id, s.workflow_id, s.name, s.state,
	s.metadata, s.summary, s.created_at, s.updated_at, NULL::text AS omitted,
	(SELECT string_agg(concat_ws(E'\t', translate(u.model_id, E'\t\n', '  '), translate(u.model_family, E'\t\n', '  '),
		u.input_tokens, u.output_tokens, u.total_tokens), E'\n' ORDER BY u.model_id, u.model_family)
	 FROM keyway.session_usage u WHERE u.owner = s.owner AND u.session_id = s.session_id) AS usage`

// maxListed is the size in bytes of the largest state, metadata or summary that a list of sessions has. Twenty
// sessions with three of them each, and a name, are about 1 MB, so that a page fits into an answer of Lambda.
const maxListed = "16384"

// listedColumns is sessionColumns for a list, which leaves out large members. A name from before there was a bound is
// shortened.
var listedColumns = strings.NewReplacer(
	"s.name", "CASE WHEN octet_length(s.name) <= 4096 THEN s.name ELSE left(s.name, 1000) || '…' END AS name",
	"s.state", listed("state"), "s.metadata", listed("metadata"), "s.summary", listed("summary"),
	"NULL::text AS omitted", "concat_ws(' ', "+omitted("state")+", "+omitted("metadata")+", "+omitted("summary")+
		") AS omitted",
).Replace(sessionColumns)

func listed(column string) string {
	return "CASE WHEN octet_length(s." + column + "::text) <= " + maxListed + " THEN s." + column + " END AS " + column
}

func omitted(column string) string {
	return "CASE WHEN octet_length(s." + column + "::text) > " + maxListed + " THEN '" + column + "' END"
}

// SessionQuery selects and orders sessions. Fields with their zero value do not restrict the selection.
type SessionQuery struct {
	// Owner restricts an administrator's view to one user.
	Owner string
	Type  string
	// Component is the id of the session's agent, team or workflow.
	Component string
	// NameHas is a part of the name. Upper and lower case are the same, and there are no wildcards.
	NameHas string
	// SortBy is "created_at", "updated_at" or "session_id". Defaults to "created_at", also for any other value.
	SortBy string
	// Ascending reverses the order, which is descending by default. Equal values are sorted by session id.
	Ascending bool
	// Limit is the size of a page, and Page its number. Both must be at least 1. Required.
	Limit, Page int
}

// Sessions returns one page of the sessions that match, and the number of all that match.
func (db *DB) Sessions(ctx context.Context, v Viewer, q SessionQuery) (page []Session, total int, err error) {
	where, args := q.where(v)
	order, way := "s.created_at", direction(q.Ascending)
	switch q.SortBy {
	case "session_id":
		order = "s.session_id"
	case "updated_at": // The index has the minute only, because an index on the time would grow with each run.
		order = "s.updated_minute" + way + ", s.updated_at"
	}
	page, total, err = paged(ctx, db, readSessions(), listing{
		on: db.pages, columns: listedColumns, from: "keyway.sessions s WHERE " + where,
		order: order + way + ", s.session_id", limit: q.Limit, page: q.Page,
	}, args)
	if err != nil {
		return nil, 0, fmt.Errorf("sessions: %w", kindOf(err))
	}
	return page, total, nil
}

// where returns the condition of a query. NameHas uses strpos rather than LIKE, so that % and _ have no meaning.
func (q SessionQuery) where(v Viewer) (string, pgx.NamedArgs) {
	f := v.filterSessions("s.owner", "s.session_id")
	f.ifAsked("s.owner = @owner", "owner", q.Owner)
	f.ifAsked("s.session_type = @type", "type", q.Type)
	f.ifAsked("(s.agent_id = @component OR s.team_id = @component OR s.workflow_id = @component)",
		"component", q.Component)
	f.ifAsked("strpos(lower(s.name), lower(@name_has)) > 0", "name_has", q.NameHas)
	return f.sql, f.args
}

// Session returns one session. owner restricts an administrator's view to one user; without it, an id that several
// users have is fault.Conflict. A missing session, and one that the viewer cannot see, is fault.NotFound.
func (db *DB) Session(ctx context.Context, v Viewer, sessionID, owner string) (Session, error) {
	if !ValidID(sessionID, MaxSessionID) {
		return Session{}, fmt.Errorf("session: %w", fault.NotFound)
	}
	where, args := SessionQuery{Owner: owner}.where(v)
	args["session_id"] = sessionID
	// Two rows are enough to know that the id is not unique for this viewer.
	found, err := list(ctx, db, readSessions(), `SELECT `+sessionColumns+` FROM keyway.sessions s
		WHERE s.session_id = @session_id AND `+where+` LIMIT 2`, args)
	switch {
	case err != nil:
		return Session{}, fmt.Errorf("session: %w", kindOf(err))
	case len(found) == 0:
		return Session{}, fmt.Errorf("session: %w", fault.NotFound)
	case len(found) > 1:
		return Session{}, severalOwners(sessionID)
	}
	return found[0], nil
}

// DeleteSessions deletes sessions with their runs and events, all of them or none. Missing sessions, and those that
// the viewer cannot see, are ignored without an error, as in AgentOS. owner restricts an administrator's view to one
// user; without it, an id that several users have is fault.Conflict. owners are those of the deleted sessions; they
// are unknown if the statement was repeated because its answer was lost.
func (db *DB) DeleteSessions(ctx context.Context, v Viewer, ids []string, owner string) (owners []string, err error) {
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !ValidID(id, MaxSessionID) })
	where, args := SessionQuery{Owner: owner}.where(v)
	args["ids"] = ids
	// The window function counts the owners of each id in the same statement, so no session can be added in between.
	// The foreign keys delete the runs, events and usage. They would lock the runs in any order, and another statement
	// that locks several runs could wait for this one and this one for it. Therefore the runs are locked first, in the
	// order of their ids, after their session. The count makes PostgreSQL lock all of them before it deletes the first
	// session.
	var twice *string
	err = db.bulk.queryRow(ctx, `
		WITH found AS (
			SELECT s.owner, s.session_id, count(*) OVER (PARTITION BY s.session_id) AS owners
			FROM keyway.sessions s WHERE s.session_id = ANY(@ids) AND `+where+`
		), held AS (
			SELECT s.owner, s.session_id FROM keyway.sessions s JOIN found f USING (owner, session_id)
			WHERE NOT EXISTS (SELECT FROM found WHERE owners > 1)
			ORDER BY s.owner, s.session_id FOR UPDATE OF s
		), runs AS (
			SELECT r.run_id FROM keyway.runs r JOIN held h USING (owner, session_id) ORDER BY r.run_id FOR UPDATE OF r
		), gone AS (
			DELETE FROM keyway.sessions s USING held h
			WHERE s.owner = h.owner AND s.session_id = h.session_id AND (SELECT count(*) FROM runs) >= 0
		)
		SELECT min(session_id) FILTER (WHERE owners > 1), COALESCE(array_agg(DISTINCT owner), '{}')
		FROM found`, args).Scan(&twice, &owners)
	if err != nil {
		return nil, fmt.Errorf("delete sessions: %w", kindOf(err))
	}
	if twice != nil {
		return owners, severalOwners(*twice)
	}
	return owners, nil
}

// severalOwners is the error for an id that several users have, where an administrator has not chosen one of them.
func severalOwners(sessionID string) error {
	text := fmt.Sprintf("Several users have a session '%s'; choose one with user_id", sessionID)
	return fault.Public(fault.Conflict, text, nil)
}

// CreateSession adds a session. It is fault.Conflict if the owner already has a session of that id.
func (db *DB) CreateSession(ctx context.Context, s Session) error {
	args := pgx.NamedArgs{
		"owner": s.Owner, "session_id": s.SessionID, "session_type": s.SessionType, "agent_id": s.AgentID,
		"team_id": s.TeamID, "workflow_id": s.WorkflowID, "name": s.Name, "state": s.State, "metadata": s.Metadata,
		"created_at": s.CreatedAt, "repeated": false,
	}
	// The answer of the first attempt may be lost. Then the next one finds the session that the first one has stored, and
	// recognizes it by the time. Only a repetition looks for it: two callers may send the same time.
	var created bool
	err := db.carrying(args).do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, db.text(`
			WITH created AS (
				INSERT INTO keyway.sessions (owner, session_id, session_type, agent_id, team_id, workflow_id,
					name, state, metadata, created_at, updated_at)
				VALUES (@owner, @session_id, @session_type, @agent_id, @team_id, @workflow_id,
					@name, @state, @metadata, @created_at, @created_at)
				ON CONFLICT DO NOTHING
				RETURNING true
			)
			SELECT EXISTS (SELECT FROM created) OR @repeated AND EXISTS (
				SELECT FROM keyway.sessions
				WHERE owner = @owner AND session_id = @session_id AND created_at = @created_at)`), args).Scan(&created)
		args["repeated"] = true
		return err
	})
	if err != nil {
		return fmt.Errorf("create session: %w", kindOf(err))
	}
	if !created {
		return fmt.Errorf("session: %w", fault.Conflict)
	}
	return nil
}

// SessionChange is a change of a session. The values replace the old ones as a whole; unlike the state of a run, they
// are not merged. Nil fields leave the value as it is.
type SessionChange struct {
	Name                     *string
	State, Metadata, Summary json.RawMessage
	// MaxState is how long the state may be after the change, unless it becomes shorter. Defaults to 0: no limit.
	MaxState int
	// MaxBytes is how long the name, the state, the metadata and the summary may be together after the change. A longer
	// session is not changed. Defaults to no limit.
	MaxBytes int
}

// ChangeSession changes a session that Session returned. It is fault.NotFound if the session was deleted meanwhile,
// and fault.TooLarge if it would be longer than MaxBytes.
func (db *DB) ChangeSession(ctx context.Context, s Session, c SessionChange, now time.Time) (Session, error) {
	changed, err := list(ctx, db, readSessions(), `
		UPDATE keyway.sessions s SET
			name = COALESCE(@name, name), state = COALESCE(@state, state), metadata = COALESCE(@metadata, metadata),
			summary = COALESCE(@summary, summary), updated_at = GREATEST(updated_at, @now)
		WHERE owner = @owner AND session_id = @session_id
			AND (@state::jsonb IS NULL OR `+fits("@state::jsonb", "COALESCE(s.state, '{}')")+`)
			AND (@max_bytes::bigint = 0 OR @max_bytes >=
			octet_length(concat(COALESCE(@name, name), COALESCE(@state, state), COALESCE(@metadata, metadata),
				COALESCE(@summary, summary))))
		RETURNING `+sessionColumns,
		pgx.NamedArgs{
			"owner": s.Owner, "session_id": s.SessionID, "name": c.Name, "state": c.State, "metadata": c.Metadata,
			"summary": c.Summary, "now": now, "max_bytes": c.MaxBytes, "max_state": c.MaxState,
		})
	if err != nil {
		return Session{}, fmt.Errorf("change session: %w", kindOf(err))
	}
	if len(changed) == 0 {
		present, err := db.Session(ctx, Viewer{All: true}, s.SessionID, s.Owner)
		if err != nil {
			return Session{}, err
		}
		size := 0
		if c.MaxState > 0 && c.State != nil {
			err := db.queryRow(ctx, `SELECT octet_length(@state::jsonb::text)`, pgx.NamedArgs{"state": c.State}).Scan(&size)
			if err != nil {
				return Session{}, fmt.Errorf("size of a state: %w", kindOf(err))
			}
		}
		switch {
		case size > c.MaxState && size > len(present.State):
			return Session{}, stateFault(c.MaxState, size)
		case c.MaxBytes == 0:
			return Session{}, fmt.Errorf("session: %w", fault.NotFound)
		}
		return Session{}, fmt.Errorf("session: %w", fault.TooLarge)
	}
	return changed[0], nil
}

// ConversationQuery selects messages of one session.
type ConversationQuery struct {
	// Owner and SessionID are the key of the session. Required.
	Owner, SessionID string
	// Limit is the number of runs on a page, and Page its number from 1. Defaults to all runs.
	Limit, Page int
	// MaxBytes is how long the messages may be together. The last ones are returned. Defaults to no limit.
	MaxBytes int
}

// Conversation returns the messages of users and agents in a session, oldest first, as a JSON array. The messages are
// as they were stored; those of the system and of tools are left out.
func (db *DB) Conversation(ctx context.Context, v Viewer, q ConversationQuery) (messages []byte, err error) {
	args := pgx.NamedArgs{
		"owner": q.Owner, "session_id": q.SessionID, "viewer": v.Owner, "bound": v.Session, "max_bytes": q.MaxBytes,
	}
	page := pageOf(q.Limit, q.Page, args)
	length, fits := "", ""
	if q.MaxBytes > 0 {
		length = `, sum(octet_length(m.value::text) + 1) OVER (ORDER BY r.seq DESC, m.n DESC) AS bytes`
		fits = " WHERE bytes <= @max_bytes"
	}
	err = db.bulk.queryRow(ctx, `
		SELECT '[' || COALESCE(string_agg(text, ',' ORDER BY seq, n), '') || ']' FROM (
			SELECT r.seq, m.n, m.value::text AS text`+length+`
			FROM (
				SELECT seq, messages FROM keyway.runs r
				WHERE r.owner = @owner AND r.session_id = @session_id AND `+v.inSession("r.owner", "r.session_id")+`
				ORDER BY seq`+page+`
			) r, json_array_elements(r.messages) WITH ORDINALITY AS m (value, n)
			WHERE m.value->>'role' NOT IN ('system', 'tool')
		) AS shown`+fits, args).Scan(&messages)
	if err != nil {
		return nil, fmt.Errorf("conversation of a session: %w", kindOf(err))
	}
	return messages, nil
}
