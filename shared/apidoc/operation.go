package apidoc

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
)

// operation is one route in the OpenAPI document.
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
	Schema   *schema            `json:"schema"` // of an event stream: of each event
	Examples map[string]example `json:"examples,omitempty"`
}

type example struct {
	Value fault.Members `json:"value"`
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
	route.MergeMemories:   "Let a model make one memory of all of a user's",
}

// conflicting are the routes that can be refused for the state that something is in:
// a run that another process ended, a session id that two users have.
var conflicting = []route.Name{
	route.CreateRun, route.ListRuns, route.ContinueRun, route.CreateSession, route.DeleteSessions, route.GetSession, route.ChangeSession,
	route.RenameSession, route.DeleteSession, route.SessionRuns, route.SessionPreviews, route.SessionRun,
	route.MergeMemories,
}

// examples are bodies whose answers differ in kind.
var examples = map[route.Name]map[string]example{
	route.CreateRun: {
		"streamed":   {fault.Members{{Name: "message", Value: "Hello"}}},
		"whole":      {fault.Members{{Name: "message", Value: "Hello"}, {Name: "stream", Value: false}, {Name: "session_state", Value: `{"language": "en"}`}}},
		"background": {fault.Members{{Name: "message", Value: "Hello"}, {Name: "stream", Value: false}, {Name: "background", Value: true}}},
	},
	route.CreateMemory: {"remembered": {fault.Members{{Name: "memory", Value: "Likes tea"}, {Name: "topics", Value: []string{"drinks"}}}}},
}

// operation describes one route.
func (s *schemas) operation(r *route.Route, e api.Endpoint) operation {
	op := operation{
		OperationID: string(r.Name), Tags: []route.Function{r.Function}, Summary: summaries[r.Name],
		Security: []map[string][]string{}, Scopes: []string{}, Responses: s.answers(e),
	}
	if op.Summary == "" {
		panic("apidoc: no summary of " + r.String())
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
	for _, place := range []string{"query", "header"} {
		for _, f := range fields(e.In, place) {
			p := parameter{Name: f.Tag.Get(place), In: place, Required: f.Tag.Get("required") != "", Schema: inputOf(f, place)}
			p.Description, p.Schema.Description = p.Schema.Description, ""
			op.Parameters = append(op.Parameters, p)
		}
	}
	if op.Body = bodyOf(e.In); op.Body != nil {
		for kind, m := range op.Body.Content {
			op.Body.Content[kind] = media{m.Schema, examples[r.Name]}
		}
	}
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
	if r.Name == route.MergeMemories { // there is no user in its path, but there may be nothing of theirs; and a model is asked
		out = append(out, http.StatusNotFound, http.StatusBadGateway)
	}
	return out
}

// answers are those of success.
func (s *schemas) answers(e api.Endpoint) map[string]*response {
	answer := &response{Description: http.StatusText(e.Status), Content: map[string]media{}}
	is := &schema{}
	for _, t := range e.Out {
		is.AnyOf = append(is.AnyOf, s.of(t, ""))
	}
	if len(is.AnyOf) == 1 {
		is = is.AnyOf[0]
	}
	switch {
	case e.Media != "":
		answer.Content[e.Media] = media{Schema: typed(map[bool]string{true: "object", false: "string"}[e.Media == "application/json"])}
	case len(e.Out) > 0:
		answer.Content = ofJSON(is)
	}
	if e.Streams {
		answer.Content["text/event-stream"] = media{Schema: &schema{Ref: "#/components/schemas/ServerSentEvent"}}
	}
	out := map[string]*response{strconv.Itoa(e.Status): answer}
	if e.Accepts != nil {
		out[strconv.Itoa(http.StatusAccepted)] = &response{Description: "It goes on in the background.", Content: ofJSON(s.of(e.Accepts, ""))}
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
	f := fields(t, "body")
	if len(f) == 0 {
		return nil
	}
	if inner := f[0].Type; inner.Kind() == reflect.Pointer {
		return &body{Content: ofJSON(orNull(membersOf(fields(inner.Elem(), "json"), "json")))}
	}
	return &body{Required: true, Content: ofJSON(membersOf(fields(f[0].Type, "json"), "json"))}
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

// statuses are the answers of the operation, in order.
func (op operation) statuses() []string { return slices.Sorted(maps.Keys(op.Responses)) }
