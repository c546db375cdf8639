// Package apidoc generates shared/api/openapi.json and docs/api.md from the route
// table and from the endpoints of package api.
// Only its test calls it, when go generate runs: the server embeds the generated
// document, and no deployed program links this package.
package apidoc

import (
	"bytes"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

//go:generate go test -run TestGeneratedDocumentsAreCurrent -update .

// OpenAPI returns the text of shared/api/openapi.json, which GET /openapi.json
// answers: OpenAPI 3.1, each operation and each schema on a line of its own, so that a
// diff names what changed. Every function embeds the document; more line breaks would
// make it half as large again. It panics when a route has no summary or a struct has no
// schema.
func OpenAPI() []byte {
	data, err := wire.Marshal(newDocument())
	if err != nil {
		panic(err) // a bug in this package: the document is made of strings and numbers
	}
	return inLines(data, 3)
}

// inLines breaks compact JSON into lines: each member and element that is inside of at
// most levels objects and arrays gets a line, with its level as indentation.
func inLines(compact []byte, levels int) []byte {
	var out bytes.Buffer
	level, inString := 0, false
	newLine := func() { out.WriteByte('\n'); out.WriteString(strings.Repeat(" ", level)) }
	for i, c := range compact {
		switch {
		case c == '"' && (i == 0 || compact[i-1] != '\\' || endsInPairs(compact[:i])):
			inString = !inString
			out.WriteByte(c)
		case inString:
			out.WriteByte(c)
		case c == '{' || c == '[':
			level++
			if out.WriteByte(c); level <= levels {
				newLine()
			}
		case c == '}' || c == ']':
			if level--; level < levels {
				newLine()
			}
			out.WriteByte(c)
		default:
			if out.WriteByte(c); c == ',' && level <= levels {
				newLine()
			}
		}
	}
	out.WriteByte('\n')
	return out.Bytes()
}

// endsInPairs reports whether text ends in an even number of backslashes, so that a
// quote after it is not escaped.
func endsInPairs(text []byte) bool { return (len(text)-len(bytes.TrimRight(text, `\`)))%2 == 0 }

// document holds the members of an OpenAPI 3.1 document that Keyway uses. The Go fields
// are in the order in which the specification lists the members, which is also the
// order in the file.
type document struct {
	OpenAPI    string                    `json:"openapi"`
	Info       info                      `json:"info"`
	Tags       []tag                     `json:"tags"`
	Paths      object[object[operation]] `json:"paths"` // by path, then by method
	Components components                `json:"components"`
}

// info is OpenAPI's info object. The version is AgentOSVersion, because generated clients
// show it as the version of the API; Keyway's own version is in GET /info.
type info struct {
	Title       string  `json:"title"`
	Version     string  `json:"version"`
	Description string  `json:"description"`
	License     license `json:"license"`
}

// license is OpenAPI's license object.
type license struct {
	Name       string `json:"name"`
	Identifier string `json:"identifier"` // SPDX; new in OpenAPI 3.1
}

// tag is OpenAPI's tag object. The tag of a route is the name of its function, by which
// documentation pages group the routes.
type tag struct {
	Name string `json:"name"`
}

// components is OpenAPI's components object: what other parts of the document refer to by
// name. encoding/json sorts the maps by name, so the file is the same each time.
type components struct {
	SecuritySchemes map[string]security  `json:"securitySchemes"`
	Responses       map[string]*response `json:"responses"` // one for each error status
	Schemas         map[string]*schema   `json:"schemas"`
}

// security is OpenAPI's security scheme object, for HTTP authentication (RFC 6750).
type security struct {
	Type         string `json:"type"`
	Scheme       string `json:"scheme"`
	BearerFormat string `json:"bearerFormat"`
	Description  string `json:"description"`
}

// events lists the structs that a stream sends, each with its event names. The Go types
// don't contain the names, so they are listed here.
var events = []struct {
	body  any
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

// newDocument describes every route of the table, in the table's order. Several routes of
// one path are one member of paths, at the place of the first.
//
// It asks the resources for their endpoints without a database or a runner: the handlers
// are never called, only their input and output types are read.
func newDocument() document {
	s := &schemas{byName: map[string]*schema{}}
	d := document{OpenAPI: "3.1.0", Info: info{
		Title: "Keyway", Version: api.AgentOSVersion,
		Description: "Agents, runs, sessions and memories. " +
			"The version is the AgentOS release that this API is compatible with.",
		License: license{"Apache-2.0", "Apache-2.0"},
	}}
	endpoints := map[route.Name]api.Endpoint{}
	for _, e := range api.Endpoints(
		api.OS{}, &api.Readiness{}, api.Agents{}, api.Runs{}, api.Sessions{}, api.Memories{}, api.Revocations{},
		api.UserData{}, api.Metrics{}, api.Local{}, api.Dev{},
	) {
		endpoints[e.Route] = e
	}
	for r := range route.Table.All() {
		if t := (tag{string(r.Function)}); !slices.Contains(d.Tags, t) {
			d.Tags = append(d.Tags, t)
		}
		i := slices.IndexFunc(d.Paths, func(m member[object[operation]]) bool { return m.name == r.Pattern })
		if i < 0 {
			i = len(d.Paths)
			d.Paths = append(d.Paths, member[object[operation]]{name: r.Pattern})
		}
		op := member[operation]{strings.ToLower(r.Method), s.operation(r, endpoints[r.Name])}
		d.Paths[i].value = append(d.Paths[i].value, op)
	}
	// These schemas come last: only then does byName have every struct of the routes.
	s.addErrors()
	s.addEvents()
	d.Components = components{
		SecuritySchemes: map[string]security{
			"bearer": {"http", "bearer", "JWT", "A token whose claims contain the caller's scopes."},
		},
		Responses: map[string]*response{}, Schemas: s.byName,
	}
	// Each operation refers to these, so that an error body is described once.
	for status, name := range errorResponses {
		d.Components.Responses[name] = &response{
			Description: http.StatusText(status), Content: jsonContent(refTo(errorSchema(status))),
		}
	}
	d.Components.Responses[openAIError] = &response{
		Description: "An error of OpenAI's API", Content: jsonContent(refTo(openAIError)),
	}
	return d
}

// each yields every operation with its method and path, in the table's order.
func (d document) each(yield func(method, path string, op operation)) {
	for _, path := range d.Paths {
		for _, m := range path.value {
			yield(strings.ToUpper(m.name), path.name, m.value)
		}
	}
}

// jsonContent is the content of a body that is always JSON. The media type has no charset:
// JSON is always UTF-8 (RFC 8259, section 8.1).
func jsonContent(s *schema) map[string]media {
	return map[string]media{"application/json": {Schema: s}}
}

// errorResponses names the shared response component of each error status that package
// fault can answer. 405 is missing on purpose: OpenAPI has no operation for a method that
// a path doesn't support.
var errorResponses = map[int]string{
	http.StatusBadRequest:            "BadRequest",
	http.StatusUnauthorized:          "Unauthorized",
	http.StatusForbidden:             "Forbidden",
	http.StatusNotFound:              "NotFound",
	http.StatusConflict:              "Conflict",
	http.StatusRequestEntityTooLarge: "TooLarge",
	http.StatusUnprocessableEntity:   "Unprocessable",
	http.StatusTooManyRequests:       "LimitReached",
	http.StatusInternalServerError:   "Internal",
	http.StatusBadGateway:            "Upstream",
	http.StatusServiceUnavailable:    "Unavailable",
}

// openAIError names the response and the schema of all errors of OpenAI's API.
const openAIError = "OpenAIError"

// errorSchema names the schema of the body that is sent with an error status. Statuses
// without a special body share the one that has only a detail.
func errorSchema(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "Unauthorized"
	case http.StatusForbidden:
		return "Refusal"
	case http.StatusUnprocessableEntity:
		return "Unprocessable"
	case http.StatusTooManyRequests:
		return "LimitReached"
	}
	return "Fault"
}

// addErrors adds the schemas of the bodies that package fault writes. They are
// written by hand, because package fault builds those bodies member by member and
// has no struct for them.
func (s *schemas) addErrors() {
	detail := member[*schema]{"detail", typed("string")}
	hint := member[*schema]{"hint", &schema{Type: "string", Description: "What the caller can do about the error."}}
	s.byName["Fault"] = &schema{Type: "object", Properties: object[*schema]{detail}, Required: []string{"detail"}}
	s.byName["Unauthorized"] = &schema{
		Type: "object", Required: []string{"detail", "hint"}, Properties: object[*schema]{detail, hint},
	}
	s.byName["Refusal"] = &schema{Type: "object", Required: []string{"detail"}, Properties: object[*schema]{
		detail,
		{"missing", &schema{Type: "array", Items: typed("string"), Description: "The scopes that the caller lacks."}},
		{"decision_id", &schema{Type: "string", Description: "The id of the request. The decision log has the same id."}},
		hint,
	}}
	s.byName["LimitReached"] = &schema{Type: "object", Required: []string{"detail"}, Properties: object[*schema]{
		detail,
		{"limit", &schema{Type: "object", Description: "The limit, and how much of it is used and left.",
			Properties: object[*schema]{
				{"name", typed("string")},
				{"of", &schema{Type: "string", Description: "Whose use counts: caller, agent or os."}},
				{"limit", typed("number")},
				{"used", typed("number")},
				{"left", typed("number")},
				{"resets_in", &schema{Type: "integer", Description: "The seconds until the count begins anew."}},
			}}},
	}}
	place := &schema{AnyOf: []*schema{typed("string"), typed("integer")}}
	s.byName["ValidationError"] = &schema{
		Type: "object", Required: []string{"type", "loc", "msg", "input"}, Properties: object[*schema]{
			{"type", typed("string")},
			{"loc", &schema{Type: "array", Items: place}},
			{"msg", typed("string")},
			{"input", &schema{}},
			{"ctx", typed("object")},
		},
	}
	s.byName[openAIError] = &schema{Type: "object", Required: []string{"error"}, Properties: object[*schema]{
		{"error", &schema{Type: "object", Required: []string{"message", "type", "param", "code"},
			Properties: object[*schema]{
				{"message", typed("string")},
				{"type", typed("string")},
				{"param", orNull(typed("string"))},
				{"code", orNull(typed("string"))},
			}}},
	}}
	list := &schema{Type: "array", Items: refTo("ValidationError")}
	s.byName["Unprocessable"] = &schema{Type: "object", Required: []string{"detail"}, Properties: object[*schema]{
		{"detail", &schema{AnyOf: []*schema{typed("string"), list}}},
	}}
}

// addEvents adds the schemas of a stream: ServerSentEvent for a frame, and RunEvent
// for the JSON in its data line, which is one of events.
func (s *schemas) addEvents() {
	event := &schema{}
	for _, e := range events {
		t := reflect.TypeOf(e.body)
		event.AnyOf = append(event.AnyOf, s.ref(t))
		// ref has added the struct's schema, whose member event is a plain string so far.
		for _, m := range s.byName[t.Name()].Properties {
			if m.name == "event" {
				m.value.Enum = e.names
			}
		}
	}
	s.byName["RunEvent"] = event
	// JSON Schema 2020-12, section 8 of the validation vocabulary: contentSchema describes
	// the value that the text encodes.
	data := &schema{Type: "string", ContentMediaType: "application/json", ContentSchema: refTo("RunEvent")}
	s.byName["ServerSentEvent"] = &schema{Type: "object", Required: []string{"event", "data"}, Properties: object[*schema]{
		{"event", &schema{Type: "string", Description: "The name of the event, which data repeats."}},
		{"data", data},
		{"id", &schema{Type: "string", Description: "The event_index, when the client resumes with Last-Event-ID."}},
	}}
}
