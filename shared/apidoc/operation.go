package apidoc

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/input"
	"github.com/keyway-agents/keyway/shared/route"
)

// operation is OpenAPI's operation object: one route. x-keyway-scopes lists the
// scopes that the caller needs, all of them. It is an extension, because OpenAPI 3.1
// defines scopes for OAuth 2.0 and OpenID Connect only, not for a bearer token.
type operation struct {
	OperationID string                `json:"operationId"`
	Tags        []route.Function      `json:"tags"` // one: the route's function
	Summary     string                `json:"summary"`
	Description string                `json:"description,omitempty"` // of the route of a door: when it is closed
	Security    []map[string][]string `json:"security"`              // empty for a public route
	Scopes      []string              `json:"x-keyway-scopes"`
	Parameters  []parameter           `json:"parameters,omitempty"`
	Body        *body                 `json:"requestBody,omitempty"`
	Responses   map[string]*response  `json:"responses"` // by status
}

// parameter is OpenAPI's parameter object. Parameters of the path come first, in the order
// of the path.
type parameter struct {
	Name        string  `json:"name"`
	In          string  `json:"in"` // path, query or header
	Required    bool    `json:"required,omitempty"`
	Description string  `json:"description,omitempty"`
	Schema      *schema `json:"schema"`
}

// body is OpenAPI's request body object. A form is required if one of its fields is. A
// JSON body is required unless its Go field is a pointer.
type body struct {
	Required bool             `json:"required"`
	Content  map[string]media `json:"content"` // by media type
}

// response is OpenAPI's response object, or a reference to one of the components. A
// reference has no other member.
type response struct {
	Ref         string           `json:"$ref,omitempty"`
	Description string           `json:"description,omitempty"`
	Content     map[string]media `json:"content,omitempty"` // by media type
}

// media is OpenAPI's media type object.
type media struct {
	Schema   *schema            `json:"schema"` // for an event stream: the schema of each event
	Examples map[string]example `json:"examples,omitempty"`
}

// example is OpenAPI's example object. The value keeps the order of its members, because
// people read it.
type example struct {
	Value object[any] `json:"value"`
}

// summaries has one line for each route. A route without one stops the generator.
var summaries = map[route.Name]string{
	route.Index:            "Entry points of this server",
	route.Health:           "Liveness check and start time",
	route.HealthHead:       "Liveness check without a body",
	route.Ready:            "Readiness check: whether the database answers and has the right schema",
	route.ReadyHead:        "Readiness check without a body",
	route.Info:             "Server identity and capabilities",
	route.OpenAPI:          "This API as an OpenAPI 3.1 document",
	route.Docs:             "Human-readable API reference",
	route.Console:          "The web console; without the slash at the end, a redirect to it",
	route.ConsoleFile:      "A file of the web console",
	route.Config:           "Models, databases and agents of the OS",
	route.WhoAmI:           "What this server reads in the caller's token",
	route.Can:              "What the caller's token opens, and why",
	route.ListAgents:       "List the agents that the caller is allowed to read",
	route.GetAgent:         "Get one agent",
	route.ListTeams:        "List teams (always empty)",
	route.ListWorkflows:    "List workflows (always empty)",
	route.CreateRun:        "Run an agent",
	route.ListRuns:         "List the agent's runs in one session",
	route.GetRun:           "Get one run",
	route.CancelRun:        "Cancel a run",
	route.ContinueRun:      "Continue a paused run with a person's decisions",
	route.ResumeRun:        "Replay the events of a run, then follow it to its end",
	route.AGUIRun:          "Run an agent by AG-UI, continue a paused run, or read the events of a run again",
	route.ListSessions:     "List the caller's sessions, page by page",
	route.CreateSession:    "Create a session",
	route.DeleteSessions:   "Delete several sessions; missing ones are ignored",
	route.GetSession:       "Get one session with its conversation",
	route.ChangeSession:    "Update a session",
	route.RenameSession:    "Rename a session",
	route.DeleteSession:    "Delete a session; a missing one is ignored",
	route.SessionRuns:      "List the runs of a session",
	route.SessionPreviews:  "List the runs of a session with shortened texts",
	route.SessionRun:       "Get one run of a session",
	route.ListMemories:     "List the caller's memories, page by page",
	route.CreateMemory:     "Create a memory",
	route.DeleteMemories:   "Delete several memories; missing ones are ignored",
	route.GetMemory:        "Get one memory",
	route.ChangeMemory:     "Update a memory",
	route.DeleteMemory:     "Delete a memory; a missing one is ignored",
	route.MemoryTopics:     "List the topics of the caller's memories",
	route.MemoryStats:      "Count the memories of each user",
	route.MCPCall:          "One message of a client of the Model Context Protocol",
	route.MCPResource:      "Where clients of the Model Context Protocol get tokens (RFC 9728)",
	route.MCPResourceRoot:  "The same, for clients that ask at the root",
	route.MergeMemories:    "Merge all memories of a user into one with a model",
	route.Metrics:          "Runs, sessions, users and tokens by day",
	route.RefreshMetrics:   "The same for the last 30 days; nothing needs a refresh",
	route.RefreshStatus:    "State of the metrics (always up to date)",
	route.Models:           "List the agents that the caller is allowed to run (OpenAI's API)",
	route.Model:            "Get one agent (OpenAI's API)",
	route.AISDKRun:         "Run an agent for a page that uses AI SDK, or continue a paused run",
	route.AISDKResume:      "Read the answer that is in progress again, for a page that uses AI SDK",
	route.Completions:      "Run an agent (OpenAI's chat completions)",
	route.Responses:        "Run an agent (OpenAI's responses)",
	route.Response:         "Get a run as a response, or its events (OpenAI's API)",
	route.DeleteResponse:   "Delete a run that has ended (OpenAI's API)",
	route.CancelResponse:   "Cancel a run (OpenAI's API)",
	route.ListRevocations:  "List the revoked tokens, page by page",
	route.Revoke:           "Revoke one token, or the tokens of a subject",
	route.UndoRevocation:   "Undo a revocation",
	route.ListActiveRuns:   "List the runs of all users that have not ended, page by page",
	route.Decisions:        "Read the newest lines of the log of decisions (keyway serve only)",
	route.Diff:             "Compare another keyway.yaml with the log of decisions (keyway serve only)",
	route.DevToken:         "Sign a token to try (keyway serve --dev only, for its own pages)",
	route.DevSignIn:        "Exchange the printed code for a token (keyway serve --dev only, for its own pages)",
	route.Usage:            "Runs, tokens and cost by day, agent, user and model, page by page",
	route.CancelActiveRuns: "Cancel all runs of a user, or of all users, at most 1,000 in a request",
	route.ExportUserData:   "Read all data of a user as JSON Lines, page by page",
	route.EraseUserData:    "Delete all data of a user, at most 1,000 sessions and 20,000 memories in a request",
}

// conflicting lists the routes that can answer 409, because of the state of a row:
// another process ended the run, or several users have a session with the id. Neither
// the table nor the types show that.
var conflicting = []route.Name{
	route.CreateRun, route.ListRuns, route.ContinueRun, route.AGUIRun, route.AISDKRun, route.CreateSession,
	route.DeleteSessions,
	route.GetSession, route.ChangeSession, route.RenameSession, route.DeleteSession, route.SessionRuns,
	route.SessionPreviews, route.SessionRun, route.MergeMemories, route.Revoke, route.DevToken, route.EraseUserData,
	route.Completions, route.Responses, route.DeleteResponse,
}

// probing lists the public routes whose answer depends on the database.
var probing = []route.Name{route.Ready, route.ReadyHead}

// examples holds example bodies of requests, by route and by the name that documentation
// pages show. The three examples of CreateRun get answers of different kinds: a stream, a
// JSON document, and a 202.
var examples = map[route.Name]map[string]example{
	route.CreateRun: {
		"streamed": {object[any]{{"message", "Hello"}}},
		"whole": {object[any]{
			{"message", "Hello"}, {"stream", false}, {"session_state", `{"language": "en"}`},
		}},
		"background": {object[any]{{"message", "Hello"}, {"stream", false}, {"background", true}}},
	},
	route.CreateMemory: {
		"remembered": {object[any]{{"memory", "Likes tea"}, {"topics", []string{"drinks"}}}},
	},
}

// operation describes one route. The scopes and the path come from the table, the inputs
// and the body of success from the endpoint's types, and the error statuses from both. It
// panics when the route has no summary.
func (s *schemas) operation(r *route.Route, e api.Endpoint) operation {
	op := operation{
		OperationID: string(r.Name), Tags: []route.Function{r.Function}, Summary: summaries[r.Name],
		Security: []map[string][]string{}, Scopes: []string{}, Responses: s.successes(r, e),
	}
	if op.Summary == "" {
		panic("apidoc: no summary of " + r.String())
	}
	if r.Door != "" { // the document is the same for all deployments
		op.Description = "Answers 404 while the door " + string(r.Door) + " is closed: see doors in keyway.yaml."
	}
	if !r.Public {
		op.Security = append(op.Security, map[string][]string{"bearer": {}})
	}
	// These are the defaults of the table. scope_mappings in keyway.yaml can replace them in
	// one deployment, but the document is the same for all.
	for _, n := range r.Decides().Needs {
		op.Scopes = append(op.Scopes, n.String())
	}
	if r.Admin {
		op.Scopes = []string{"agent_os:admin"} // the default of admin_scope; no mapping replaces it
	}
	r.Path(func(name string) string {
		op.Parameters = append(op.Parameters, parameter{ // an empty segment matches no route
			Name: name, In: "path", Required: true, Schema: &schema{Type: "string", MinLength: 1},
		})
		return ""
	})
	// Authorization is no parameter: OpenAPI has it in the security scheme.
	for _, place := range []string{"query", "header"} {
		for _, f := range fields(e.In, place) {
			p := parameter{
				Name: f.Tag.Get(place), In: place, Required: f.Tag.Get("required") != "", Schema: inputSchema(f, place),
			}
			// A parameter has a description of its own, so its schema needs none.
			p.Description, p.Schema.Description = p.Schema.Description, ""
			op.Parameters = append(op.Parameters, p)
		}
	}
	// A media in the map can't be changed in place, so the one with the examples replaces it.
	if e.Reads == "application/json" {
		op.Body = &body{Required: true, Content: map[string]media{e.Reads: {Schema: typed("object")}}}
	} else if e.Reads != "" {
		op.Body = &body{Required: true, Content: map[string]media{e.Reads: {Schema: typed("string")}}}
	} else if op.Body = bodyOf(e.In); op.Body != nil {
		for kind, m := range op.Body.Content {
			op.Body.Content[kind] = media{m.Schema, examples[r.Name]}
		}
	}
	if r.Name == route.Console {
		op.Responses["307"] = &response{Description: "The header Location has the address with the slash at the end."}
	}
	for _, status := range op.errorStatuses(r) {
		if r.Method == http.MethodHead { // the shared responses have a body
			op.Responses[strconv.Itoa(status)] = &response{Description: http.StatusText(status)}
			continue
		}
		name := errorResponses[status]
		if r.Door == route.OpenAI {
			name = openAIError
		}
		op.Responses[strconv.Itoa(status)] = &response{Ref: "#/components/responses/" + name}
	}
	return op
}

// limited are the routes that begin or continue a run, ask a model, or follow a run: limits apply to these.
var limited = []route.Name{
	route.CreateRun, route.ContinueRun, route.ResumeRun, route.AGUIRun, route.AISDKRun, route.AISDKResume,
	route.MergeMemories, route.Completions,
	route.Responses, route.Response, route.CancelResponse, route.MCPCall,
}

// namesAgent are the routes of OpenAI's API whose agent is in the body.
var namesAgent = []route.Name{route.Completions, route.Responses}

// errorStatuses lists the statuses besides success that the route can answer. They
// follow from what the route reads: authentication and the database give 401, 403,
// 500 and 503, an id gives 404, a body 413, and any checked input 400 and 422, in OpenAI's API 400 alone.
func (op operation) errorStatuses(r *route.Route) (out []int) {
	if slices.Contains(probing, r.Name) {
		return []int{http.StatusServiceUnavailable}
	}
	if r.Name == route.DevSignIn {
		return []int{
			http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict,
			http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity,
		}
	}
	if r.Public { // these answer from memory: nothing in them can fail, except that a file is not there
		if len(op.Parameters) > 0 {
			return []int{http.StatusNotFound}
		}
		return nil
	}
	out = []int{
		http.StatusUnauthorized, http.StatusForbidden, http.StatusInternalServerError, http.StatusServiceUnavailable,
	}
	if r.AnyToken { // no scope is missing
		out = slices.DeleteFunc(out, func(status int) bool { return status == http.StatusForbidden })
	}
	if slices.ContainsFunc(op.Parameters, func(p parameter) bool { return p.In == "path" || p.Name == "db_id" }) {
		out = append(out, http.StatusNotFound)
	}
	if op.Body != nil {
		out = append(out, http.StatusRequestEntityTooLarge)
	}
	if op.Body != nil || slices.ContainsFunc(op.Parameters, func(p parameter) bool { return p.In == "query" }) {
		out = append(out, http.StatusBadRequest, http.StatusUnprocessableEntity)
	}
	if slices.Contains(conflicting, r.Name) {
		out = append(out, http.StatusConflict)
	}
	if slices.Contains(limited, r.Name) {
		out = append(out, http.StatusTooManyRequests)
	}
	if slices.Contains(namesAgent, r.Name) {
		out = append(out, http.StatusNotFound)
	}
	if r.Name == route.UndoRevocation { // its token or subject is in the body
		out = append(out, http.StatusNotFound)
	}
	if r.Name == route.MergeMemories {
		// The user is in the body, not in the path, and may have no memories: 404. The
		// route calls a model, which can fail: 502.
		out = append(out, http.StatusNotFound, http.StatusBadGateway)
	}
	if r.Door == route.OpenAI {
		out = slices.DeleteFunc(out, func(status int) bool { return status == http.StatusUnprocessableEntity })
	}
	return out
}

// successes describes the answers of success by their status: one, or two for an
// endpoint that may answer 202 or 204 as well.
func (s *schemas) successes(r *route.Route, e api.Endpoint) map[string]*response {
	success := &response{Description: http.StatusText(e.Status), Content: map[string]media{}}
	// A session is answered as one of three types; every other endpoint has one type.
	one := &schema{}
	for _, t := range e.Out {
		one.AnyOf = append(one.AnyOf, s.of(t, ""))
	}
	if len(one.AnyOf) == 1 {
		one = one.AnyOf[0]
	}
	switch {
	case e.Media == "application/json":
		success.Content[e.Media] = media{Schema: typed("object")}
	case e.Media != "":
		success.Content[e.Media] = media{Schema: typed("string")}
	case len(e.Out) > 0:
		success.Content = jsonContent(one)
	}
	if e.Streams {
		success.Content["text/event-stream"] = media{Schema: refTo("ServerSentEvent")}
		if r.Door != "" { // its protocol describes them
			success.Content["text/event-stream"] = media{Schema: typed("string")}
		}
	}
	out := map[string]*response{strconv.Itoa(e.Status): success}
	if e.Nothing != "" {
		out[strconv.Itoa(http.StatusNoContent)] = &response{Description: e.Nothing}
	}
	if e.Accepts != nil {
		out[strconv.Itoa(http.StatusAccepted)] = &response{
			Description: "The run continues in the background.", Content: jsonContent(s.of(e.Accepts, "")),
		}
	}
	return out
}

// bodyOf describes the body that package input reads into a t: a form or JSON. Nil
// when t has no body. A form may be multipart or urlencoded, as AgentOS's clients send
// the one or the other.
func bodyOf(t reflect.Type) *body {
	if form := fields(t, "form"); len(form) > 0 {
		multipart := objectOf(form, "form")
		encoded := *multipart // an urlencoded form can't contain files
		encoded.Properties = slices.DeleteFunc(slices.Clone(multipart.Properties),
			func(m member[*schema]) bool { return m.name == "files" })
		return &body{Required: len(multipart.Required) > 0, Content: map[string]media{
			"multipart/form-data": {Schema: multipart}, "application/x-www-form-urlencoded": {Schema: &encoded},
		}}
	}
	f := fields(t, "body")
	if len(f) == 0 {
		return nil
	}
	if f[0].Type == reflect.TypeFor[input.Document]() {
		whole := typed("object")
		whole.Description = f[0].Tag.Get("doc")
		return &body{Required: true, Content: jsonContent(whole)}
	}
	// A pointer means that the body may be absent; package input accepts null as well.
	if inner := f[0].Type; inner.Kind() == reflect.Pointer {
		return &body{Content: jsonContent(orNull(objectOf(fields(inner.Elem(), "json"), "json")))}
	}
	return &body{Required: true, Content: jsonContent(objectOf(fields(f[0].Type, "json"), "json"))}
}

// objectOf returns the schema of a body: an object whose members are the given input
// fields. In JSON an optional member may also be null, which package input treats like an
// absent one.
func objectOf(list []reflect.StructField, place string) *schema {
	out := typed("object")
	for _, f := range list {
		name, property := f.Tag.Get(place), inputSchema(f, place)
		switch {
		case f.Tag.Get("required") != "":
			out.Required = append(out.Required, name)
		case place == "json":
			property = orNull(property)
		}
		out.Properties = append(out.Properties, member[*schema]{name, property})
	}
	return out
}

// statuses lists the statuses of all answers, in order.
func (op operation) statuses() []string { return slices.Sorted(maps.Keys(op.Responses)) }

// content returns the body of one media type.
func (op operation) content(kind string) (m media, ok bool) {
	if op.Body != nil {
		m, ok = op.Body.Content[kind]
	}
	return m, ok
}
