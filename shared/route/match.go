package route

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Routes is an ordered table with its matcher.
type Routes struct {
	list []Route
}

// New checks a table and makes it matchable. It panics on a mistake in the
// table itself: a route without a need that isn't public, a doubled name, two
// routes that are the same request.
func New(list []Route) *Routes {
	seen := map[string]bool{}
	for i := range list {
		r := &list[i]
		r.compile()
		if !r.Public && len(r.Needs) == 0 {
			panic(fmt.Sprintf("route: %s needs nothing and is not public", r))
		}
		for _, key := range []string{string(r.Name), r.String()} {
			if seen[key] {
				panic("route: twice in the table: " + key)
			}
			seen[key] = true
		}
	}
	return &Routes{list: list}
}

// All yields the routes in the table's order.
func (t *Routes) All() iter.Seq[*Route] {
	return func(yield func(*Route) bool) {
		for i := range t.list {
			if !yield(&t.list[i]) {
				return
			}
		}
	}
}

// Match is the outcome of looking a request up.
type Match struct {
	Route  *Route            // nil: no route serves this request
	Params map[string]string // by parameter name; as decoded, not otherwise checked
	Allow  []string          // Route is nil, but these methods are served at this path
	Public bool              // Route is public, or every method of Allow is
}

// Match looks up a request by method and decoded path. The path is read as
// AgentOS reads it: percent-decoded once before it is split, trailing slashes
// dropped, everything else literal ("//", ".." and case never match a route).
func (t *Routes) Match(method, path string) Match {
	segments := split(path)
	none := Match{Public: true}
	for i := range t.list {
		r := &t.list[i]
		if !r.matches(segments) {
			continue
		}
		if r.Method == method {
			return Match{Route: r, Params: r.params(segments), Public: r.Public}
		}
		none.Allow = append(none.Allow, r.Method)
		none.Public = none.Public && r.Public
	}
	none.Public = none.Public && len(none.Allow) > 0
	return none
}

// Clean gives the path as Match reads it: without trailing slashes, "/" for the
// root.
func Clean(path string) string {
	return "/" + strings.TrimRight(strings.TrimPrefix(path, "/"), "/")
}

func split(path string) []string {
	if !strings.HasPrefix(path, "/") {
		return nil // an authority or an asterisk; never a route
	}
	if path = Clean(path); path == "/" {
		return []string{}
	}
	return strings.Split(path[1:], "/")
}

func (r *Route) matches(segments []string) bool {
	if segments == nil || len(segments) != len(r.segments) {
		return false
	}
	for i, want := range r.segments {
		if isParam(want) {
			if segments[i] == "" {
				return false
			}
		} else if want != segments[i] {
			return false
		}
	}
	return true
}

func (r *Route) params(segments []string) map[string]string {
	var out map[string]string
	for i, s := range r.segments {
		if isParam(s) {
			if out == nil {
				out = make(map[string]string, 2)
			}
			out[s[1:len(s)-1]] = segments[i]
		}
	}
	return out
}

// String is the route as people write it: "POST /agents/{agent_id}/runs".
func (r *Route) String() string { return r.Method + " " + r.Pattern }

// Resource names the family whose id stands in the path and may have scopes of
// its own, and the parameter that holds the id; both are empty for other routes.
// AgentOS has such scopes for agents only (of what is served here).
func (r *Route) Resource() (family, param string) { return r.family, r.param }

// compile reads the pattern once, since a policy asks for it of every route.
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

// Glob is the route's paths as one pattern: id for the parameter that Resource
// names, a * for every other one and for an empty id.
func (r *Route) Glob(id string) string {
	switch {
	case r.param == "":
		return r.before
	case id == "":
		id = "*"
	}
	return r.before + id + r.after
}

// Path fills the pattern: each parameter becomes fill's answer for it.
func (r *Route) Path(fill func(param string) string) string {
	out := make([]string, len(r.segments))
	for i, s := range r.segments {
		if out[i] = s; isParam(s) {
			out[i] = fill(s[1 : len(s)-1])
		}
	}
	return "/" + strings.Join(out, "/")
}

// Hole stands in a filled pattern for a parameter left open.
const Hole = "\x00"

// Overlaps reports whether some path of the route matches the glob, in which
// each * stands for any text, slashes included.
func (r *Route) Overlaps(glob string) bool { return r.OverlapsWith("", "", glob) }

// OverlapsWith is Overlaps for the paths of Open(param, value).
func (r *Route) OverlapsWith(param, value, glob string) bool {
	return len(r.Common(param, value, glob)) > 0
}

// Open is the path of the route whose parameter param is value (an empty value
// leaves it open); Hole stands in it for what is left open.
func (r *Route) Open(param, value string) string {
	return r.Path(func(name string) string {
		if name == param && value != "" {
			return value
		}
		return Hole
	})
}

// Common gives the most general paths that belong to Open(param, value) and match
// the glob. Hole stands in them for any text without a slash, so every common path
// is one of these, filled.
func (r *Route) Common(param, value, glob string) []string {
	return common(r.Open(param, value), glob)
}

// common reads \x00 in pattern as one non-empty text without a slash, and moves
// through both texts at once, in every way, until both end together.
func common(pattern, glob string) (out []string) {
	type at struct {
		p, g int
		text string
	}
	seen, todo := map[at]bool{}, []at{{}}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for from := s.p; ; s.p, s.g = s.p+1, s.g+1 {
			if s.p == len(pattern) || s.g == len(glob) || pattern[s.p] != glob[s.g] || pattern[s.p] == 0 || glob[s.g] == '*' {
				s.text += pattern[from:s.p]
				break
			}
		}
		if seen[s] {
			continue
		}
		seen[s] = true
		pEnd, gEnd := s.p == len(pattern), s.g == len(glob)
		star, hole := !gEnd && glob[s.g] == '*', !pEnd && pattern[s.p] == 0
		switch {
		case pEnd && gEnd:
			out = append(out, s.text)
		case star && pEnd:
			todo = append(todo, at{s.p, s.g + 1, s.text})
		case star && hole: // any text, with which the hole ends or the star does
			text := strings.TrimSuffix(s.text, Hole) + Hole
			todo = append(todo, at{s.p + 1, s.g, text}, at{s.p, s.g + 1, text})
		case star: // the star takes one more of the pattern, or ends
			todo = append(todo, at{s.p + 1, s.g, s.text + pattern[s.p:s.p+1]}, at{s.p, s.g + 1, s.text})
		case hole && !gEnd && glob[s.g] != '/': // the hole takes one more of the glob, or ends with it
			text := s.text + glob[s.g:s.g+1]
			todo = append(todo, at{s.p, s.g + 1, text}, at{s.p + 1, s.g + 1, text})
		}
	}
	return out
}

func isParam(segment string) bool { return strings.HasPrefix(segment, "{") }
