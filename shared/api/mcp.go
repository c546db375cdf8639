package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/door/mcp"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// mcpEndpoint is the one endpoint of the door for MCP. Its answer is one JSON-RPC message, or an event stream that ends
// with it.
func (a Runs) mcpEndpoint() Endpoint {
	e := stream(route.MCPCall, a.mcp)
	e.Reads, e.Media = "application/json", "application/json"
	return e
}

// mcpHeaders is the input of POST /mcp that is no message.
type mcpHeaders struct {
	Key string `header:"Idempotency-Key" bound:"idempotency_key" minlen:"1" doc:"A text that the caller chooses. The same call of an agent's tool with the same key is answered with the run that the first one started."`
}

// mcp answers one message of a client. The tools are those that the caller is allowed to use, so that a client never
// shows a person what they can't have.
func (a Runs) mcp(w http.ResponseWriter, r *request, in mcpHeaders) error {
	out := &mcpAnswer{w: w}
	defer out.close()
	most := mcpBody(r.bounds)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(most)))
	if err != nil {
		e := &mcp.Error{Status: http.StatusBadRequest, Code: mcp.CodeParse, Text: "The body ended too early"}
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			e = &mcp.Error{Status: http.StatusRequestEntityTooLarge, Code: mcp.CodeInvalid,
				Text: fmt.Sprintf("%s: it has more than %d bytes", bound.MCPRoom.Text, most)}
		}
		out.end(r, nil, e)
		return nil
	}
	m, e := mcp.Read(body, r.Header.Get(mcp.VersionHeader))
	if e != nil {
		out.end(r, nil, e)
		return nil
	}
	door := mcpDoor{a, out, in.Key}
	response, e := a.MCP.Answer(r.Header, m, mcp.Offer{
		Tools:   func() []mcp.Tool { return door.mcpTools(r) },
		Call:    func(tool string, c mcp.Call) (mcp.Result, error) { return r.logged(door.call, tool, c) },
		Refused: mcpRefused, Notify: out.notify,
	})
	out.end(r, response, e)
	return nil
}

// mcpBody is how many bytes a body has at most: it holds no more than a call's arguments.
func mcpBody(l bound.Limits) int {
	return min(l.Of(bound.Body), l.Of(bound.Message)+l.Of(bound.ToolResults)+l.Of(bound.MCPRoom))
}

// mcpDoor answers the calls of one request.
type mcpDoor struct {
	Runs
	out *mcpAnswer
	key string // Idempotency-Key
}

// mcpTools returns the tools of the caller: one for each agent that the caller is allowed to run, and those that need
// the id of a run. The latter are decided when the run is known.
func (a mcpDoor) mcpTools(r *request) (tools []mcp.Tool) {
	for _, agent := range a.runnable(r) {
		name := cmp.Or(agent.Name, agent.ID)
		tools = append(tools, mcp.Tool{
			Name: mcp.ToolName(agent.ID), Title: name, Description: mcp.Describe(name, agent.Description),
			Fields: []mcp.Field{
				{Name: "message", Description: "What to say to the agent, in full sentences.", Required: true},
				{Name: "session_id", Description: "The session of an earlier result, to continue that conversation. " +
					"Without it, a new conversation begins."},
			},
		})
	}
	runID := mcp.Field{Name: "run_id", Description: "The run_id of an earlier result.", Required: true}
	return append(tools, mcp.Tool{
		Name: mcp.GetRun, Title: "Get a run", ReadOnly: true,
		Description: "Returns the status of a run and, once there is one, the agent's answer. Use it for a run that was " +
			"still running, or paused.",
		Fields: []mcp.Field{runID},
	}, mcp.Tool{
		Name: mcp.ContinueRun, Title: "Continue a paused run",
		Description: "Continues a run that is paused until a person decides about calls of tools. Ask the user first: " +
			"the decisions are theirs. A call without a decision is rejected.",
		Fields: []mcp.Field{runID, {
			Name: "decisions", Type: "array", Description: "One for each call that the run waits for.",
			Fields: []mcp.Field{
				{Name: "tool_call_id", Description: "The tool_call_id in the paused result.", Required: true},
				{Name: "decision", Description: "approve or reject.", Required: true},
				{Name: "note", Description: "Why the user rejects the call. The agent reads it."},
				{Name: "values", Type: "object", Description: "The user's values for the fields that the call leaves open."},
				{Name: "result", Description: "The result of a call that the client executes itself."},
			},
		}},
	}, mcp.Tool{
		Name: mcp.CancelRun, Title: "Cancel a run",
		Description: "Stops a run that is running or paused. One that has ended stays as it is.",
		Fields:      []mcp.Field{runID},
	})
}

// call calls a tool. An agent that the caller may not run and one that doesn't exist are refused in the same way.
func (a mcpDoor) call(r *request, tool string, c mcp.Call) (out mcp.Result, err error) {
	switch tool {
	case mcp.GetRun:
		return a.mcpGet(r, c)
	case mcp.ContinueRun:
		return a.mcpContinue(r, c)
	case mcp.CancelRun:
		return a.mcpCancel(r, c)
	}
	for _, agent := range a.Agents.List {
		if mcp.ToolName(agent.ID) == tool {
			return a.mcpRun(r, agent.ID, c)
		}
	}
	if _, err := r.as(route.CreateRun, map[string]string{"agent_id": tool}); err != nil {
		return out, err
	}
	return out, mcp.ErrUnknownTool
}

// logged calls a tool, writes its error to the logs, and hides an internal one: it becomes a result, which the server
// doesn't see.
func (r *request) logged(
	call func(*request, string, mcp.Call) (mcp.Result, error), tool string, c mcp.Call,
) (mcp.Result, error) {
	result, err := call(r, tool, c)
	if err == nil || errors.Is(err, mcp.ErrUnknownTool) {
		return result, err
	}
	if fault.KindOf(err) == fault.Internal {
		r.server.Log.ErrorContext(r.Context(), "request failed", "request_id", logging.RequestID(r.Context()), "err", err)
	}
	logging.Note(r.Context(), "err", fault.Reason(err))
	return result, mcpError{err}
}

// mcpError is an error whose text is for the client's model.
type mcpError struct{ err error }

// Unwrap returns the error.
func (e mcpError) Unwrap() error { return e.err }

// Error names each wrong argument.
func (e mcpError) Error() string {
	public, ok := errors.AsType[*fault.Error](e.err)
	if !ok || len(public.Fields) == 0 {
		text := fault.Detail(e.err)
		if ok && public.RetryAfter > 0 && public.Kind != fault.LimitReached { // whose text says when to try again
			text += fmt.Sprintf(" (in %d seconds)", int(public.RetryAfter.Seconds()+0.999))
		}
		return text
	}
	var all []string
	for _, f := range public.Fields {
		var at []string
		for _, part := range f.Loc[min(1, len(f.Loc)):] {
			at = append(at, fmt.Sprint(part))
		}
		text := f.Msg
		if len(at) > 0 {
			text = fault.Short(strings.Join(at, ".")) + ": " + text
		}
		all = append(all, text)
	}
	return "Wrong arguments. " + strings.Join(all, "; ")
}

// mcpRefused answers a caller without a scope, or with a token that has ended, by an HTTP status.
func mcpRefused(err error) *mcp.Error {
	kind := fault.KindOf(err)
	if kind != fault.Forbidden && kind != fault.Unauthenticated {
		return nil
	}
	status, header, body := fault.Answer(err)
	header.Del("Content-Type")
	text := fault.Detail(err)
	if public, ok := errors.AsType[*fault.Error](err); ok {
		for _, m := range public.Extra {
			if missing, ok := m.Value.([]string); ok && m.Name == "missing" {
				text = "Insufficient permissions. The token lacks " + strings.Join(missing, ", ")
			}
		}
	}
	return &mcp.Error{Status: status, Header: header, Text: text, Data: body}
}

// mcpRun is a call of an agent's tool.
func (a mcpDoor) mcpRun(r *request, agent string, c mcp.Call) (out mcp.Result, err error) {
	inner, err := r.as(route.CreateRun, map[string]string{"agent_id": agent})
	if err != nil {
		return out, err
	}
	if c.State != "" { // the second round of a call whose run was paused
		return a.mcpAnswered(r, c, agent)
	}
	var in struct {
		Message   string `json:"message" required:"true" minlen:"1" bound:"message"`
		SessionID string `json:"session_id" bound:"new_id" newid:"true"`
	}
	if err := input.ReadObject(arguments(c), &in, r.bounds); err != nil {
		return out, err
	}
	asked, err := a.inputOf(inner, &createRun{
		Message: in.Message, SessionID: in.SessionID, Stream: c.Progress != nil, Key: a.key,
	})
	if err != nil {
		return out, err
	}
	return a.mcpOutcome(inner, c, a.eventsOf(r, asked))
}

// arguments returns the arguments of a call, which a client may leave out.
func arguments(c mcp.Call) []byte {
	if len(c.Arguments) == 0 {
		return []byte("{}")
	}
	return c.Arguments
}

// mcpOutcome waits until the run ends, pauses or is handed over.
func (a mcpDoor) mcpOutcome(r *request, c mcp.Call, events iter.Seq2[run.Event, error]) (out mcp.Result, err error) {
	begun := false
	for e, err := range events {
		if earlier, ok := errors.AsType[*store.Repeated](err); ok {
			return a.mcpRepeat(r, c, earlier)
		}
		if err != nil {
			return out, err
		}
		if !begun {
			begun = true
			if id := mcp.RunID(e.Event); id != "" {
				logging.Note(r.Context(), "run_id", id)
				r.audit.Object("run", id)
			}
			a.out.begun()
		}
		switch {
		case e.Result != nil:
			return mcpResult(c, *e.Result), nil
		case e.HandedOver != nil:
			logging.Note(r.Context(), "handed_over", e.HandedOver.RunID)
			return mcpResult(c, wire.Run{
				RunID: e.HandedOver.RunID, SessionID: e.HandedOver.SessionID, Status: wire.StatusRunning,
				AgentID: r.param("agent_id"),
			}), nil
		case c.Progress != nil:
			if text := mcp.Progress(e.Event); text != "" {
				c.Progress(text)
			}
		}
	}
	return out, fmt.Errorf("the run ended without a result: %w", fault.Internal)
}

// mcpRepeat answers a call that was sent before, with the same Idempotency-Key: it waits for the run that the first
// one has started.
func (a mcpDoor) mcpRepeat(r *request, c mcp.Call, earlier *store.Repeated) (out mcp.Result, err error) {
	noteRepeat(a.out.w, r, earlier)
	a.out.begun()
	ctx, stop := a.whileValid(r)
	defer stop()
	whole, status, err := a.endOf(ctx, r, earlier.Run)
	switch {
	case err != nil:
		return out, notFound(err, "Run not found")
	case whole != nil:
		return mcpResult(c, runOf(*whole)), nil
	case endedToken(ctx) != nil:
		return out, endedToken(ctx)
	}
	return mcpResult(c, wire.Run{
		RunID: earlier.Run.RunID.String(), SessionID: earlier.Run.SessionID, AgentID: earlier.Run.AgentID, Status: status,
	}), nil
}

// mcpResult converts a run to the result of a call.
func mcpResult(c mcp.Call, r wire.Run) mcp.Result {
	if r.Status == wire.StatusPaused && c.Asks {
		if questions := mcp.Questions(r); questions != nil {
			return mcp.Result{Questions: questions, State: r.RunID}
		}
	}
	return mcp.ResultOf(r)
}

// mcpRunOf finds the run that a call names, and decides about it as the named route of the run's agent would.
func (a mcpDoor) mcpRunOf(r *request, name route.Name, id string) (inner *request, head store.RunHead, err error) {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return nil, head, err
	}
	head, err = a.DB.RunHead(r.Context(), viewer, store.RunQuery{RunID: id})
	if err != nil {
		return nil, head, notFound(err, "Run not found")
	}
	inner, err = r.as(name, map[string]string{"agent_id": head.AgentID, "run_id": head.RunID.String()})
	if err != nil {
		return nil, head, err
	}
	r.audit.Owner(head.Owner)
	r.audit.Object("run", head.RunID.String())
	_, err = a.Agents.find(head.AgentID)
	return inner, head, err
}

// runOnly are the arguments of the tools that name a run and nothing else.
type runOnly struct {
	RunID string `json:"run_id" required:"true" minlen:"1" bound:"short_text"`
}

// mcpGet is a call of get_run.
func (a mcpDoor) mcpGet(r *request, c mcp.Call) (out mcp.Result, err error) {
	var in runOnly
	if err := input.ReadObject(arguments(c), &in, r.bounds); err != nil {
		return out, err
	}
	inner, head, err := a.mcpRunOf(r, route.GetRun, in.RunID)
	if err != nil {
		return out, err
	}
	whole, err := a.get(r.Context(), inner, runsOfSession{SessionID: head.SessionID})
	if err != nil {
		return out, err
	}
	return mcp.ResultOf(whole), nil
}

// mcpCancel is a call of cancel_run.
func (a mcpDoor) mcpCancel(r *request, c mcp.Call) (out mcp.Result, err error) {
	var in runOnly
	if err := input.ReadObject(arguments(c), &in, r.bounds); err != nil {
		return out, err
	}
	inner, head, err := a.mcpRunOf(r, route.CancelRun, in.RunID)
	if err != nil {
		return out, err
	}
	if ended := mcp.Ended(head.Status); ended != "" {
		return out, fault.Public(fault.Conflict, ended, nil)
	}
	if _, err := a.cancel(r.Context(), inner, cancelRun{SessionID: head.SessionID}); err != nil {
		return out, err
	}
	return mcp.Cancelling(head.RunID.String()), nil
}

// decision is a decision about one call in the arguments of continue_run.
type decision struct {
	ToolCallID string       `json:"tool_call_id" required:"true" bound:"short_text"`
	Decision   string       `json:"decision" required:"true" enum:"approve,reject"`
	Note       string       `json:"note" bound:"tool_results"`
	Values     input.Object `json:"values" bound:"tool_results"`
	Result     *string      `json:"result" bound:"tool_results"`
}

// mcpContinue is a call of continue_run.
func (a mcpDoor) mcpContinue(r *request, c mcp.Call) (out mcp.Result, err error) {
	if c.State != "" {
		return a.mcpAnswered(r, c, "")
	}
	var in struct {
		RunID     string     `json:"run_id" required:"true" minlen:"1" bound:"short_text"`
		Decisions []decision `json:"decisions" bound:"tool_calls" closed:"true"`
	}
	if err := input.ReadObject(arguments(c), &in, r.bounds); err != nil {
		return out, err
	}
	decided := map[string]mcp.Decision{}
	for _, d := range in.Decisions {
		values := map[string]json.RawMessage{}
		if len(d.Values) > 0 {
			if err := json.Unmarshal(d.Values, &values); err != nil {
				return out, fmt.Errorf("%w: %w", fault.Invalid, err)
			}
		}
		if _, ok := decided[d.ToolCallID]; ok {
			return out, fault.Public(fault.Invalid, fmt.Sprintf("Two decisions are about %.100q", d.ToolCallID), nil)
		}
		decided[d.ToolCallID] = mcp.Decision{
			Approved: d.Decision == "approve", Note: d.Note, Values: values, Result: d.Result,
		}
	}
	return a.mcpDecide(r, c, in.RunID, decided, in)
}

// mcpAnswered continues the run of an earlier round with its user's answers. The state names the run. It is no more
// than an argument: the run is found and decided about as any other. agent is the one whose tool is called, or "" for
// continue_run, which is for the runs of all agents.
func (a mcpDoor) mcpAnswered(r *request, c mcp.Call, agent string) (out mcp.Result, err error) {
	if len(c.State) > bound.ShortText.Default {
		return out, bound.ShortText.Fault(bound.ShortText.Default, len(c.State))
	}
	decided, open := mcp.Decisions(c.Answers)
	name := route.ContinueRun
	if open { // the user has closed the form, and may decide later
		name = route.GetRun
	}
	inner, head, err := a.mcpRunOf(r, name, c.State)
	if err != nil {
		return out, err
	}
	if agent != "" && head.AgentID != agent {
		return out, fault.Public(fault.NotFound, "Run not found", nil)
	}
	if open {
		whole, err := a.get(r.Context(), inner, runsOfSession{SessionID: head.SessionID})
		return mcp.ResultOf(whole), err
	}
	return a.mcpDecide(r, c, c.State, decided, []any{c.State, decided})
}

// mcpDecide continues a paused run. asked is the request that a repeated one must equal.
func (a mcpDoor) mcpDecide(
	r *request, c mcp.Call, id string, decided map[string]mcp.Decision, asked any,
) (out mcp.Result, err error) {
	inner, head, err := a.mcpRunOf(r, route.ContinueRun, id)
	if err != nil {
		return out, err
	}
	viewer, err := a.Isolation.viewer(inner)
	spender, err2 := a.Isolation.spender(inner)
	if err := cmp.Or(err, err2); err != nil {
		return out, err
	}
	q := store.RunQuery{AgentID: head.AgentID, RunID: head.RunID.String(), SessionID: head.SessionID}
	row, err := a.DB.Run(r.Context(), viewer, q)
	if err != nil {
		return out, notFound(err, "Run not found")
	}
	answers, err := mcp.AnswersTo(runOf(row), decided)
	if err != nil {
		return out, fault.Public(fault.Invalid, err.Error(), nil)
	}
	if len(decided) == 0 && c.Asks && row.Status == wire.StatusPaused {
		return mcpResult(c, runOf(row)), nil
	}
	events := a.Runner.Continue(r.Context(), viewer, q, run.Continuation{
		Answers: answers, Streamed: c.Progress != nil, Caller: callerOf(inner), Spender: spender,
		Request: requestOf(a.key, asked),
	})
	out, err = a.mcpOutcome(inner, c, events)
	return out, notFound(err, "Run not found")
}

// Origins refuses requests of web pages at the door for MCP, whose specification asks for it (section "Transports"),
// unless the page is of one of origins. A request without Origin is of no page. The Host header proves nothing about
// the page: one that makes its own host name resolve to this machine sends that name in both headers.
func Origins(origins []string, table *route.Routes, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if origin == "" || r.Method != http.MethodPost || table.DoorAt(r.URL.Path) != route.MCP ||
			slices.ContainsFunc(origins, func(o string) bool { return strings.EqualFold(o, origin) }) {
			next.ServeHTTP(w, r)
			return
		}
		logging.Note(r.Context(), "err", "a web page of another origin")
		e := mcp.Error{Status: http.StatusForbidden, Code: mcp.CodeInvalid,
			Text: "Web pages of this Origin may not use the door for MCP. cors.origins of keyway.yaml names those that may"}
		e.Write(w)
	})
}
