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
	o := &Policy{table: table, admin: admin}
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
		o.mappings = append(o.mappings, c)
	}
	// Most specific wins: exact, then the longest literal prefix, then file order.
	slices.SortStableFunc(o.mappings, func(a, b mapping) int {
		return cmp.Compare(specificity(b.Path), specificity(a.Path))
	})
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
	for _, m := range o.mappings {
		if m.Method == r.Method && globMatch(m.Path, path) {
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
	// What a mapping decides is an instance of one of these paths, and the path itself
	// is decided like its instances: only a star matches its holes.
	paths := []string{r.Open(param, id)}
	for _, m := range o.mappings {
		if m.Method == r.Method {
			paths = append(paths, r.Common(param, id, m.Path)...)
		}
	}
	return slices.ContainsFunc(paths, func(path string) bool {
		needs, mapping := o.need(r, path)
		if r.Lists != "" && mapping == "" {
			ids, all := granted.IDs(needs[0].Resource, needs[0].Action)
			return all || len(ids) > 0
		}
		return !slices.ContainsFunc(needs, func(n scope.Need) bool { return !granted.Covers(n.On(family, id)) })
	})
}
