package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/door/mcp"
	"github.com/keyway-agents/keyway/shared/door/openai"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/follow"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/notes"
	"github.com/keyway-agents/keyway/shared/pgvalue"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/trace"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Runs answers the routes that start, read and control runs, and the one that merges
// memories with a model. It is the only resource whose answers can be streams.
type Runs struct {
	// DB stores the runs. Required.
	DB *store.DB
	// Runner executes the runs. Required.
	Runner *run.Runner
	// Follow reads the events of runs for the clients that resume or repeat them. Required.
	Follow *follow.Reader
	// Notes are the models that can merge memories. Defaults to none: then no memories can be merged.
	Notes notes.Models
	// Agents are the declared agents. A route that names another one answers 404.
	// Required.
	Agents Agents
	// Isolation decides which runs a caller sees. Defaults to all of them.
	Isolation Isolation
	// Revoked has the meaning of Options.Revoked. Answers that take long check it again.
	Revoked func(context.Context, *authz.Principal) error
	// Limits are those of all runs together, for merges of memories. Defaults to none.
	Limits limit.Limits
	// Now is the clock of merged memories. Required.
	Now func() time.Time
	// MCP answers the messages of the door for MCP.
	MCP mcp.Server
	// NewID makes the ids of files and merged memories. Required.
	NewID func() uuid.UUID
}

// endpoints implements Resource. Starting and continuing a run may be answered with 202 as
// well: in the background, or when the run was handed over to another process.
func (a Runs) endpoints() []Endpoint {
	return []Endpoint{
		accepting[wire.Accepted](longStream(route.CreateRun, a.create, reflect.TypeFor[wire.Run]())),
		answer(route.ListRuns, a.list),
		answer(route.GetRun, a.get),
		answer(route.CancelRun, a.cancel),
		accepting[wire.Accepted](longStream(route.ContinueRun, a.continuePaused, reflect.TypeFor[wire.Run]())),
		longStream(route.ResumeRun, a.resume).
			endingWith("Nothing is left to send to a client that reconnects with Last-Event-ID."),
		answer(route.MergeMemories, a.merge),
		answer(route.ListActiveRuns, a.listActive),
		answer(route.CancelActiveRuns, a.cancelActive),
		a.mcpEndpoint(),
		answer(route.Models, a.models),
		answer(route.Model, a.model),
		longStream(route.Completions, a.complete, reflect.TypeFor[openai.Completion]()),
		longStream(route.AGUIRun, a.agui),
		longStream(route.AISDKRun, a.aiSDK),
		longStream(route.AISDKResume, a.aiSDKResume).endingWith("No answer is in progress."),
		longStream(route.Responses, a.respondTo, reflect.TypeFor[openai.Response]()),
		stream(route.Response, a.readResponse, reflect.TypeFor[openai.Response]()),
		whole(stream(route.CancelResponse, a.cancelResponse, reflect.TypeFor[openai.Response]())),
		answer(route.DeleteResponse, a.deleteResponse),
	}
}

// createRun is the input of POST /agents/{agent_id}/runs. The media fields are what
// AgentOS's Python client sends. They are declared so that the handler can reject them by
// name, like the fields that this version does not support: what a caller asked for must not
// be left out without notice. State and Metadata are texts, because a form has no JSON members; create parses
// them. The length limits are those of the database's columns.
type createRun struct {
	Message    string       `form:"message" required:"true" bound:"message" doc:"The user's message to the agent."`
	Stream     bool         `form:"stream" default:"true" doc:"Whether the answer is a stream of server-sent events. With false it is one JSON document."`
	SessionID  string       `form:"session_id" bound:"new_id" newid:"true" doc:"The session that the run continues. Defaults to a new session."`
	User       string       `form:"user_id" bound:"short_text" doc:"The user of the run. Ignored when the token names its user."`
	Files      []input.File `form:"files" bound:"files" doc:"Text files for the agent to read."`
	Images     string       `form:"images" doc:"Not supported: agents read text."`
	Audio      string       `form:"audio" doc:"Not supported: agents read text."`
	Videos     string       `form:"videos" doc:"Not supported: agents read text."`
	InputFiles string       `form:"input_files" doc:"Not supported: send text files in files."`
	Background bool         `form:"background" default:"false" doc:"Whether the run continues without the client. Without stream, the answer is a 202 at once."`
	State      string       `form:"session_state" bound:"session_state" doc:"A JSON object that is merged into the session's state."`
	Metadata   string       `form:"metadata" bound:"metadata" doc:"A JSON object that is stored with the run."`
	Version    int          `form:"version" doc:"Accepted, and without effect: agents have no versions."`
	Schema     string       `form:"output_schema" unsupported:"answers are text" doc:"Not supported: answers are text."`
	Depends    string       `form:"dependencies" unsupported:"agents have no dependencies" doc:"Not supported: agents have no dependencies."`
	Filters    string       `form:"knowledge_filters" unsupported:"agents have no knowledge base" doc:"Not supported: agents have no knowledge base."`
	Factory    string       `form:"factory_input" unsupported:"agents are declared, not made for a request" doc:"Not supported: agents are declared, not made for a request."`
	FilesMeta  string       `form:"files_metadata" unsupported:"files have no metadata" doc:"Not supported: files have no metadata."`
	AddHistory string       `form:"add_history_to_context" unsupported:"the agent's own setting counts" doc:"Not supported: the agent's own setting counts."`
	AddDepends string       `form:"add_dependencies_to_context" unsupported:"agents have no dependencies" means:"false" doc:"Not supported: agents have no dependencies."`
	AddState   string       `form:"add_session_state_to_context" unsupported:"the model doesn't see the state" means:"false" doc:"Not supported: the model doesn't see the state."`
	Events     string       `form:"stream_events" unsupported:"a stream has all events" means:"true" doc:"Not supported: a stream has all events."`
	Key        string       `header:"Idempotency-Key" minlen:"1" bound:"idempotency_key" doc:"A text that the caller chooses. The same request with the same key is answered with the run that the first one started."`
}

// create runs an agent. The answer is a stream. With stream=false it is a JSON document,
// and with stream=false and background=true it is a 202. Every check that can end in a 4xx comes before the
// run starts: an invalid request leaves no row and calls no model.
func (a Runs) create(w http.ResponseWriter, r *request, in *createRun) error {
	request, err := a.inputOf(r, in)
	if err != nil {
		return err
	}
	switch {
	case in.Stream:
		err = a.stream(w, r, a.eventsOf(r, request))
	case in.Background:
		err = a.start(w, r, request)
	default:
		err = a.respond(w, r, a.eventsOf(r, request), false)
	}
	// The store finds a repeated request when it inserts the run, so two equal requests at
	// the same time can't both start one.
	return a.orRepeat(w, r, err, in.Stream, in.Background)
}

// orRepeat answers a repeated request, for which starting or continuing a run has failed with *store.Repeated. It
// returns any other error.
func (a Runs) orRepeat(w http.ResponseWriter, r *request, err error, streamed, background bool) error {
	if earlier, ok := errors.AsType[*store.Repeated](err); ok {
		return a.repeat(w, r, earlier, streamed, background)
	}
	return err
}

// inputOf returns the run that a request asks for. The request is one to the agent's own route, or decided as one.
func (a Runs) inputOf(r *request, in *createRun) (*run.Input, error) {
	state, err := input.ObjectFrom(in.State, "body", "session_state")
	metadata, err2 := input.ObjectFrom(in.Metadata, "body", "metadata")
	if err := cmp.Or(err, err2); err != nil {
		return nil, err
	}
	if err := in.checkMedia(); err != nil {
		return nil, err
	}
	files, err := a.textFiles(in.Files)
	if err != nil {
		return nil, err
	}
	owner, err := a.Isolation.owner(r, in.User)
	spender, err2 := a.Isolation.spender(r)
	if err := cmp.Or(err, err2); err != nil {
		return nil, err
	}
	only, err := boundSession(r)
	if err != nil {
		return nil, err
	}
	in.SessionID = cmp.Or(only, in.SessionID) // the token is valid for this session only
	r.audit.Object("session", in.SessionID)
	key := in.Key
	in.Key = ""
	return &run.Input{
		AgentID: r.param("agent_id"), Owner: owner, SessionID: in.SessionID, Message: in.Message, Files: files,
		State: json.RawMessage(state), MaxState: r.bounds.Of(bound.SessionState),
		Metadata: json.RawMessage(metadata), Streamed: in.Stream, Caller: callerOf(r),
		Spender: spender, Request: requestOf(key, *in),
	}, nil
}

// eventsOf returns the events of a run, which begins when they are read. It is not inlined, because the input would be
// on the stack of create, which is below a stream for as long as that is open.
//
//go:noinline
func (a Runs) eventsOf(r *request, in *run.Input) iter.Seq2[run.Event, error] {
	return a.Runner.Run(r.Context(), *in)
}

// start answers 202 once the run is stored. Another process may execute it.
func (a Runs) start(w http.ResponseWriter, r *request, in *run.Input) error {
	accepted, err := a.Runner.Start(r.Context(), *in)
	if err != nil {
		return err
	}
	return accept(w, r, accepted)
}

// accept answers 202 with the ids of the run and its session. With them the client can
// read the run later.
func accept(w http.ResponseWriter, r *request, accepted wire.Accepted) error {
	logging.Note(r.Context(), "run_id", accepted.RunID)
	r.audit.Object("run", accepted.RunID)
	return writeJSON(w, http.StatusAccepted, accepted)
}

// callerOf returns what is stored about the caller with the run. A process that executes
// the run later needs it to authorize the request again.
func callerOf(r *request) run.Caller {
	p := r.principal
	return run.Caller{
		Subject: p.Subject, Issuer: p.Issuer, Realm: p.Realm, SessionID: p.SessionID, Scopes: p.Scopes, Path: r.URL.Path,
		TokenID: p.TokenID, IssuedAt: unix(p.IssuedAt), Limits: p.Limits, Trace: trace.Parent(r.Context()),
	}
}

// unix returns t in Unix seconds, and 0 for the zero time.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// checkMedia rejects images, audio and videos, which AgentOS's client sends as JSON
// lists. Ignoring them would let the agent answer as if it had seen them. Empty lists
// are accepted: the client sends them by default.
func (in *createRun) checkMedia() error {
	for _, m := range []struct{ name, list string }{
		{"images", in.Images}, {"audio", in.Audio}, {"videos", in.Videos}, {"input_files", in.InputFiles},
	} {
		if list := strings.TrimSpace(m.list); list != "" && list != "[]" {
			detail := m.name + ": not supported. Agents of this server read only text; send text files in the field files."
			return fault.Public(fault.Invalid, detail, nil)
		}
	}
	return nil
}

// respond answers with the run's events, or with its result as JSON. A run that was
// handed over to another process before its end is answered 202, like a run in the
// background.
func (a Runs) respond(w http.ResponseWriter, r *request, events iter.Seq2[run.Event, error], streamed bool) error {
	if streamed {
		return a.stream(w, r, events)
	}
	for e, err := range events {
		if err != nil {
			return err
		}
		switch {
		case e.Result != nil:
			logging.Note(r.Context(), "run_id", e.Result.RunID)
			r.audit.Object("run", e.Result.RunID)
			out := borrow()
			out.text = wire.AppendRun(out.text, e.Result)
			return writeJSON(w, http.StatusOK, out)
		case e.HandedOver != nil:
			return accept(w, r, *e.HandedOver)
		}
	}
	return fmt.Errorf("the run ended without a result: %w", fault.Internal)
}

// textTypes are the media types besides text/… whose content is text. textExtensions are
// the file names that count as text when the client sends no media type, or the one
// that means any bytes.
var (
	textTypes      = []string{"application/json", "application/xml", "application/yaml", "application/x-yaml"}
	textExtensions = []string{
		"txt", "md", "csv", "tsv", "json", "xml", "yaml", "yml", "html", "htm", "css", "js", "py", "log", "toml", "ini",
	}
)

// textFiles converts the uploaded files. A file that is not UTF-8 text is rejected: an
// agent that answered without it would seem to have read it. The texts of the errors are
// AgentOS's where it has the same error.
func (a Runs) textFiles(files []input.File) ([]wire.File, error) {
	var out []wire.File
	for _, f := range files {
		extension := strings.ToLower(strings.TrimPrefix(path.Ext(f.Name), "."))
		isText := strings.HasPrefix(f.Type, "text/") || slices.Contains(textTypes, f.Type) ||
			(f.Type == "" || f.Type == "application/octet-stream") && slices.Contains(textExtensions, extension)
		switch {
		case !isText || !pgvalue.ValidText(string(f.Content)):
			return nil, fault.Public(fault.Invalid, "Unsupported file type", nil)
		case len(f.Content) == 0:
			return nil, fault.Public(fault.Invalid, "Empty file", nil)
		case !pgvalue.ValidText(f.Name) || len(f.Name) > bound.FileName.Default:
			return nil, bound.FileName.Fault(bound.FileName.Default, len(f.Name))
		}
		out = append(out, wire.File{
			ID: a.NewID().String(), MimeType: f.Type, Filename: f.Name, Format: extension, Content: string(f.Content),
		})
	}
	return out, nil
}

// runsOfSession is the input of GET /agents/{agent_id}/runs/{run_id}, and a part of
// listRuns.
type runsOfSession struct {
	SessionID string `query:"session_id" required:"true" bound:"short_text" doc:"The session of the runs."`
	User      string `query:"user_id" bound:"short_text" doc:"The owner of the session. Only callers allowed to see all users need it, when several users have a session with this id."`
}

// listRuns is the input of GET /agents/{agent_id}/runs.
type listRuns struct {
	runsOfSession
	pageOfRuns
	Status string `query:"status" bound:"short_text" doc:"Filter by the status of the run."`
}

// list answers the agent's runs in one session, oldest first. A session belongs to the
// agent that started it; for another agent it is a 404. An unknown status matches no
// run, as in AgentOS.
func (a Runs) list(ctx context.Context, r *request, in listRuns) ([]wire.Whole[wire.StoredRun], error) {
	viewer, q, err := a.query(r, in.runsOfSession)
	if err != nil {
		return nil, err
	}
	session, err := a.DB.Session(ctx, viewer, q.SessionID, q.Owner)
	r.audit.Object("session", q.SessionID)
	r.audit.Owner(session.Owner)
	if err == nil && text(session.AgentID) != q.AgentID {
		err = fault.NotFound
	}
	if err != nil {
		return nil, notFound(err, "Session not found")
	}
	q.Limit, q.Page = in.Limit, in.Page
	if q.Owner = session.Owner; in.Status != "" {
		q.Statuses = []string{strings.ToUpper(in.Status)}
	}
	runs, err := a.DB.Runs(ctx, viewer, q)
	if err != nil {
		return nil, err
	}
	out := make([]wire.Whole[wire.StoredRun], len(runs))
	for i, row := range runs {
		out[i].Value = storedRunOf(row)
	}
	return out, nil
}

// get answers one run. AgentOS leaves the session state out of a run in progress and the
// tools out of a run that called none, and always has an empty list of events.
func (a Runs) get(ctx context.Context, r *request, in runsOfSession) (wire.Run, error) {
	viewer, q, err := a.query(r, in)
	if err != nil {
		return wire.Run{}, err
	}
	q.RunID = r.param("run_id")
	row, err := a.DB.Run(ctx, viewer, q)
	r.audit.Owner(row.Owner)
	if err != nil {
		return wire.Run{}, notFound(err, "Run not found")
	}
	out := runOf(row)
	out.Events = json.RawMessage("[]")
	if string(row.Tools) == "[]" {
		out.Tools = nil
	}
	if !wire.Ended(row.Status) {
		out.SessionState = nil
	}
	return out, nil
}

// runOf converts a row to the run that POST …/runs answered with.
func runOf(row store.Run) wire.Run {
	return wire.Run{
		RunID: row.RunID.String(), AgentID: row.AgentID, AgentName: row.AgentName, SessionID: row.SessionID,
		UserID: row.Owner, Content: row.Content, ContentType: "str", ReasoningContent: row.ReasoningContent,
		ModelProviderData: row.ProviderData,
		Model:             row.ModelID, ModelProvider: row.ModelProvider, SessionState: row.SessionState,
		CreatedAt: row.CreatedAt.Unix(), Status: row.Status, CancellationStage: text(row.CancellationStage),
		Metrics: row.Metrics, Messages: row.Messages, Metadata: row.Metadata, Tools: row.Tools,
		Requirements: row.Requirements, Input: wire.RunInput{InputContent: row.Input, Files: row.Files},
	}
}

// query returns the viewer and the query for the runs of one session. AgentOS requires
// the session_id, although the id of a run is unique without it. An unknown agent is
// fault.NotFound.
func (a Runs) query(r *request, in runsOfSession) (store.Viewer, store.RunQuery, error) {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return viewer, store.RunQuery{}, err
	}
	q := store.RunQuery{AgentID: r.param("agent_id"), SessionID: in.SessionID, Owner: in.User}
	_, err = a.Agents.find(q.AgentID)
	return viewer, q, err
}

// cancelRun is the input of POST /agents/{agent_id}/runs/{run_id}/cancel.
type cancelRun struct {
	SessionID string `query:"session_id" bound:"short_text" doc:"The session of the run. Optional: the id of the run is enough."`
}

// cancel asks a run to stop. A paused run ends at once. A run that has ended stays as it
// is, and the answer is a success all the same. AgentOS answers {} for an unknown run
// too; callers limited to their own runs get a 404, so that an unknown run and a run
// of another owner look the same.
func (a Runs) cancel(ctx context.Context, r *request, in cancelRun) (nothing, error) {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return nothing{}, err
	}
	// The query has no agent: a run of another agent must not look like an unknown run to an
	// administrator, who would get a success although nothing was cancelled.
	q := store.RunQuery{RunID: r.param("run_id"), SessionID: in.SessionID}
	if _, err := a.Agents.find(r.param("agent_id")); err != nil {
		return nothing{}, err
	}
	head, err := a.DB.RunHead(ctx, viewer, q)
	r.audit.Owner(head.Owner)
	switch {
	case fault.KindOf(err) == fault.NotFound && viewer.All:
		return nothing{}, nil
	case err == nil && head.AgentID != r.param("agent_id"):
		err = fault.NotFound
	}
	if err != nil {
		return nothing{}, notFound(err, "Run not found")
	}
	_, err = a.Runner.Cancel(ctx, viewer, head.RunID)
	return nothing{}, err
}

// continueRun is the input of POST /agents/{agent_id}/runs/{run_id}/continue. The form is
// AgentOS's; session_id is not declared as required, because its absence is a 400 there
// and not a 422.
type continueRun struct {
	Tools        string `form:"tools" bound:"tool_results" doc:"A JSON array of the run's tool calls, each with the decision about it. A call without a decision is rejected."`
	ContinueFrom string `form:"continue_from" bound:"short_text" doc:"end, last_user or the index of a message. Without effect: a run always continues where it paused."`
	SessionID    string `form:"session_id" bound:"short_text" doc:"The session of the run. Required."`
	User         string `form:"user_id" bound:"short_text" doc:"Ignored: the run keeps its owner."`
	Stream       bool   `form:"stream" default:"true" doc:"Whether the answer is a stream of server-sent events. With false it is one JSON document."`
	Background   bool   `form:"background" default:"false" doc:"Accepted, and without effect: a run always continues when the client disconnects."`
	Input        string `form:"input" unsupported:"start another run in the session" doc:"Not supported: start another run in the session."`
	Fork         string `form:"fork" unsupported:"runs are not copied" means:"false" doc:"Not supported: runs are not copied."`
	Regenerate   string `form:"regenerate" unsupported:"a run that has ended stays as it is" means:"false" doc:"Not supported: a run that has ended stays as it is."`
	Replace      string `form:"replace_original" unsupported:"a run that has ended stays as it is" means:"false" doc:"Not supported: a run that has ended stays as it is."`
	Instructions string `form:"additional_instructions" unsupported:"start another run in the session" doc:"Not supported: start another run in the session."`
	Schema       string `form:"output_schema" unsupported:"answers are text" doc:"Not supported: answers are text."`
	Depends      string `form:"dependencies" unsupported:"agents have no dependencies" doc:"Not supported: agents have no dependencies."`
	Filters      string `form:"knowledge_filters" unsupported:"agents have no knowledge base" doc:"Not supported: agents have no knowledge base."`
	State        string `form:"session_state" unsupported:"change it with PATCH /sessions/{session_id}" doc:"Not supported: change it with PATCH /sessions/{session_id}."`
	Metadata     string `form:"metadata" unsupported:"a run keeps the metadata that it started with" doc:"Not supported: a run keeps the metadata that it started with."`
	Key          string `header:"Idempotency-Key" minlen:"1" bound:"idempotency_key" doc:"A text that the caller chooses. The same request to continue this run with the same key is answered with what the first one caused."`
}

// toolsFrom parses the tool calls of a request to continue a run. They are counted first: an empty call takes 200 times
// as much memory as its text.
func toolsFrom(text string) (list []wire.ToolExecution, err error) {
	invalid := fault.Public(fault.Invalid, "Invalid JSON in tools field", nil)
	if !json.Valid([]byte(text)) {
		return nil, invalid
	}
	count := 0
	for range strictjson.Root(text).Elements() {
		count++
	}
	if most := bound.ToolCalls.Default; count > most {
		return nil, fault.Fields(fault.Field{
			Type: "too_long", Loc: []any{"body", "tools"}, Msg: bound.ToolCalls.Exceeded(most, count),
			Ctx: fault.Members{{Name: "field_type", Value: "List"}, {Name: "max_length", Value: most},
				{Name: "actual_length", Value: count}},
		})
	}
	if json.Unmarshal([]byte(text), &list) != nil {
		return nil, invalid
	}
	return list, nil
}

// continuePaused continues a paused run with a person's decisions about its tool calls.
// The checks, their order and their texts are AgentOS's. A run that isn't paused is a 409
// (fault.Conflict): AgentOS runs a finished run again instead, and would then execute
// tools that a person has rejected.
func (a Runs) continuePaused(w http.ResponseWriter, r *request, in *continueRun) error {
	viewer, err := a.Isolation.viewer(r)
	spender, err2 := a.Isolation.spender(r)
	if err := cmp.Or(err, err2); err != nil {
		return err
	}
	if _, err := a.Agents.find(r.param("agent_id")); err != nil {
		return err
	}
	answers := run.Answers{}
	if in.Tools != "" {
		list, err := toolsFrom(in.Tools)
		if err != nil {
			return err
		}
		for _, decided := range list {
			if _, twice := answers[decided.ToolCallID]; twice {
				return fault.Public(fault.Invalid, "tools: has two decisions about "+fault.Short(decided.ToolCallID), nil)
			}
			answers[decided.ToolCallID] = decided
		}
	}
	switch from := in.ContinueFrom; {
	case in.SessionID == "":
		return fault.Public(fault.Invalid, "session_id is required for this action", nil)
	case from != "" && from != "end" && from != "last_user" && strings.Trim(from, "0123456789") != "":
		return fault.Public(fault.Invalid, "Invalid continue_from. Use 'end', 'last_user', or a numeric message index.", nil)
	}
	q := store.RunQuery{AgentID: r.param("agent_id"), RunID: r.param("run_id"), SessionID: in.SessionID}
	if viewer.All && r.audit != nil { // Only then the owner is not known. It decides nothing.
		head, _ := a.DB.RunHead(r.Context(), viewer, q)
		r.audit.Owner(head.Owner)
	}
	// continue_from was checked and is ignored: a paused run has one place to continue from.
	key := in.Key
	in.Key = ""
	decisions := run.Continuation{
		Answers: answers, Streamed: in.Stream, Caller: callerOf(r), Spender: spender,
		Request: requestOf(key, *in),
	}
	err = a.respond(w, r, a.Runner.Continue(r.Context(), viewer, q, decisions), in.Stream)
	if earlier, ok := errors.AsType[*store.Repeated](err); ok {
		return a.repeat(w, r, earlier, in.Stream, false)
	}
	if viewer.All {
		return notFound(err, "No runs found for run ID %s", q.RunID)
	}
	return notFound(err, "Run not found")
}
