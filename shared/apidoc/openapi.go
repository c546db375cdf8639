// Package apidoc generates shared/api/openapi.json and docs/api.md from the route
// table and from the endpoints of package api.
// Only its test calls it, when go generate runs: the server embeds the generated
// document, and no deployed program links this package.
package apidoc

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/api"
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

// events are what a stream of a run may hold, by the names that they have there.
var events = []struct {
	is    any
	names []string
}{
	{wire.Started{}, []string{wire.EventRunStarted, wire.EventModelRequestStarted}},
	{wire.Content{}, []string{wire.EventRunContent}},
	{wire.ContentOpened{}, []string{wire.EventRunContent}},
	{wire.ModelCompleted{}, []string{wire.EventModelRequestCompleted}},
	{wire.ToolStarted{}, []string{wire.EventToolCallStarted}},
	{wire.ToolCompleted{}, []string{wire.EventToolCallCompleted}},
	{wire.ToolFailed{}, []string{wire.EventToolCallError}},
	{wire.Paused{}, []string{wire.EventRunPaused}},
	{wire.ContentCompleted{}, []string{wire.EventRunContentCompleted, wire.EventRunContinued}},
	{wire.Completed{}, []string{wire.EventRunCompleted}},
	{wire.Failed{}, []string{wire.EventRunError}},
	{wire.Cancelled{}, []string{wire.EventRunCancelled}},
	{wire.Meta{}, []string{"replay", "catch_up", "subscribed", "error"}},
}

// documentOf describes the whole table.
func documentOf() document {
	s := &schemas{byName: map[string]*schema{}}
	d := document{OpenAPI: "3.1.0", Info: info{
		Title: "Keyway", Version: api.AgentOSVersion,
		Description: "Agents, runs, sessions and memories. The version is that of AgentOS, whose contract is kept.",
		License:     license{"Apache-2.0", "Apache-2.0"},
	}}
	endpoints := map[route.Name]api.Endpoint{}
	for _, e := range api.Endpoints(api.OS{}, api.Agents{}, api.Runs{}, api.Sessions{}, api.Memories{}) {
		endpoints[e.Route] = e
	}
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
		case http.StatusUnauthorized:
			is = "Unauthorized"
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
	http.StatusBadGateway:            "Upstream",
	http.StatusServiceUnavailable:    "Unavailable",
}

// faults adds what package fault writes.
func (s *schemas) faults() {
	detail := fault.Member{Name: "detail", Value: typed("string")}
	place := &schema{AnyOf: []*schema{typed("string"), typed("integer")}}
	s.byName["Fault"] = &schema{Type: "object", Properties: fault.Members{detail}, Required: []string{"detail"}}
	hint := fault.Member{Name: "hint", Value: &schema{Type: "string", Description: "What the caller can do about it."}}
	s.byName["Unauthorized"] = &schema{Type: "object", Required: []string{"detail", "hint"}, Properties: fault.Members{detail, hint}}
	s.byName["Refusal"] = &schema{Type: "object", Required: []string{"detail"}, Properties: fault.Members{
		detail,
		{Name: "missing", Value: &schema{Type: "array", Items: typed("string"), Description: "The scopes that the caller lacks."}},
		{Name: "decision_id", Value: &schema{Type: "string", Description: "The id of the request, which the log has too."}},
		hint,
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
		event.AnyOf = append(event.AnyOf, s.ref(reflect.TypeOf(e.is)))
		for _, m := range s.byName[reflect.TypeOf(e.is).Name()].Properties {
			if m.Name == "event" {
				m.Value.(*schema).Enum = e.names
			}
		}
	}
	s.byName["RunEvent"] = event
	s.byName["ServerSentEvent"] = &schema{Type: "object", Required: []string{"event", "data"}, Properties: fault.Members{
		{Name: "event", Value: &schema{Type: "string", Description: "The name of the event, which is also in its data."}},
		{Name: "data", Value: &schema{Type: "string", ContentMediaType: "application/json", ContentSchema: &schema{Ref: "#/components/schemas/RunEvent"}}},
		{Name: "id", Value: &schema{Type: "string", Description: "Its event_index, for who resumes with Last-Event-ID."}},
	}}
}

// each yields the operations with their methods and paths, in the table's order.
func (d document) each(yield func(method, path string, op operation)) {
	for _, path := range d.Paths {
		for _, m := range path.Value.(fault.Members) {
			yield(strings.ToUpper(m.Name), path.Name, m.Value.(operation))
		}
	}
}
