package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Session is one row of sessions with what its runs cost.
type Session struct {
	Owner       string
	SessionID   string
	SessionType string
	AgentID     *string
	Name        string
	State       json.RawMessage
	Metadata    json.RawMessage
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Usage       []SessionUsage
}

// SessionUsage is one model's share.
type SessionUsage struct {
	ModelID string `json:"model_id"`
	Family  string `json:"model_family"`
	Input   int    `json:"input_tokens"`
	Output  int    `json:"output_tokens"`
	Total   int    `json:"total_tokens"`
}

// The usage is collected for the rows that are returned, not for those counted.
const sessionColumns = `s.owner, s.session_id, s.session_type, s.agent_id, s.name, s.state, s.metadata, s.created_at, s.updated_at,
	(SELECT jsonb_agg(u ORDER BY u.model_id, u.model_family) FROM keyway.session_usage u
	 WHERE u.owner = s.owner AND u.session_id = s.session_id) AS usage`

// SessionQuery narrows and orders a list of sessions. Empty members don't narrow.
type SessionQuery struct {
	Owner     string // an administrator's narrowing to one user
	Type      string
	AgentID   string
	NameHas   string // case-insensitive part of the name; no wildcards
	SortBy    string // "created_at" (also for anything unknown) or "updated_at"
	Ascending bool
	Limit     int // ≥ 1
	Page      int // ≥ 1
}

// Sessions lists one page and counts all that match.
func (db *DB) Sessions(ctx context.Context, v Viewer, q SessionQuery) (page []Session, total int, err error) {
	where, args := q.where(v)
	order := "created_at"
	if q.SortBy == "updated_at" {
		order = "updated_at"
	}
	direction := "DESC"
	if q.Ascending {
		direction = "ASC"
	}
	args["limit"], args["offset"] = q.Limit, int64(q.Page-1)*int64(q.Limit)
	page, err = collect[Session](ctx, db, `SELECT `+sessionColumns+` FROM keyway.sessions s WHERE `+where+
		` ORDER BY s.`+order+` `+direction+`, s.session_id LIMIT @limit OFFSET @offset`, args)
	if err != nil {
		return nil, 0, fmt.Errorf("sessions: %w", kindOf(err))
	}
	if len(page) < q.Limit && (q.Page == 1 || len(page) > 0) { // the last page tells the count by itself
		return page, (q.Page-1)*q.Limit + len(page), nil
	}
	if err = db.queryRow(ctx, `SELECT count(*) FROM keyway.sessions s WHERE `+where, args).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count sessions: %w", kindOf(err))
	}
	return page, total, nil
}

func (q SessionQuery) where(v Viewer) (string, pgx.NamedArgs) {
	conditions, args := []string{v.where("s.owner")}, pgx.NamedArgs{"viewer": v.Owner}
	and := func(value, condition, name string) {
		if value != "" {
			conditions = append(conditions, condition)
			args[name] = value
		}
	}
	and(q.Owner, "s.owner = @owner", "owner")
	and(q.Type, "s.session_type = @type", "type")
	and(q.AgentID, "s.agent_id = @agent_id", "agent_id")
	and(q.NameHas, "strpos(lower(s.name), lower(@name_has)) > 0", "name_has")
	return strings.Join(conditions, " AND "), args
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
		return Session{}, fault.Public(fault.Conflict, fmt.Sprintf("Several users have a session '%s'; say which with user_id", sessionID), nil)
	}
	return found[0], nil
}

// DeleteSession removes a session with its runs. One that isn't there, or isn't
// the viewer's, is left alone without a word, as AgentOS does.
func (db *DB) DeleteSession(ctx context.Context, v Viewer, sessionID, owner string) error {
	s, err := db.Session(ctx, v, sessionID, owner)
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = db.exec(ctx, `DELETE FROM keyway.sessions WHERE owner = @owner AND session_id = @session_id`,
		pgx.NamedArgs{"owner": s.Owner, "session_id": s.SessionID})
	if err != nil {
		return fmt.Errorf("delete session %q: %w", sessionID, kindOf(err))
	}
	return nil
}
