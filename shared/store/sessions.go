package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Session is one row of sessions with what its runs cost.
type Session struct {
	Owner       string
	SessionID   string
	SessionType string // "agent", "team" or "workflow"
	AgentID     *string
	TeamID      *string
	WorkflowID  *string
	Name        *string // nil: nobody named it, and nothing was said in it
	State       json.RawMessage
	Metadata    json.RawMessage
	Summary     json.RawMessage
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Usage       Usages
}

// SessionUsage is one model's share.
type SessionUsage struct {
	ModelID, Family      string
	Input, Output, Total int
}

// Usages are the shares of all models that were asked in a session.
type Usages []SessionUsage

// Scan reads what sessionColumns makes of them: a line each, with tabs between.
// JSON would take as long to read as all the rest of a list.
func (u *Usages) Scan(src any) error {
	text, _ := src.(string) // NULL: nothing was asked
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 5 {
			return fmt.Errorf("usage of a session: %q", line)
		}
		one := SessionUsage{ModelID: f[0], Family: f[1]}
		for i, n := range []*int{&one.Input, &one.Output, &one.Total} {
			var err error
			if *n, err = strconv.Atoi(f[2+i]); err != nil {
				return fmt.Errorf("usage of a session: %w", err)
			}
		}
		*u = append(*u, one)
	}
	return nil
}

// The usage is collected for the rows that are returned, not for those counted.
const sessionColumns = `s.owner, s.session_id, s.session_type, s.agent_id, s.team_id, s.workflow_id, s.name, s.state,
	s.metadata, s.summary, s.created_at, s.updated_at,
	(SELECT string_agg(concat_ws(E'\t', translate(u.model_id, E'\t\n', '  '), translate(u.model_family, E'\t\n', '  '),
		u.input_tokens, u.output_tokens, u.total_tokens), E'\n' ORDER BY u.model_id, u.model_family) FROM keyway.session_usage u
	 WHERE u.owner = s.owner AND u.session_id = s.session_id) AS usage`

// SessionQuery narrows and orders a list of sessions. Empty members don't narrow.
type SessionQuery struct {
	Owner     string // an administrator's narrowing to one user
	Type      string
	Component string // the id of its agent, team or workflow
	NameHas   string // case-insensitive part of the name; no wildcards
	SortBy    string // "created_at" (also for anything unknown), "updated_at" or "session_id"
	Ascending bool
	Limit     int // ≥ 1
	Page      int // ≥ 1
}

// Sessions lists one page and counts all that match.
func (db *DB) Sessions(ctx context.Context, v Viewer, q SessionQuery) (page []Session, total int, err error) {
	where, args := q.where(v)
	order := "created_at"
	if q.SortBy == "updated_at" || q.SortBy == "session_id" {
		order = q.SortBy
	}
	page, total, err = paged[Session](ctx, db, listing{
		columns: sessionColumns, from: "keyway.sessions s WHERE " + where, order: "s." + order + direction(q.Ascending) + ", s.session_id",
		limit: q.Limit, page: q.Page,
	}, args)
	if err != nil {
		return nil, 0, fmt.Errorf("sessions: %w", kindOf(err))
	}
	return page, total, nil
}

func (q SessionQuery) where(v Viewer) (string, pgx.NamedArgs) {
	f := v.filter("s.owner")
	f.ifAsked("s.owner = @owner", "owner", q.Owner)
	f.ifAsked("s.session_type = @type", "type", q.Type)
	f.ifAsked("(s.agent_id = @component OR s.team_id = @component OR s.workflow_id = @component)", "component", q.Component)
	f.ifAsked("strpos(lower(s.name), lower(@name_has)) > 0", "name_has", q.NameHas)
	return f.sql, f.args
}

// Session finds one session. owner narrows an administrator to one user; without
// it an id that several users have is fault.Conflict. One that isn't there, or
// isn't the viewer's, is fault.NotFound.
func (db *DB) Session(ctx context.Context, v Viewer, sessionID, owner string) (Session, error) {
	if !ValidID(sessionID, MaxSessionID) {
		return Session{}, fmt.Errorf("session: %w", fault.NotFound)
	}
	where, args := SessionQuery{Owner: owner}.where(v)
	args["session_id"] = sessionID
	found, err := collect[Session](ctx, db, `SELECT `+sessionColumns+` FROM keyway.sessions s
		WHERE s.session_id = @session_id AND `+where+` LIMIT 2`, args)
	switch {
	case err != nil:
		return Session{}, fmt.Errorf("session %q: %w", sessionID, kindOf(err))
	case len(found) == 0:
		return Session{}, fmt.Errorf("session %q: %w", sessionID, fault.NotFound)
	case len(found) > 1:
		return Session{}, severalOwners(sessionID)
	}
	return found[0], nil
}

// DeleteSessions removes sessions with their runs, all of them or none. Those that
// aren't there, or aren't the viewer's, are left alone without a word, as AgentOS
// does. owner narrows an administrator to one user; without it, an id that several
// users have is fault.Conflict.
func (db *DB) DeleteSessions(ctx context.Context, v Viewer, ids []string, owner string) error {
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !ValidID(id, MaxSessionID) })
	where, args := SessionQuery{Owner: owner}.where(v)
	args["ids"] = ids
	var twice *string
	err := db.queryRow(ctx, `
		WITH found AS (
			SELECT s.owner, s.session_id, count(*) OVER (PARTITION BY s.session_id) AS owners
			FROM keyway.sessions s WHERE s.session_id = ANY(@ids) AND `+where+`
		), gone AS (
			DELETE FROM keyway.sessions s USING found f
			WHERE s.owner = f.owner AND s.session_id = f.session_id AND NOT EXISTS (SELECT FROM found WHERE owners > 1)
		)
		SELECT min(session_id) FROM found WHERE owners > 1`, args).Scan(&twice)
	if err != nil {
		return fmt.Errorf("delete sessions: %w", kindOf(err))
	}
	if twice != nil {
		return severalOwners(*twice)
	}
	return nil
}

func severalOwners(sessionID string) error {
	return fault.Public(fault.Conflict, fmt.Sprintf("Several users have a session '%s'; say which with user_id", sessionID), nil)
}

// CreateSession adds a session: fault.Conflict when its owner has one of that id.
func (db *DB) CreateSession(ctx context.Context, s Session) error {
	n, err := db.exec(ctx, `
		INSERT INTO keyway.sessions (owner, session_id, session_type, agent_id, team_id, workflow_id, name, state, metadata, created_at, updated_at)
		VALUES (@owner, @session_id, @session_type, @agent_id, @team_id, @workflow_id, @name, @state, @metadata, @created_at, @created_at)
		ON CONFLICT DO NOTHING`,
		pgx.NamedArgs{
			"owner": s.Owner, "session_id": s.SessionID, "session_type": s.SessionType, "agent_id": s.AgentID, "team_id": s.TeamID,
			"workflow_id": s.WorkflowID, "name": s.Name, "state": s.State, "metadata": s.Metadata, "created_at": s.CreatedAt,
		})
	if err != nil {
		return fmt.Errorf("create session %q: %w", s.SessionID, kindOf(err))
	}
	if n == 0 {
		return fmt.Errorf("session %q: %w", s.SessionID, fault.Conflict)
	}
	return nil
}

// SessionChange names what to change; nil members stay as they are.
type SessionChange struct {
	Name                     *string
	State, Metadata, Summary json.RawMessage
}

// ChangeSession changes a session that Session found. One that is gone meanwhile
// is fault.NotFound.
func (db *DB) ChangeSession(ctx context.Context, s Session, c SessionChange, now time.Time) (Session, error) {
	changed, err := collect[Session](ctx, db, `
		UPDATE keyway.sessions s SET
			name = COALESCE(@name, name), state = COALESCE(@state, state), metadata = COALESCE(@metadata, metadata),
			summary = COALESCE(@summary, summary), updated_at = GREATEST(updated_at, @now)
		WHERE owner = @owner AND session_id = @session_id
		RETURNING `+sessionColumns,
		pgx.NamedArgs{
			"owner": s.Owner, "session_id": s.SessionID, "name": c.Name, "state": c.State, "metadata": c.Metadata, "summary": c.Summary, "now": now,
		})
	if err != nil {
		return Session{}, fmt.Errorf("change session %q: %w", s.SessionID, kindOf(err))
	}
	if len(changed) == 0 {
		return Session{}, fmt.Errorf("session %q: %w", s.SessionID, fault.NotFound)
	}
	return changed[0], nil
}
