package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/obs"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Runs answers what an agent does: it is the only resource that streams.
type Runs struct {
	DB        *store.DB
	Runner    *run.Runner
	Agents    Agents
	Isolation Isolation
}

func (a Runs) handlers() map[route.Name]handler {
	return map[route.Name]handler{
		route.CreateRun:   a.create,
		route.ListRuns:    answer(a.list),
		route.GetRun:      answer(a.get),
		route.CancelRun:   answer(a.cancel),
		route.ContinueRun: a.resumePaused,
	}
}

// create runs an agent: as server-sent events, or with stream=false as one JSON
// answer. Everything that can be a 4xx is one before the run begins.
func (a Runs) create(w http.ResponseWriter, r *request) error {
	in, err := r.form(w)
	if err != nil {
		return err
	}
	message, stream, background := in.required("message", maxBody), in.boolean("stream", true), in.boolean("background", false)
	sessionID, user := in.text("session_id", store.MaxSessionID), in.text("user_id", maxSubject)
	in.integer("version", 0, 0)
	if err := in.err(); err != nil {
		return err
	}
	if background {
		return fault.Public(fault.Invalid, "background: this server does not run in the background; leave it out", nil)
	}
	owner, err := a.Isolation.owner(r, user)
	if err != nil {
		return err
	}
	if r.principal.SessionID != "" { // the token is bound to one session
		sessionID = r.principal.SessionID
	}
	events := a.Runner.Run(r.Context(), run.Input{AgentID: r.param("agent_id"), Owner: owner, SessionID: sessionID, Message: message})
	if stream {
		return a.stream(w, r, events)
	}
	for e, err := range events {
		if err != nil {
			return err
		}
		if e.Result != nil {
			obs.Note(r.Context(), "run_id", e.Result.RunID)
			return writeJSON(w, http.StatusOK, e.Result)
		}
	}
	return fmt.Errorf("the run ended without a result: %w", fault.Internal)
}

// list answers the runs of one session of the agent.
func (a Runs) list(ctx context.Context, r *request) ([]wire.StoredRun, error) {
	viewer, q, err := a.query(r)
	if err != nil {
		return nil, err
	}
	session, err := a.DB.Session(ctx, viewer, q.SessionID, q.Owner)
	if err == nil && (session.AgentID == nil || *session.AgentID != q.AgentID) {
		err = fault.NotFound // a session belongs to the agent that began it
	}
	if fault.KindOf(err) == fault.NotFound {
		err = fault.Public(fault.NotFound, "Session not found", err)
	}
	if err != nil {
		return nil, err
	}
	q.Owner = session.Owner
	runs, err := a.DB.Runs(ctx, viewer, q)
	if err != nil {
		return nil, err
	}
	out := make([]wire.StoredRun, len(runs))
	for i, row := range runs {
		if out[i], err = ordered(row); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ordered is storedRun with messages and metrics in the order of their members
// on the wire: PostgreSQL keeps members by length, and AgentOS answers this
// route in its own order.
func ordered(row store.Run) (wire.StoredRun, error) {
	out := storedRun(row)
	said, err := messages(row)
	if err != nil {
		return out, err
	}
	if out.Messages, err = wire.Marshal(said); err != nil {
		return out, err
	}
	m, err := metrics(row)
	if err != nil {
		return out, err
	}
	out.Metrics, err = wire.Marshal(m)
	return out, err
}

func (a Runs) get(ctx context.Context, r *request) (wire.Run, error) {
	viewer, q, err := a.query(r)
	if err != nil {
		return wire.Run{}, err
	}
	q.RunID = r.param("run_id")
	row, err := a.DB.Run(ctx, viewer, q)
	if fault.KindOf(err) == fault.NotFound {
		err = errNoRun
	}
	if err != nil {
		return wire.Run{}, err
	}
	m, err := metrics(row)
	if err != nil {
		return wire.Run{}, err
	}
	said, err := messages(row)
	out := wire.Run{
		RunID: row.RunID.String(), AgentID: row.AgentID, AgentName: row.AgentName, SessionID: row.SessionID, UserID: row.Owner,
		Content: row.Content, ContentType: "str", ModelProviderData: row.ProviderData, Model: row.ModelID, ModelProvider: row.ModelProvider,
		SessionState: row.SessionState, CreatedAt: row.CreatedAt.Unix(), Status: row.Status, Metrics: m, Events: []any{},
		Messages: said, Input: wire.RunInput{InputContent: row.Input},
	}
	if string(row.Tools) != "[]" {
		out.Tools = row.Tools
	}
	if out.SessionState == nil && row.Status != wire.StatusRunning {
		out.SessionState = json.RawMessage("{}")
	}
	if row.CancellationStage != nil {
		out.CancellationStage = *row.CancellationStage
	}
	return out, err
}

var errNoRun = fault.Public(fault.NotFound, "Run not found", nil)

// query reads which session's runs are asked for; AgentOS demands the session.
func (a Runs) query(r *request) (store.Viewer, store.RunQuery, error) {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return viewer, store.RunQuery{}, err
	}
	in := r.query()
	q := store.RunQuery{AgentID: r.param("agent_id"), SessionID: in.required("session_id", maxText), Owner: in.text("user_id", maxSubject)}
	if status := in.text("status", maxText); status != "" && r.decision.Route.Name == route.ListRuns {
		q.Statuses = []string{strings.ToUpper(status)}
	}
	if err := in.err(); err != nil {
		return viewer, q, err
	}
	_, err = a.Agents.find(q.AgentID)
	return viewer, q, err
}

// cancel asks a run to stop; one that has ended stays as it is. Who sees
// everything gets AgentOS's {} for an unknown run too.
func (a Runs) cancel(ctx context.Context, r *request) (struct{}, error) {
	none := struct{}{}
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return none, err
	}
	in := r.query()
	q := store.RunQuery{RunID: r.param("run_id"), SessionID: in.text("session_id", maxText)}
	if err := in.err(); err != nil {
		return none, err
	}
	if _, err := a.Agents.find(r.param("agent_id")); err != nil {
		return none, err
	}
	row, err := a.DB.Run(ctx, viewer, q)
	switch {
	case fault.KindOf(err) == fault.NotFound && viewer.All:
		return none, nil
	case fault.KindOf(err) == fault.NotFound || (err == nil && row.AgentID != r.param("agent_id")):
		return none, errNoRun
	case err != nil:
		return none, err
	}
	_, err = a.Runner.Cancel(ctx, viewer, q)
	return none, err
}

// resumePaused answers a continue. No run pauses yet, so no run can be continued.
func (a Runs) resumePaused(w http.ResponseWriter, r *request) error {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return err
	}
	in, err := r.form(w)
	if err != nil {
		return err
	}
	q := store.RunQuery{AgentID: r.param("agent_id"), RunID: r.param("run_id"), SessionID: in.text("session_id", maxText)}
	tools, from := in.last("tools"), in.last("continue_from")
	in.boolean("stream", true)
	if err := in.err(); err != nil {
		return err
	}
	if _, err := a.Agents.find(q.AgentID); err != nil {
		return err
	}
	switch {
	case tools != "" && !json.Valid([]byte(tools)):
		return fault.Public(fault.Invalid, "Invalid JSON in tools field", nil)
	case q.SessionID == "":
		return fault.Public(fault.Invalid, "session_id is required for this action", nil)
	case from != "" && from != "end" && from != "last_user" && strings.Trim(from, "0123456789") != "":
		return fault.Public(fault.Invalid, "Invalid continue_from. Use 'end', 'last_user', or a numeric message index.", nil)
	}
	row, err := a.DB.Run(r.Context(), viewer, q)
	switch {
	case fault.KindOf(err) == fault.NotFound && viewer.All:
		return fault.Public(fault.NotFound, "No runs found for run ID "+q.RunID, nil)
	case fault.KindOf(err) == fault.NotFound:
		return errNoRun
	case err != nil:
		return err
	}
	return fault.Public(fault.Conflict, fmt.Sprintf("Cannot continue run %s: run is %s", q.RunID, strings.ToLower(row.Status)), nil)
}

func metrics(row store.Run) (m wire.Metrics, err error) {
	if err = json.Unmarshal(row.Metrics, &m); err != nil {
		err = fmt.Errorf("metrics of run %s: %w", row.RunID, err)
	}
	return m, err
}
