// Package authz decides what a caller is allowed to do, in one function: Decide. The
// authorizer's policy, the local gateway, every handler and the command `keyway can`
// use it. The zero Decision denies, and a request that is not in the route table is
// never allowed. The package doesn't know HTTP, keys, agents or stored data.
package authz

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
)

// Policy contains the rules of one OS: the route table, the custom mappings and the
// administrator's scope. It is safe for concurrent use.
type Policy struct {
	table    *route.Routes
	mappings map[*route.Route][]mapping // those that can match the route, most specific first
	admin    string
}

// Table returns the routes that the policy decides about. No other request is ever allowed.
func (o *Policy) Table() *route.Routes { return o.table }

// Decision is the answer to one request, with everything that led to it. The zero
// Decision denies.
type Decision struct {
	// Allow means that the request is allowed.
	Allow bool
	// Open means that the request needs no token: every route at its path is public, or
	// its method is OPTIONS.
	Open bool
	// Route is nil if no route serves the request.
	Route *route.Route
	// Params are the parameters of the path.
	Params map[string]string
	// Mapping is the custom mapping that replaced the route's needs, as "METHOD path".
	// It is empty if none did.
	Mapping string
	// Admin means that the caller has the administrator's scope.
	Admin bool
	// Need are the needs of the route or of the mapping, as these are written.
	Need []scope.Need
	// Missing are the needs that the caller's scopes don't cover, narrowed to the id in
	// the path. It is empty if Allow is true.
	Missing []scope.Need
	// IDs are the only ids that a list is allowed to show, unless AllIDs is true.
	IDs []string
	// AllIDs means that the answer is not filtered by id.
	AllIDs bool

	foreign   bool     // the token is meant for another audience
	anonymous bool     // the request needs a token and has no valid one
	allow     []string // the methods that are served at this path, if Route is nil
	caller    *Principal
	admin     string // the administrator's scope
}

// Decide answers whether p is allowed to send this request. p is nil for a caller
// without a valid token. The path must be percent-decoded once.
//
// Decide looks nothing up. A forbidden id and an id that doesn't exist therefore get
// the same answer, so that nobody can find out by trying which ids exist.
//
// Without a valid token the answer is 401 for every path that isn't public, whether
// or not it is served. With a valid token, 404 and 405 come before 403.
//
// OPTIONS needs no token, because browsers send none with a CORS preflight request (Fetch
// standard, "CORS-preflight fetch"). It is never served as a route either.
func (o *Policy) Decide(p *Principal, method, path string) Decision {
	m := o.table.Match(method, path)
	d := Decision{Route: m.Route, Params: m.Params, allow: m.Allow, Open: m.Public || method == http.MethodOptions}
	d.anonymous = p == nil && !d.Open
	switch {
	case m.Route == nil || d.anonymous:
		return d
	case m.Public:
		d.Allow = true
		return d
	}
	d.caller, d.admin = p, o.admin
	if d.foreign = !p.Audience.Opens(m.Route); d.foreign {
		return d
	}
	granted := o.Granted(p)
	d.Admin = granted.Admin()
	decides := m.Route.Decides()
	if decides != m.Route {
		if _, param := m.Route.Resource(); param == "" {
			return o.anyAgent(d, granted)
		}
		path = decides.Path(func(param string) string { return m.Params[param] })
	}
	d.Need, d.Mapping = o.need(decides, route.Clean(path))
	if m.Route.Lists != "" && d.Mapping == "" {
		return o.filter(d, granted)
	}
	family, param := m.Route.Resource()
	for _, n := range d.Need {
		if n = n.On(family, m.Params[param]); !granted.Covers(n) {
			d.Missing = append(d.Missing, n)
		}
	}
	d.AllIDs = true // with a custom mapping too: it replaces the filter of a list
	d.Allow = len(d.Missing) == 0
	return d
}

// DecideURL is Decide for the URL of a request. A slash that the client escaped belongs to one segment, and no route
// has such a segment: DELETE /sessions/abc%2F must not delete the session abc. So a request that would be allowed
// with a plain slash is not found. One that would be refused is refused, as by AgentOS.
func (o *Policy) DecideURL(p *Principal, method string, u *url.URL) Decision {
	d := o.Decide(p, method, u.Path)
	if d.Allow && strings.Contains(strings.ToUpper(u.EscapedPath()), "%2F") {
		return Decision{Open: d.Open}
	}
	return d
}

// DecideAt is DecideURL for a path as it is sent or a whole URL, since that is what people copy. The query has no
// effect. The error is that of a text that is no URL.
func (o *Policy) DecideAt(p *Principal, method, address string) (Decision, error) {
	u, err := url.ParseRequestURI(address)
	if err != nil {
		return Decision{}, err
	}
	return o.DecideURL(p, method, u), nil
}

// anyAgent allows a caller that is allowed to run some agent, declared or not, to use a route whose path names
// none. The handler decides again as soon as it knows the agent.
func (o *Policy) anyAgent(d Decision, granted scope.Set) Decision {
	d.Need, d.AllIDs = d.Route.Needs, true
	if d.Allow = o.MightAllow(granted, d.Route, ""); !d.Allow {
		d.Missing = d.Need
	}
	return d
}

// filter allows a caller to list the resources that their scopes let them read. A
// caller without any such scope gets 403 instead of an empty list.
func (o *Policy) filter(d Decision, granted scope.Set) Decision {
	need := d.Need[0]
	d.IDs, d.AllIDs = granted.IDs(need.Resource, need.Action)
	if d.Allow = d.AllIDs || len(d.IDs) > 0; !d.Allow {
		d.Missing = d.Need
	}
	return d
}

// Lists reports whether the answer to a list is allowed to show id.
func (d Decision) Lists(id string) bool {
	return d.Allow && (d.AllIDs || slices.Contains(d.IDs, id))
}

// Granted returns what the scopes of p grant, for MightAllow.
func (o *Policy) Granted(p *Principal) scope.Set { return scope.NewSet(p.Scopes, o.admin) }
