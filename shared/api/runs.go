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

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/pgvalue"
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
	Now       func() time.Time
	NewID     func() uuid.UUID
}

func (a Runs) endpoints() []Endpoint {
	return []Endpoint{
		accepting[wire.Accepted](stream(route.CreateRun, a.create, reflect.TypeFor[wire.Run]())),
		answer(route.ListRuns, a.list),
		answer(route.GetRun, a.get),
		answer(route.CancelRun, a.cancel),
		accepting[wire.Accepted](stream(route.ContinueRun, a.goOn, reflect.TypeFor[wire.Run]())),
		stream(route.ResumeRun, a.resume),
		answer(route.MergeMemories, a.merge),
	}
}

type createRun struct {
	Message    string       `form:"message" required:"true" doc:"What to say to the agent."`
	Stream     bool         `form:"stream" default:"true" doc:"Answer as server-sent events; else one JSON document."`
	SessionID  string       `form:"session_id" maxbytes:"255" doc:"The session to go on with; a new one when absent."`
	User       string       `form:"user_id" maxbytes:"1024" doc:"Ignored when the token names its user."`
	Files      []input.File `form:"files" doc:"Text files for the agent to read."`
	Images     string       `form:"images" doc:"Refused: agents read text."`
	Audio      string       `form:"audio" doc:"Refused: agents read text."`
	Videos     string       `form:"videos" doc:"Refused: agents read text."`
	InputFiles string       `form:"input_files" doc:"Refused: send files."`
	Background bool         `form:"background" default:"false" doc:"Go on when the caller is gone; without stream, answer 202 at once."`
	State      string       `form:"session_state" doc:"A JSON object that is merged into the session's state."`
	Metadata   string       `form:"metadata" doc:"A JSON object of the caller's own."`
	Version    int          `form:"version" doc:"Taken and left alone: agents have no versions."`
	Key        string       `header:"Idempotency-Key" maxbytes:"512" doc:"Of the caller's making: the same request with the same key is answered with the run that it began before."`
}

// create runs an agent: as server-sent events, or with stream=false as one JSON
// answer. Everything that can be a 4xx is one before the run begins.
func (a Runs) create(w http.ResponseWriter, r *request, in createRun) error {
	state, err := input.ObjectFrom(in.State, "body", "session_state")
	metadata, err2 := input.ObjectFrom(in.Metadata, "body", "metadata")
	if err := cmp.Or(err, err2); err != nil {
		return err
	}
	if err := in.noMedia(); err != nil {
		return err
	}
	files, err := a.textFiles(in.Files)
	if err != nil {
		return err
	}
	owner, err := a.Isolation.owner(r, in.User)
	if err != nil {
		return err
	}
	if r.principal.SessionID != "" { // the token is bound to one session
		in.SessionID = r.principal.SessionID
	}
	request := run.Input{
		AgentID: r.param("agent_id"), Owner: owner, SessionID: in.SessionID, Message: in.Message, Files: files,
		State: json.RawMessage(state), Metadata: json.RawMessage(metadata), Streamed: in.Stream, Caller: callerOf(r),
		Request: in.request(),
	}
	if in.Background && !in.Stream {
		err = a.start(w, r, request)
	} else {
		err = a.tell(w, r, a.Runner.Run(r.Context(), request), in.Stream)
	}
	if before, ok := errors.AsType[*store.Repeated](err); ok {
		return a.repeat(w, r, in, before.Run)
	}
	return err
}

// start answers 202 as soon as the run is recorded.
func (a Runs) start(w http.ResponseWriter, r *request, in run.Input) error {
	accepted, err := a.Runner.Start(r.Context(), in)
	if err != nil {
		return err
	}
	return accept(w, r, accepted)
}

func accept(w http.ResponseWriter, r *request, accepted wire.Accepted) error {
	logging.Note(r.Context(), "run_id", accepted.RunID)
	return writeJSON(w, http.StatusAccepted, accepted)
}

// callerOf is who was admitted, for whoever carries the run later.
func callerOf(r *request) run.Caller {
	p := r.principal
	return run.Caller{Subject: p.Subject, Issuer: p.Issuer, SessionID: p.SessionID, Scopes: p.Scopes, Path: r.URL.Path}
}

// noMedia refuses what AgentOS's client sends of media as JSON, rather than leaving it
// out of what the agent hears.
func (in createRun) noMedia() error {
	for _, m := range []struct{ name, list string }{
		{"images", in.Images}, {"audio", in.Audio}, {"videos", in.Videos}, {"input_files", in.InputFiles},
	} {
		if list := strings.TrimSpace(m.list); list != "" && list != "[]" {
			return fault.Public(fault.Invalid, m.name+" can't be read by the agents of this server; send text as files", nil)
		}
	}
	return nil
}

// tell answers with a run's events, or with what came of it.
func (a Runs) tell(w http.ResponseWriter, r *request, events iter.Seq2[run.Event, error], streamed bool) error {
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
			return writeJSON(w, http.StatusOK, e.Result)
		case e.HandedOver != nil: // as if it had been asked to run in the background
			return accept(w, r, *e.HandedOver)
		}
	}
	return fmt.Errorf("the run ended without a result: %w", fault.Internal)
}

// What holds text besides text/…: by media type, or by the name's extension where
// the type says nothing.
var (
	textTypes      = []string{"application/json", "application/xml", "application/yaml", "application/x-yaml"}
	textExtensions = []string{"txt", "md", "csv", "tsv", "json", "xml", "yaml", "yml", "html", "htm", "css", "js", "py", "log", "toml", "ini"}
)

// textFiles takes the files whose content is text. What the agent could not read
// is refused rather than left out.
func (a Runs) textFiles(files []input.File) ([]wire.File, error) {
	var out []wire.File
	for _, f := range files {
		extension := strings.ToLower(strings.TrimPrefix(path.Ext(f.Name), "."))
		isText := strings.HasPrefix(f.Type, "text/") || slices.Contains(textTypes, f.Type) ||
			(f.Type == "" || f.Type == "application/octet-stream") && slices.Contains(textExtensions, extension)
		switch {
		case !isText || !pgvalue.ValidText(string(f.Content)):
			return nil, fault.Public(fault.Invalid, "Unsupported file type", fmt.Errorf("files: %q of type %q is not UTF-8 text", f.Name, f.Type))
		case len(f.Content) == 0:
			return nil, fault.Public(fault.Invalid, "Empty file", nil)
		case !pgvalue.ValidText(f.Name) || len(f.Name) > store.MaxSessionID:
			return nil, fault.Public(fault.Invalid, "files: a file's name must be valid UTF-8 of at most 255 bytes", nil)
		}
		out = append(out, wire.File{ID: a.NewID().String(), MimeType: f.Type, Filename: f.Name, Format: extension, Content: string(f.Content)})
	}
	return out, nil
}

type runsOfSession struct {
	SessionID string `query:"session_id" required:"true" maxbytes:"1024" doc:"The session whose runs are asked for."`
	User      string `query:"user_id" maxbytes:"1024" doc:"Whose session, for who may see everybody's."`
}

type listRuns struct {
	runsOfSession
	Status string `query:"status" maxbytes:"1024" doc:"Only runs in this state."`
}

// list answers the runs of one session of the agent.
func (a Runs) list(ctx context.Context, r *request, in listRuns) ([]wire.Whole[wire.StoredRun], error) {
	viewer, q, err := a.query(r, in.runsOfSession)
	if err != nil {
		return nil, err
	}
	session, err := a.DB.Session(ctx, viewer, q.SessionID, q.Owner)
	if err == nil && text(session.AgentID) != q.AgentID {
		err = fault.NotFound // a session belongs to the agent that began it
	}
	if err != nil {
		return nil, notFound(err, "Session not found")
	}
	if q.Owner = session.Owner; in.Status != "" {
		q.Statuses = []string{strings.ToUpper(in.Status)}
	}
	runs, err := a.DB.Runs(ctx, viewer, q)
	if err != nil {
		return nil, err
	}
	out := make([]wire.Whole[wire.StoredRun], len(runs))
	for i, row := range runs {
		out[i].Value = storedRun(row)
	}
	return out, nil
}

func (a Runs) get(ctx context.Context, r *request, in runsOfSession) (wire.Run, error) {
	viewer, q, err := a.query(r, in)
	if err != nil {
		return wire.Run{}, err
	}
	q.RunID = r.param("run_id")
	row, err := a.DB.Run(ctx, viewer, q)
	if err != nil {
		return wire.Run{}, notFound(err, "Run not found")
	}
	out := whole(row)
	out.Events = json.RawMessage("[]")
	if string(row.Tools) == "[]" {
		out.Tools = nil
	}
	if !wire.Ended(row.Status) {
		out.SessionState = nil // as AgentOS shows a run in progress
	}
	return out, nil
}

// whole is a run as its first answer has it.
func whole(row store.Run) wire.Run {
	return wire.Run{
		RunID: row.RunID.String(), AgentID: row.AgentID, AgentName: row.AgentName, SessionID: row.SessionID, UserID: row.Owner,
		Content: row.Content, ContentType: "str", ModelProviderData: row.ProviderData, Model: row.ModelID, ModelProvider: row.ModelProvider,
		SessionState: row.SessionState, CreatedAt: row.CreatedAt.Unix(), Status: row.Status, CancellationStage: text(row.CancellationStage),
		Metrics: row.Metrics, Messages: row.Messages, Metadata: row.Metadata, Tools: row.Tools,
		Requirements: row.Requirements, Input: wire.RunInput{InputContent: row.Input, Files: row.Files},
	}
}

// query reads which session's runs are asked for; AgentOS demands the session.
func (a Runs) query(r *request, in runsOfSession) (store.Viewer, store.RunQuery, error) {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return viewer, store.RunQuery{}, err
	}
	q := store.RunQuery{AgentID: r.param("agent_id"), SessionID: in.SessionID, Owner: in.User}
	_, err = a.Agents.find(q.AgentID)
	return viewer, q, err
}

type cancelRun struct {
	SessionID string `query:"session_id" maxbytes:"1024" doc:"The run's session; not needed."`
}

// cancel asks a run to stop; one that has ended stays as it is. Who sees
// everything gets AgentOS's {} for an unknown run too.
func (a Runs) cancel(ctx context.Context, r *request, in cancelRun) (nothing, error) {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return nothing{}, err
	}
	q := store.RunQuery{RunID: r.param("run_id"), SessionID: in.SessionID}
	if _, err := a.Agents.find(r.param("agent_id")); err != nil {
		return nothing{}, err
	}
	row, err := a.DB.Run(ctx, viewer, q)
	switch {
	case fault.KindOf(err) == fault.NotFound && viewer.All:
		return nothing{}, nil
	case err == nil && row.AgentID != r.param("agent_id"):
		err = fault.NotFound
	}
	if err != nil {
		return nothing{}, notFound(err, "Run not found")
	}
	_, err = a.Runner.Cancel(ctx, viewer, row.RunID)
	return nothing{}, err
}

type continueRun struct {
	Tools        string `form:"tools" doc:"A JSON array of the run's tool calls with what was decided about each; what isn't decided is rejected."`
	ContinueFrom string `form:"continue_from" doc:"Only end: a run goes on where it paused."`
	SessionID    string `form:"session_id" maxbytes:"1024" doc:"The run's session."`
	User         string `form:"user_id" maxbytes:"1024" doc:"Ignored: the run belongs to who started it."`
	Stream       bool   `form:"stream" default:"true" doc:"Answer as server-sent events; else one JSON document."`
	Background   bool   `form:"background" default:"false" doc:"Taken and left alone: a run goes on when the caller is gone in any case."`
}

// goOn lets a paused run go on with what a person decided.
func (a Runs) goOn(w http.ResponseWriter, r *request, in continueRun) error {
	viewer, err := a.Isolation.viewer(r)
	if err != nil {
		return err
	}
	if _, err := a.Agents.find(r.param("agent_id")); err != nil {
		return err
	}
	answers := run.Answers{}
	if in.Tools != "" {
		var list []wire.ToolExecution
		if json.Unmarshal([]byte(in.Tools), &list) != nil {
			return fault.Public(fault.Invalid, "Invalid JSON in tools field", nil)
		}
		for _, decided := range list {
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
	err = a.tell(w, r, a.Runner.Continue(r.Context(), viewer, q, run.Continuation{Answers: answers, Streamed: in.Stream, Caller: callerOf(r)}), in.Stream)
	if viewer.All {
		return notFound(err, "No runs found for run ID %s", q.RunID)
	}
	return notFound(err, "Run not found")
}
