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
// that the token does not name), could be allowed to somebody with these scopes.
// A policy that admits whatever MightAllow admits is never narrower than Decide.
func (o *Policy) MightAllow(granted scope.Set, r *route.Route, id string) bool {
	if granted.Admin() {
		return true
	}
	if mappings := o.mappings[r]; len(mappings) > 0 {
		if allow, last := mightAllow(mappings, granted, r, id); last {
			return allow
		}
	}
	if r.Lists != "" {
		ids, all := granted.IDs(r.Needs[0].Resource, r.Needs[0].Action)
		return all || len(ids) > 0
	}
	return covers(granted, r, r.Needs, id)
}

// mightAllow is MightAllow as far as the mappings, all of which reach r, say it;
// last is false when the route's own need is asked too.
func mightAllow(mappings []mapping, granted scope.Set, r *route.Route, id string) (allow, last bool) {
	_, param := r.Resource()
	// Only a star matches the holes, so what matches this path matches them all.
	every := r.Path(func(name string) string {
		if name == param && id != "" {
			return id
		}
		return route.Hole
	})
	for _, m := range mappings {
		always := globMatch(m.Path, every)
		if !always && id != "" && !r.OverlapsWith(param, id, m.Path) {
			continue
		}
		if covers(granted, r, m.needs, id) {
			return true, true
		}
		if always { // no later mapping, nor the route's own need, is ever asked
			return false, true
		}
	}
	return false, false
}

// covers reports whether all needs of a request of r are granted, on the
// resource id where they are of its family.
func covers(granted scope.Set, r *route.Route, needs []scope.Need, id string) bool {
	family, _ := r.Resource()
	for _, n := range needs {
		if !granted.Covers(n.On(family, id)) {
			return false
		}
	}
	return true
}
