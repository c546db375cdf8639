package api

import (
	"context"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// activeRuns is what both routes of active runs select by.
type activeRuns struct {
	User    string `query:"user_id" bound:"short_text" doc:"Only runs of this user."`
	AgentID string `query:"agent_id" bound:"short_text" doc:"Only runs of this agent."`
}

// listActiveRuns is the input of GET /active-runs.
type listActiveRuns struct {
	activeRuns
	Limit int `query:"limit" default:"20" min:"1" max:"100" doc:"Runs on a page, at most 100."`
	Page  int `query:"page" default:"1" min:"1" doc:"The number of the page, from 1: the oldest runs are on the first one."`
}

// listActive answers one page of the runs that have not ended, of all users. Only administrators are allowed to.
func (a Runs) listActive(ctx context.Context, r *request, in listActiveRuns) (
	page wire.Page[wire.ActiveRun], err error,
) {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return page, err
	}
	q := store.ActiveQuery{Owner: in.User, AgentID: in.AgentID}
	rows, total, err := a.DB.ActiveRuns(ctx, viewer, q, in.Limit, in.Page)
	if err != nil {
		return page, err
	}
	page.Data = make([]wire.ActiveRun, len(rows))
	for i, row := range rows {
		page.Data[i] = ActiveRunOf(row)
	}
	page.Meta = wire.PageOf(in.Page, in.Limit, total)
	return page, nil
}

// cancelActiveRuns is the input of DELETE /active-runs.
type cancelActiveRuns struct {
	activeRuns
	All bool `query:"all" default:"false" doc:"Cancel the runs of all users. One of user_id and all=true is required."`
}

// cancelActive cancels all runs of a user, or of everybody. A request that forgets user_id must not stop everything, so
// that needs a parameter of its own.
func (a Runs) cancelActive(ctx context.Context, r *request, in cancelActiveRuns) (out wire.CancelledRuns, err error) {
	if (in.User == "") == !in.All {
		return out, fault.Fields(fault.Field{
			Type: "value_error", Loc: []any{"query", "user_id"},
			Msg: "Value error, one of user_id and all=true is required, and not both", Input: in.User,
		})
	}
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return out, err
	}
	out.Cancelled, out.More, err = a.Runner.CancelAll(ctx, viewer, store.ActiveQuery{Owner: in.User, AgentID: in.AgentID})
	return out, err
}

// ActiveRunOf converts a row to what the route and the command show.
func ActiveRunOf(row store.ActiveRun) wire.ActiveRun {
	return wire.ActiveRun{
		RunID: row.RunID.String(), SessionID: row.SessionID, AgentID: row.AgentID, UserID: row.Owner, Status: row.Status,
		CreatedAt: wire.Time{Time: row.CreatedAt}, Attempt: row.Attempt,
	}
}
