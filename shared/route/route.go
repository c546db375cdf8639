// Package route holds the one table of what Keyway serves: each method and path, the
// scopes that a caller needs for it, and the function that answers. The handlers, the
// authorizer, the gateway and the generated documents all read this table. No other
// package knows a path. It doesn't know callers, policies or handlers.
package route

import (
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/scope"
)

// Name identifies a route, so that a handler can be registered for it.
type Name string

// Function is the Lambda function that serves a route.
type Function string

// Door is a protocol beside AgentOS's, by which callers reach the same agents, runs and sessions.
type Door string

// Decides returns the route that decides about requests to r: the one of As, or r itself.
func (r *Route) Decides() *Route {
	if r.as != nil {
		return r.as
	}
	return r
}

// Route is one line of the table.
type Route struct {
	// Name is unique in the table. Required.
	Name Name
	// Method is the HTTP method. Required.
	Method string
	// Pattern is the path. A parameter is a whole segment in braces:
	// "/agents/{agent_id}/runs". Required.
	Pattern string
	// Function serves the route on AWS.
	Function Function
	// Public means that a caller needs no token. Defaults to false.
	Public bool
	// Admin means that only the administrator's scope opens the route, whatever else a token
	// holds and whatever custom mappings say. Defaults to false.
	Admin bool
	// AnyToken means that every valid token opens the route, whatever its scopes and whatever custom mappings say. The
	// answer of such a route depends on nothing but the caller's own token. Defaults to false.
	AnyToken bool
	// Addressed means that every valid token opens the route whose audience names the route's door, whatever its scopes,
	// and no other token does. The handler decides about what the request names. Defaults to false.
	Addressed bool
	// Needs are the scopes of the route; a caller needs all of them. Required unless the route is Public, Admin,
	// AnyToken, Addressed or decided As another one: an empty list would allow every valid token, and must not do so
	// by mistake.
	Needs []scope.Need
	// As is the name of the route that decides about requests to this one, whatever their own path: its needs and its
	// custom mappings count. If the path of this route names an agent, it is the agent of the decision. Otherwise any
	// agent that the caller may run opens the route, and the handler decides about the one that the request names.
	// Defaults to "": the route decides itself.
	As Name
	// Door is the protocol that the route belongs to, which an operator can switch off. Defaults to "": AgentOS's.
	Door Door
	// Lists is the family of resources that the answer lists. A caller with a scope for
	// one of them is allowed to send the request, and sees only those that their scopes
	// name, as in AgentOS. Defaults to "": the answer is not filtered by scopes.
	Lists string

	as            *Route // of As
	segments      []string
	family, param string // what Resource returns
	before, after string // what Glob writes around the id
}

// String returns the method and the pattern: "POST /agents/{agent_id}/runs".
func (r *Route) String() string { return r.Method + " " + r.Pattern }

// Resource returns the family of the resource that the path names, and the parameter
// that contains its id, if scopes can be limited to one resource of that family. Of
// what Keyway serves, AgentOS has such scopes for agents only. Both are "" for other
// routes.
func (r *Route) Resource() (family, param string) { return r.family, r.param }

// compile prepares what the other methods need, once instead of for each request.
func (r *Route) compile() {
	r.segments = split(r.Pattern)
	if slices.Contains(r.segments, "{agent_id}") {
		r.family, r.param = "agents", "agent_id"
	}
	r.before, r.after, _ = strings.Cut(r.Path(func(name string) string {
		if name == r.param {
			return Hole
		}
		return "*"
	}), Hole)
}

// Path returns the pattern with each parameter replaced by what fill returns for it.
func (r *Route) Path(fill func(param string) string) string {
	out := make([]string, len(r.segments))
	for i, s := range r.segments {
		if out[i] = s; isParam(s) {
			out[i] = fill(s[1 : len(s)-1])
		}
	}
	return "/" + strings.Join(out, "/")
}

// Glob returns the route's paths as one pattern for a policy of API Gateway: id in
// place of the parameter that Resource names, and * in place of every other parameter
// and of an empty id.
func (r *Route) Glob(id string) string {
	switch {
	case r.param == "":
		return r.before
	case id == "":
		id = "*"
	}
	return r.before + id + r.after
}

func isParam(segment string) bool { return strings.HasPrefix(segment, "{") }
