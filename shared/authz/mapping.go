package authz

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
)

// Mapping replaces the needs of every request that it matches, as AgentOS's
// custom scope mappings do: the route's own needs no longer count, and a list is no
// longer filtered.
type Mapping struct {
	// Method is the HTTP method. Required.
	Method string
	// Path is a glob for the decoded path without trailing slashes. A * matches any
	// text, slashes included, as in AgentOS. A path with a concrete id is allowed.
	// Required.
	Path string
	// Scopes are the needs; a caller needs all of them. Required.
	Scopes []string
}

type mapping struct {
	Mapping
	needs []scope.Need
}

// New returns a policy over the route table. admin is the administrator's scope. The
// error is fault.Invalid for a mapping that matches no guarded route, that has no
// scopes, or that has a text that is not a scope. Each of these is a typing
// error that would otherwise open a route or close it for everybody.
func New(table *route.Routes, admin string, mappings []Mapping) (*Policy, error) {
	var all []mapping
	for _, m := range mappings {
		c := mapping{Mapping: m}
		for _, text := range m.Scopes {
			n, ok := scope.Parse(text)
			if !ok {
				return nil, wrong("mapping %q needs %q, which is not a scope; write resource:action or resource:id:action",
					m, text)
			}
			c.needs = append(c.needs, n)
		}
		if len(c.needs) == 0 {
			return nil, wrong("mapping %q needs no scope; list one", m)
		}
		if !Reaches(table, m.Method, m.Path) {
			return nil, wrong("mapping %q matches no route; compare with the output of keyway routes", m)
		}
		all = append(all, c)
	}
	// The most specific mapping wins: one without a star, then the one with
	// the longest text before its first star, then the one that is written first.
	slices.SortStableFunc(all, func(a, b mapping) int {
		return cmp.Compare(specificity(b.Path), specificity(a.Path))
	})
	o := &Policy{table: table, admin: admin, mappings: map[*route.Route][]mapping{}}
	for r := range table.All() {
		for _, m := range all {
			if mappable(r) && m.Method == r.Method && r.Overlaps(m.Path) {
				o.mappings[r] = append(o.mappings[r], m)
			}
		}
	}
	return o, nil
}

// wrong returns an error of the kind fault.Invalid with nothing but this text. The kind's own text is for callers of
// the API, and would be no help here.
func wrong(format string, args ...any) error {
	return fault.Public(fault.Invalid, fmt.Sprintf(format, args...), nil)
}

// Reaches reports whether a mapping could ever match a request to a route that needs
// scopes. A route for administrators alone is never mapped: "GET /*" must not open it. It must not close a route that
// every valid token opens either: callers ask there what their token lacks. A route that is decided as another one has
// the mappings of that one.
func Reaches(table *route.Routes, method, glob string) bool {
	if strings.Contains(glob, route.Hole) { // it would match the open parameters in MightAllow's paths
		return false
	}
	for r := range table.All() {
		if mappable(r) && r.Method == method && r.Overlaps(glob) {
			return true
		}
	}
	return false
}

// mappable reports whether a mapping can replace the needs of the route.
func mappable(r *route.Route) bool {
	return !r.Public && !r.Admin && !r.AnyToken && !r.Addressed && r.As == ""
}

// String returns the method and the path, as the decision log shows them.
func (m Mapping) String() string { return m.Method + " " + m.Path }

// specificity is the length of the text before the first star. A glob without a star
// is more specific than any other.
func specificity(glob string) int {
	if i := strings.IndexByte(glob, '*'); i >= 0 {
		return i
	}
	return 1 << 30
}

// need returns the needs of a request with this path, and the mapping that they are
// from ("" for the route's own needs).
func (o *Policy) need(r *route.Route, path string) ([]scope.Need, string) {
	for _, m := range o.mappings[r] {
		if globMatch(m.Path, path) {
			return m.needs, m.String()
		}
	}
	return o.own(r), ""
}

// own returns the needs of the route itself: none if every valid token opens it.
func (o *Policy) own(r *route.Route) []scope.Need {
	if r.Admin {
		return []scope.Need{{Resource: o.admin}}
	}
	return r.Needs
}

// globMatch reports whether path matches glob, in which * matches any text. For each
// star it takes the first place where the text behind the star occurs: if a later place
// leads to a match, the first one does too. The time is therefore not exponential.
func globMatch(glob, path string) bool {
	head, rest, star := strings.Cut(glob, "*")
	if !star {
		return glob == path
	}
	if !strings.HasPrefix(path, head) {
		return false
	}
	path = path[len(head):]
	for {
		middle, tail, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(path, rest)
		}
		i := strings.Index(path, middle)
		if i < 0 {
			return false
		}
		path, rest = path[i+len(middle):], tail
	}
}

// MightAllow reports whether Decide allows these scopes some request to r on the
// resource id. An empty id is a resource that the token doesn't name.
//
// The authorizer needs it because API Gateway caches its policy for all requests with
// one token. A policy that allows everything that MightAllow reports is never narrower
// than Decide. It may be wider where mappings overlap; the function decides again about
// the real path.
//
// It doesn't know the audience of a token: see Audience.Opens.
//
// A route that is decided as another one is allowed where that one is. If its own path names no agent, one agent that
// the scopes or a mapping name is enough, whatever the id.
func (o *Policy) MightAllow(granted scope.Set, r *route.Route, id string) bool {
	family, param := r.Resource()
	if as := r.Decides(); as != r {
		if param != "" {
			return o.MightAllow(granted, as, id)
		}
		return slices.ContainsFunc(append(granted.Named(), ""), func(id string) bool { return o.MightAllow(granted, as, id) })
	}
	covers := func(needs []scope.Need) bool {
		return !slices.ContainsFunc(needs, func(n scope.Need) bool { return !granted.Covers(n.On(family, id)) })
	}
	if mappings := o.mappings[r]; len(mappings) > 0 {
		// A mapping that matches the open path matches it with any values in its holes,
		// because only a star matches a hole.
		open := r.Open(param, id)
		for _, m := range mappings {
			if globMatch(m.Path, open) { // no less specific mapping ever counts, nor do the route's needs
				return covers(m.needs)
			}
			// Every path that m decides about is one of these with its holes filled.
			for _, path := range r.Common(param, id, m.Path) {
				if needs, _ := o.need(r, path); covers(needs) {
					return true
				}
			}
		}
	}
	if r.Lists != "" {
		ids, all := granted.IDs(r.Needs[0].Resource, r.Needs[0].Action)
		return all || len(ids) > 0
	}
	return covers(o.own(r))
}
