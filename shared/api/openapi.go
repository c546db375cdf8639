package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

//go:generate go test -run TestTheDocumentsAreThoseOfTheRoutes -update .

// OpenAPI is the document that GET /openapi.json answers, made of the route table
// and the endpoints' types. It is made when the code is generated, not when it is
// asked for.
func OpenAPI() []byte {
	data, err := wire.Marshal(documentOf())
	var out bytes.Buffer
	if err == nil {
		err = json.Indent(&out, data, "", " ")
	}
	if err != nil {
		panic(err) // a mistake in this file
	}
	out.WriteByte('\n')
	return out.Bytes()
}

// document is an OpenAPI 3.1 document, as far as it is needed.
type document struct {
	OpenAPI    string        `json:"openapi"`
	Info       info          `json:"info"`
	Tags       []tag         `json:"tags"`
	Paths      fault.Members `json:"paths"` // of fault.Members, of operation
	Components components    `json:"components"`
}

type info struct {
	Title       string  `json:"title"`
	Version     string  `json:"version"`
	Description string  `json:"description"`
	License     license `json:"license"`
}

type license struct {
	Name       string `json:"name"`
	Identifier string `json:"identifier"`
}

type tag struct {
	Name string `json:"name"`
}

type components struct {
	SecuritySchemes map[string]security  `json:"securitySchemes"`
	Responses       map[string]*response `json:"responses"`
	Schemas         map[string]*schema   `json:"schemas"`
}

type security struct {
	Type         string `json:"type"`
	Scheme       string `json:"scheme"`
	BearerFormat string `json:"bearerFormat"`
	Description  string `json:"description"`
}

type operation struct {
	OperationID string                `json:"operationId"`
	Tags        []route.Function      `json:"tags"`
	Summary     string                `json:"summary"`
	Security    []map[string][]string `json:"security"`
	Scopes      []string              `json:"x-keyway-scopes"`
	Parameters  []parameter           `json:"parameters,omitempty"`
	Body        *body                 `json:"requestBody,omitempty"`
	Responses   map[string]*response  `json:"responses"`
}

type parameter struct {
	Name        string  `json:"name"`
	In          string  `json:"in"`
	Required    bool    `json:"required,omitempty"`
	Description string  `json:"description,omitempty"`
	Schema      *schema `json:"schema"`
}

type body struct {
	Required bool             `json:"required"`
	Content  map[string]media `json:"content"`
}

type response struct {
	Ref         string           `json:"$ref,omitempty"`
	Description string           `json:"description,omitempty"`
	Content     map[string]media `json:"content,omitempty"`
}

type media struct {
	Schema *schema `json:"schema"` // of an event stream: of each event
}

// summaries say what a caller gets of a route.
var summaries = map[route.Name]string{
	route.Index:           "Where to go on from here",
	route.Health:          "That the server is there, and since when",
	route.Info:            "Which OS this is, and what it can do",
	route.OpenAPI:         "This document",
	route.Docs:            "This document, for people",
	route.Config:          "Models, databases and agents of the OS",
	route.ListAgents:      "The agents that the caller may read",
	route.GetAgent:        "One agent",
	route.ListTeams:       "Teams: there are none",
	route.ListWorkflows:   "Workflows: there are none",
	route.CreateRun:       "Run an agent",
	route.ListRuns:        "The runs of one session of the agent",
	route.GetRun:          "One run",
	route.CancelRun:       "Stop a run",
	route.ContinueRun:     "Let a paused run go on with what a person decided",
	route.ResumeRun:       "The events of a run again, and those that still come",
	route.ListSessions:    "The caller's sessions, page by page",
	route.CreateSession:   "Make a session",
	route.DeleteSessions:  "Delete several sessions; those that aren't there don't matter",
	route.GetSession:      "One session with its conversation",
	route.ChangeSession:   "Change a session",
	route.RenameSession:   "Give a session another name",
	route.DeleteSession:   "Delete a session; one that isn't there doesn't matter",
	route.SessionRuns:     "The runs of a session",
	route.SessionPreviews: "The runs of a session, shortened",
	route.SessionRun:      "One run of a session",
	route.ListMemories:    "The caller's memories, page by page",
	route.CreateMemory:    "Remember something",
	route.DeleteMemories:  "Delete several memories; those that aren't there don't matter",
	route.GetMemory:       "One memory",
	route.ChangeMemory:    "Rewrite a memory",
	route.DeleteMemory:    "Delete a memory; one that isn't there doesn't matter",
	route.MemoryTopics:    "The topics of the caller's memories",
	route.MemoryStats:     "How many memories each user has",
}

// conflicting are the routes that can be refused for the state that something is in:
// a run that another process ended, a session id that two users have.
var conflicting = []route.Name{
	route.CreateRun, route.ListRuns, route.ContinueRun, route.CreateSession, route.DeleteSessions, route.GetSession, route.ChangeSession,
	route.RenameSession, route.DeleteSession, route.SessionRuns, route.SessionPreviews, route.SessionRun,
}

// events are what a stream of a run may hold.
var events = []any{
	wire.Started{}, wire.Content{}, wire.ContentOpened{}, wire.ModelCompleted{}, wire.ToolStarted{}, wire.ToolCompleted{}, wire.ToolFailed{},
	wire.Paused{}, wire.ContentCompleted{}, wire.Completed{}, wire.Failed{}, wire.Cancelled{}, wire.Meta{},
}

// documentOf describes the whole table.
func documentOf() document {
	s := &schemas{byName: map[string]*schema{}}
	d := document{OpenAPI: "3.1.0", Info: info{
		Title: "Keyway", Version: AgentOSVersion,
		Description: "Agents, runs, sessions and memories. The version is that of AgentOS, whose contract is kept.",
		License:     license{"Apache-2.0", "Apache-2.0"},
	}}
	endpoints := New(Options{}, OS{}, Agents{}, Runs{}, Sessions{}, Memories{}).endpoints
	for r := range route.Table.All() {
		if t := (tag{string(r.Function)}); !slices.Contains(d.Tags, t) {
			d.Tags = append(d.Tags, t)
		}
		i := slices.IndexFunc(d.Paths, func(m fault.Member) bool { return m.Name == r.Pattern })
		if i < 0 {
			i = len(d.Paths)
			d.Paths = append(d.Paths, fault.Member{Name: r.Pattern, Value: fault.Members{}})
		}
		d.Paths[i].Value = append(d.Paths[i].Value.(fault.Members), fault.Member{Name: strings.ToLower(r.Method), Value: s.operation(r, endpoints[r.Name])})
	}
	s.faults()
	s.stream()
	d.Components = components{
		SecuritySchemes: map[string]security{"bearer": {"http", "bearer", "JWT", "A token whose claims hold the scopes."}},
		Responses:       map[string]*response{}, Schemas: s.byName,
	}
	for status, name := range refusals {
		is := "Fault"
		switch status {
		case http.StatusForbidden:
			is = "Refusal"
		case http.StatusUnprocessableEntity:
			is = "Unprocessable"
		}
		d.Components.Responses[name] = &response{Description: http.StatusText(status), Content: ofJSON(&schema{Ref: "#/components/schemas/" + is})}
	}
	return d
}

func ofJSON(s *schema) map[string]media { return map[string]media{"application/json": {Schema: s}} }

// refusals are the answers besides success, by the names that they have in the
// document.
var refusals = map[int]string{
	http.StatusBadRequest:            "BadRequest",
	http.StatusUnauthorized:          "Unauthorized",
	http.StatusForbidden:             "Forbidden",
	http.StatusNotFound:              "NotFound",
	http.StatusConflict:              "Conflict",
	http.StatusRequestEntityTooLarge: "TooLarge",
	http.StatusUnprocessableEntity:   "Unprocessable",
	http.StatusInternalServerError:   "Internal",
	http.StatusServiceUnavailable:    "Unavailable",
}

// faults adds what package fault writes.
func (s *schemas) faults() {
	detail := fault.Member{Name: "detail", Value: typed("string")}
	place := &schema{AnyOf: []*schema{typed("string"), typed("integer")}}
	s.byName["Fault"] = &schema{Type: "object", Properties: fault.Members{detail}, Required: []string{"detail"}}
	s.byName["Refusal"] = &schema{Type: "object", Required: []string{"detail"}, Properties: fault.Members{
		detail,
		{Name: "missing", Value: &schema{Type: "array", Items: typed("string"), Description: "The scopes that the caller lacks."}},
		{Name: "decision_id", Value: &schema{Type: "string", Description: "The id of the request, which the log has too."}},
	}}
	s.byName["ValidationError"] = &schema{Type: "object", Required: []string{"type", "loc", "msg", "input"}, Properties: fault.Members{
		{Name: "type", Value: typed("string")},
		{Name: "loc", Value: &schema{Type: "array", Items: place}},
		{Name: "msg", Value: typed("string")},
		{Name: "input", Value: &schema{}},
		{Name: "ctx", Value: typed("object")},
	}}
	list := &schema{Type: "array", Items: &schema{Ref: "#/components/schemas/ValidationError"}}
	s.byName["Unprocessable"] = &schema{Type: "object", Required: []string{"detail"}, Properties: fault.Members{
		{Name: "detail", Value: &schema{AnyOf: []*schema{typed("string"), list}}},
	}}
}

// stream adds what each event of a stream is.
func (s *schemas) stream() {
	event := &schema{}
	for _, e := range events {
		event.AnyOf = append(event.AnyOf, s.ref(reflect.TypeOf(e)))
	}
	s.byName["RunEvent"] = event
	s.byName["ServerSentEvent"] = &schema{Type: "object", Required: []string{"event", "data"}, Properties: fault.Members{
		{Name: "event", Value: &schema{Type: "string", Description: "The name of the event, which is also in its data."}},
		{Name: "data", Value: &schema{Type: "string", ContentMediaType: "application/json", ContentSchema: &schema{Ref: "#/components/schemas/RunEvent"}}},
		{Name: "id", Value: &schema{Type: "string", Description: "Its event_index, for who resumes with Last-Event-ID."}},
	}}
}

// operation describes one route.
func (s *schemas) operation(r *route.Route, e endpoint) operation {
	op := operation{
		OperationID: string(r.Name), Tags: []route.Function{r.Function}, Summary: summaries[r.Name],
		Security: []map[string][]string{}, Scopes: []string{}, Responses: s.answers(e),
	}
	if op.Summary == "" {
		panic("api: no summary of " + r.String())
	}
	if !r.Public {
		op.Security = append(op.Security, map[string][]string{"bearer": {}})
	}
	for _, n := range r.Needs {
		op.Scopes = append(op.Scopes, n.String())
	}
	r.Path(func(name string) string {
		op.Parameters = append(op.Parameters, parameter{Name: name, In: "path", Required: true, Schema: &schema{Type: "string", MinLength: 1}})
		return ""
	})
	for _, f := range fields(e.in, "query") {
		p := parameter{Name: f.Tag.Get("query"), In: "query", Required: f.Tag.Get("required") != "", Schema: inputOf(f, "query")}
		p.Description, p.Schema.Description = p.Schema.Description, ""
		op.Parameters = append(op.Parameters, p)
	}
	op.Body = bodyOf(e.in)
	for _, status := range op.refused(r) {
		op.Responses[strconv.Itoa(status)] = &response{Ref: "#/components/responses/" + refusals[status]}
	}
	return op
}

// refused are the statuses besides success that the route can answer.
func (op operation) refused(r *route.Route) (out []int) {
	if r.Public {
		return nil
	}
	out = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusInternalServerError, http.StatusServiceUnavailable}
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
	return out
}

// answers are those of success.
func (s *schemas) answers(e endpoint) map[string]*response {
	answer := &response{Description: http.StatusText(e.status), Content: map[string]media{}}
	is := &schema{}
	for _, t := range e.out {
		is.AnyOf = append(is.AnyOf, s.of(t, ""))
	}
	if len(is.AnyOf) == 1 {
		is = is.AnyOf[0]
	}
	switch {
	case e.media != "":
		answer.Content[e.media] = media{Schema: typed(map[bool]string{true: "object", false: "string"}[e.media == "application/json"])}
	case len(e.out) > 0:
		answer.Content = ofJSON(is)
	}
	if e.streams {
		answer.Content["text/event-stream"] = media{Schema: &schema{Ref: "#/components/schemas/ServerSentEvent"}}
	}
	out := map[string]*response{strconv.Itoa(e.status): answer}
	if e.accepts != nil {
		out[strconv.Itoa(http.StatusAccepted)] = &response{Description: "It goes on in the background.", Content: ofJSON(s.of(e.accepts, ""))}
	}
	return out
}

// bodyOf describes the body that is read into t, nil without one.
func bodyOf(t reflect.Type) *body {
	if form := fields(t, "form"); len(form) > 0 {
		is := membersOf(form, "form")
		encoded := *is
		encoded.Properties = slices.DeleteFunc(slices.Clone(is.Properties), func(m fault.Member) bool { return m.Name == "files" })
		return &body{Required: len(is.Required) > 0, Content: map[string]media{
			"multipart/form-data": {Schema: is}, "application/x-www-form-urlencoded": {Schema: &encoded},
		}}
	}
	for _, f := range fields(t, "body") {
		inner, optional := f.Type, f.Type.Kind() == reflect.Pointer
		if optional {
			inner = inner.Elem()
		}
		is := membersOf(fields(inner, "json"), "json")
		if optional {
			is = orNull(is)
		}
		return &body{Required: !optional, Content: ofJSON(is)}
	}
	return nil
}

// membersOf is the object that the fields make. In JSON what isn't required may be
// null, which counts as absent.
func membersOf(list []reflect.StructField, place string) *schema {
	out := typed("object")
	for _, f := range list {
		name, is := f.Tag.Get(place), inputOf(f, place)
		switch {
		case f.Tag.Get("required") != "":
			out.Required = append(out.Required, name)
		case place == "json":
			is = orNull(is)
		}
		out.Properties = append(out.Properties, fault.Member{Name: name, Value: is})
	}
	return out
}

// each yields the operations with their methods and paths, in the table's order.
func (d document) each(yield func(method, path string, op operation)) {
	for _, path := range d.Paths {
		for _, m := range path.Value.(fault.Members) {
			yield(strings.ToUpper(m.Name), path.Name, m.Value.(operation))
		}
	}
}

// statuses are the answers of the operation, in order.
func (op operation) statuses() []string { return slices.Sorted(maps.Keys(op.Responses)) }
