// Package authz decides, in one function, what a caller may do: Decide. The
// authorizer's policy, the local gateway, every handler and `keyway can` ask it.
// Deny is the zero value, and what is not in the route table is not there.
// It does not know HTTP, keys, agents or data.
package authz

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
)

// Policy is the rule set of one OS: the route table, its custom mappings and the
// administrator's scope. It is safe for concurrent use.
type Policy struct {
	table    *route.Routes
	mappings map[*route.Route][]mapping // those that reach it, most specific first
	admin    string
}

// Decision is the answer to one request, with everything it was made of. The
// zero Decision denies.
type Decision struct {
	Allow   bool
	Open    bool // the request asks for no token: all that is served at its path is public, or it is an OPTIONS
	Route   *route.Route
	Params  map[string]string // the path's parameters
	Mapping string            // the custom mapping that replaced the route's need, as written
	Admin   bool              // the caller holds the administrator's scope
	Need    []scope.Need      // as the route or mapping states it
	Missing []scope.Need      // narrowed to the path's id; empty when Allow
	IDs     []string          // a filtered list: only these, unless AllIDs
	AllIDs  bool

	anonymous bool
	allow     []string // methods served at this path, when Route is nil
	held      []string // the caller's scopes, as the token has them
}

// Decide answers whether p may send this request. p is nil for a caller without
// a valid token. path is percent-decoded once. It looks nothing up: a forbidden
// id and an unknown one get the same answer. OPTIONS is never served and never
// asks for a token, since browsers send none with it.
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
	granted := o.Granted(p)
	d.held = p.Scopes
	d.Admin = granted.Admin()
	d.Need, d.Mapping = o.need(m.Route, route.Clean(path))
	if m.Route.Lists != "" && d.Mapping == "" {
		return o.filter(d, granted)
	}
	family, param := m.Route.Resource()
	for _, n := range d.Need {
		if n = n.On(family, m.Params[param]); !granted.Covers(n) {
			d.Missing = append(d.Missing, n)
		}
	}
	d.AllIDs = true // a custom mapping demands nothing else and filters nothing
	d.Allow = len(d.Missing) == 0
	return d
}

// filter lets a caller list what they may read; somebody without any read scope
// of the family may not list at all.
func (o *Policy) filter(d Decision, granted scope.Set) Decision {
	need := d.Need[0]
	d.IDs, d.AllIDs = granted.IDs(need.Resource, need.Action)
	if d.Allow = d.AllIDs || len(d.IDs) > 0; !d.Allow {
		d.Missing = d.Need
	}
	return d
}

// Lists reports whether a filtered list may show id.
func (d Decision) Lists(id string) bool {
	return d.Allow && (d.AllIDs || slices.Contains(d.IDs, id))
}

// Err is nil for an allowed request, else the answer its caller gets, in
// AgentOS's words: 401, 404, 405 or 403. id lets the caller quote the decision;
// it may be empty.
func (d Decision) Err(id string) error {
	switch {
	case d.Allow:
		return nil
	case d.anonymous:
		return fault.Public(fault.Unauthenticated, "Authorization header missing", nil)
	case len(d.allow) > 0:
		e := fault.Public(fault.MethodNotAllowed, "", nil)
		e.Header = http.Header{"Allow": {strings.Join(d.allow, ", ")}}
		return e
	case d.Route == nil:
		return fault.NotFound
	}
	e := fault.Public(fault.Forbidden, "Insufficient permissions. Required scope(s): "+join(d.Need), nil)
	e.Extra = []fault.Member{{Name: "missing", Value: texts(d.Missing)}}
	if id != "" {
		e.Extra = append(e.Extra, fault.Member{Name: "decision_id", Value: id})
	}
	if hints := d.lookalikes(); len(hints) > 0 {
		e.Extra = append(e.Extra, fault.Member{Name: "hint", Value: "In the token " + strings.Join(hints, "; ")})
	}
	e.Header = http.Header{"Www-Authenticate": {fmt.Sprintf("Bearer error=\"insufficient_scope\", scope=%q", strings.Join(texts(d.Missing), " "))}}
	return e
}

// Reasons tells, a line a step, how the decision came about.
func (d Decision) Reasons() []string {
	if d.Route == nil {
		switch {
		case d.anonymous:
			return []string{"no route is public at this path", "the request carries no valid token"}
		case len(d.allow) > 0:
			return []string{"the path is served for " + strings.Join(d.allow, ", ") + " only"}
		}
		return []string{"no route serves this path; what is not mapped is denied"}
	}
	out := []string{"the route is " + d.Route.String()}
	switch {
	case d.Route.Public:
		return append(out, "it is public")
	case d.anonymous:
		return append(out, "the request carries no valid token")
	case d.Mapping != "":
		out = append(out, fmt.Sprintf("the mapping %q replaces its need: %s", d.Mapping, join(d.Need)))
	default:
		out = append(out, "it needs "+join(d.Need))
	}
	switch {
	case !d.Allow:
		out = append(out, "the token does not grant "+join(d.Missing))
		out = append(out, d.lookalikes()...)
	case d.Admin:
		out = append(out, "the token holds the administrator's scope")
	case !d.AllIDs:
		out = append(out, "the list is filtered to "+strings.Join(d.IDs, ", "))
	default:
		out = append(out, "the token grants all of it")
	}
	return out
}

// maxLookalikes is how many scopes a refusal comments on.
const maxLookalikes = 3

// lookalikes names scopes of the token that grant nothing of what is missing but
// look meant for it, with what to write instead. The caller wrote them, so that
// nothing is told about others.
func (d Decision) lookalikes() (out []string) {
	for _, held := range d.held {
		for _, n := range d.Missing {
			if remedy := scope.Remedy(held, n); remedy != "" {
				out = append(out, fmt.Sprintf("%s grants nothing here: %s", quote(held), remedy))
				break
			}
		}
		if len(out) == maxLookalikes {
			break
		}
	}
	return out
}

// quote shows the beginning of a scope, in quotes.
func quote(text string) string {
	const most = 100
	if len(text) > most {
		return fmt.Sprintf("%q", strings.ToValidUTF8(text[:most], "")+"…")
	}
	return fmt.Sprintf("%q", text)
}

func join(needs []scope.Need) string { return strings.Join(texts(needs), ", ") }

func texts(needs []scope.Need) []string {
	out := make([]string, len(needs))
	for i, n := range needs {
		out[i] = n.String()
	}
	return out
}
