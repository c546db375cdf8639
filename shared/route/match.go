package route

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Routes is a table of routes that can be searched. It doesn't change after New, so
// that several goroutines can use it.
type Routes struct {
	list []*Route
}

// New returns a searchable table. It panics on a mistake in the table itself, which
// the first test of any program finds: a route without needs that is not public, a
// name that occurs twice, two routes for the same method and pattern, or a route that is decided as none.
func New(list []Route) *Routes {
	seen, t := map[string]bool{}, &Routes{list: make([]*Route, len(list))}
	byName := map[Name]*Route{}
	for i := range list {
		r := &list[i]
		t.list[i], byName[r.Name] = r, r
		r.compile()
		if !r.Public && !r.Admin && !r.AnyToken && !r.Addressed && r.As == "" && len(r.Needs) == 0 {
			panic(fmt.Sprintf("route: %s has no needs and is not public", r))
		}
		for _, key := range []string{string(r.Name), r.String()} {
			if seen[key] {
				panic("route: twice in the table: " + key)
			}
			seen[key] = true
		}
	}
	for _, r := range t.list {
		if r.As == "" {
			continue
		}
		if r.as = byName[r.As]; r.as == nil || r.as.As != "" {
			panic(fmt.Sprintf("route: %s is decided as %q, which decides nothing", r, r.As))
		}
	}
	return t
}

// Without returns the table without the routes of these doors. The routes are the same ones, not copies.
func (t *Routes) Without(doors ...Door) *Routes {
	out := &Routes{}
	for _, r := range t.list {
		if r.Door == "" || !slices.Contains(doors, r.Door) {
			out.list = append(out.list, r)
		}
	}
	return out
}

// All yields the routes in the order of the table.
func (t *Routes) All() iter.Seq[*Route] {
	return func(yield func(*Route) bool) {
		for _, r := range t.list {
			if !yield(r) {
				return
			}
		}
	}
}

// Match is what the table contains for a request.
type Match struct {
	Route  *Route            // nil if no route serves the request
	Params map[string]string // the path's parameters by name, decoded but not checked
	Allow  []string          // if Route is nil: the methods that are served at this path
	Public bool              // Route is public, or all routes of Allow are
}

// Match finds the route for a method and a path. The caller must have percent-decoded
// the path exactly once, as AgentOS's server does; Match does not decode. It splits the
// path at the slashes, so a slash that was sent as %2F separates segments too. Trailing
// slashes are ignored. Nothing else is normalized: a path with "//" or "..", or in other
// upper and lower case, matches no route. If two components normalized a path
// differently, a request could get around the policy of one of them.
func (t *Routes) Match(method, path string) Match {
	segments := split(path)
	none := Match{Public: true}
	for _, r := range t.list {
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

// DoorAt returns the door whose errors a request to the path gets, whatever its method. It is "" for AgentOS's API.
// OpenAI's clients find all their paths below /v1, also those that no route serves; while that door is closed, these
// are paths like any other.
func (t *Routes) DoorAt(path string) Door {
	segments, v1 := split(path), Door("")
	for _, r := range t.list {
		if r.Door != "" && r.matches(segments) {
			return r.Door
		}
		if r.Door == OpenAI && len(segments) > 0 && segments[0] == r.segments[0] {
			v1 = OpenAI
		}
	}
	return v1
}

// Clean returns the path as Match reads it: without trailing slashes, and "/" for the
// root.
func Clean(path string) string {
	return "/" + strings.TrimRight(strings.TrimPrefix(path, "/"), "/")
}

// split returns the segments of a path: none for the root, and nil for a text that is
// no path. A request target can also be an authority (CONNECT) or an asterisk (OPTIONS):
// RFC 9112 section 3.2. Neither is ever a route.
func split(path string) []string {
	if !strings.HasPrefix(path, "/") {
		return nil
	}
	if path = Clean(path); path == "/" {
		return []string{}
	}
	return strings.Split(path[1:], "/")
}

// matches reports whether the segments of a path fit the pattern. A parameter is never
// empty.
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
