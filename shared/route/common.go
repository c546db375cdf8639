package route

import "strings"

// Hole is in a path in place of a parameter that may have any value. It is NUL, which
// package authz refuses in the path of a mapping.
const Hole = "\x00"

// Overlaps reports whether some path of the route matches the glob, in which each *
// matches any text, slashes included.
func (r *Route) Overlaps(glob string) bool { return r.OverlapsWith("", "", glob) }

// OverlapsWith reports whether some path that Open(param, value) describes matches the
// glob.
func (r *Route) OverlapsWith(param, value, glob string) bool {
	return len(r.Common(param, value, glob)) > 0
}

// Open returns the path of the route with value in place of the parameter param, and a
// Hole in place of each other parameter. With an empty value, param is a Hole too.
func (r *Route) Open(param, value string) string {
	return r.Path(func(name string) string {
		if name == param && value != "" {
			return value
		}
		return Hole
	})
}

// Common returns the most general paths that are both described by Open(param, value)
// and matched by the glob. A Hole in them is any text without a slash. Each path in the
// intersection is one of these with its Holes filled.
//
// A policy needs this to find out whether a mapping can decide about some request of a
// route: it decides about each of these paths instead of about infinitely many.
func (r *Route) Common(param, value, glob string) []string {
	return common(r.Open(param, value), glob)
}

// position is how far common has read the pattern and the glob, and the path that both
// describe up to there.
type position struct {
	pattern, glob int
	path          string
}

// common explores all ways to read the pattern and the glob side by side, from left to
// right, and returns the path of each way in which both end together. In the pattern a
// Hole is one non-empty text without a slash. Each step moves on in one of the two, so
// that the search ends; seen keeps it from repeating the rest of a way that two ways
// share, which several stars would make exponentially many.
func common(pattern, glob string) (out []string) {
	seen, todo := map[position]bool{}, []position{{}}
	for len(todo) > 0 {
		at := todo[len(todo)-1].skipEqual(pattern, glob)
		todo = todo[:len(todo)-1]
		if seen[at] {
			continue
		}
		seen[at] = true
		if at.pattern == len(pattern) && at.glob == len(glob) {
			out = append(out, at.path)
			continue
		}
		todo = at.appendNext(todo, pattern, glob)
	}
	return out
}

// skipEqual moves past the text that the pattern and the glob have in common, up to a
// Hole, a star or a difference.
func (at position) skipEqual(pattern, glob string) position {
	from := at.pattern
	for at.pattern < len(pattern) && at.glob < len(glob) && pattern[at.pattern] == glob[at.glob] &&
		pattern[at.pattern] != Hole[0] && glob[at.glob] != '*' {
		at.pattern++
		at.glob++
	}
	at.path += pattern[from:at.pattern]
	return at
}

// appendNext appends the positions that one step from at leads to: none if the pattern
// and the glob differ there.
func (at position) appendNext(todo []position, pattern, glob string) []position {
	star := at.glob < len(glob) && glob[at.glob] == '*'
	hole := at.pattern < len(pattern) && pattern[at.pattern] == Hole[0]
	p, g, path := at.pattern, at.glob, at.path
	switch {
	case star && p == len(pattern): // the star can only match nothing more
		return append(todo, position{p, g + 1, path})
	case star && hole: // both are any text: the text ends with the Hole, or with the star
		path = strings.TrimSuffix(path, Hole) + Hole
		return append(todo, position{p + 1, g, path}, position{p, g + 1, path})
	case star: // the star matches one more character of the pattern, or ends
		return append(todo, position{p + 1, g, path + pattern[p:p+1]}, position{p, g + 1, path})
	case hole && g < len(glob) && glob[g] != '/': // the Hole has one more character of the glob, and may end there
		path += glob[g : g+1]
		return append(todo, position{p, g + 1, path}, position{p + 1, g + 1, path})
	}
	return todo
}
