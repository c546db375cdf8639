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

// Mapping replaces the need of every route that it matches. Path is a glob whose
// * spans segments, as in AgentOS; a concrete id is legal.
type Mapping struct {
	Method, Path string
	Scopes       []string // all are needed
}

type mapping struct {
	Mapping
	needs []scope.Need
}

// New compiles a policy over the route table. admin is the administrator's
// scope. A mapping that reaches no route, needs nothing or needs what no token
// can hold is refused (fault.Invalid).
func New(table *route.Routes, admin string, mappings []Mapping) (*Policy, error) {
	var all []mapping
	for _, m := range mappings {
		c := mapping{Mapping: m}
		for _, text := range m.Scopes {
			n, ok := scope.Parse(text)
			if !ok {
				return nil, fmt.Errorf("mapping %q: no token can hold the scope %q: %w", m, text, fault.Invalid)
			}
			c.needs = append(c.needs, n)
		}
		if len(c.needs) == 0 {
			return nil, fmt.Errorf("mapping %q needs no scope: %w", m, fault.Invalid)
		}
		if !Reaches(table, m.Method, m.Path) {
			return nil, fmt.Errorf("mapping %q matches no route: %w", m, fault.Invalid)
		}
		all = append(all, c)
	}
	// Most specific wins: exact, then the longest literal prefix, then file order.
	slices.SortStableFunc(all, func(a, b mapping) int {
		return cmp.Compare(specificity(b.Path), specificity(a.Path))
	})
	o := &Policy{table: table, admin: admin, mappings: map[*route.Route][]mapping{}}
	for r := range table.All() {
		for _, m := range all {
			if m.Method == r.Method && r.Overlaps(m.Path) {
				o.mappings[r] = append(o.mappings[r], m)
			}
		}
	}
	return o, nil
}

// Reaches reports whether a mapping could ever apply to a route that asks for
// scopes.
func Reaches(table *route.Routes, method, glob string) bool {
	if strings.Contains(glob, route.Hole) { // it would match what MightAllow leaves open
		return false
	}
	for r := range table.All() {
		if !r.Public && r.Method == method && r.Overlaps(glob) {
			return true
		}
	}
	return false
}

func (m Mapping) String() string { return m.Method + " " + m.Path }

func specificity(glob string) int {
	if i := strings.IndexByte(glob, '*'); i >= 0 {
		return i
	}
	return 1 << 30
}

// need is what a concrete request of this route asks for, and the mapping that
// says so ("" for the route's own).
func (o *Policy) need(r *route.Route, path string) ([]scope.Need, string) {
	for _, m := range o.mappings[r] {
		if globMatch(m.Path, path) {
			return m.needs, m.String()
		}
	}
	return r.Needs, ""
}

// globMatch reports whether path matches glob, in which * stands for any text.
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

// Granted reads the scopes of p, for MightAllow.
func (o *Policy) Granted(p *Principal) scope.Set { return scope.NewSet(p.Scopes, o.admin) }

// MightAllow reports whether some request of r, on the resource id ("" for one
// that the token does not name), is allowed to somebody with these scopes. A policy
// that admits whatever MightAllow admits is never narrower than Decide.
func (o *Policy) MightAllow(granted scope.Set, r *route.Route, id string) bool {
	family, param := r.Resource()
	covers := func(needs []scope.Need) bool {
		return !slices.ContainsFunc(needs, func(n scope.Need) bool { return !granted.Covers(n.On(family, id)) })
	}
	if mappings := o.mappings[r]; len(mappings) > 0 {
		open := r.Open(param, id) // is decided like its instances: only a star matches its holes
		for _, m := range mappings {
			if globMatch(m.Path, open) { // no later mapping, nor the route's own need, is ever asked
				return covers(m.needs)
			}
			// What m decides is an instance of one of these paths.
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
	return covers(r.Needs)
}
