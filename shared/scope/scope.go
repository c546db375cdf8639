// Package scope decides whether granted scopes cover a needed one.
// It knows nothing of HTTP, tokens or agents.
//
// The grammar is AgentOS's, case-sensitive:
//
//	resource:action        every resource of the family
//	resource:<id>:action   that one
//	resource:*:action      every one, like the first form
//
// and one configured string that is the administrator's. Anything else (empty
// parts, other wildcards, more parts) grants nothing.
package scope

import (
	"slices"
	"strings"
)

// Need is a permission that a route asks for: an action on a family of
// resources, and on one of them when ID is set.
type Need struct {
	Resource, ID, Action string
}

// String writes the need the way a token would hold it.
func (n Need) String() string {
	if n.ID == "" {
		return n.Resource + ":" + n.Action
	}
	return n.Resource + ":" + n.ID + ":" + n.Action
}

// On narrows the need to one resource, when that resource is of the need's own
// family; a need of another family stays as written.
func (n Need) On(resource, id string) Need {
	if n.ID == "" && id != "" && n.Resource == canonical(resource) {
		n.ID = id
	}
	return n
}

// Parse reads one scope. ok is false for text that can never grant anything.
func Parse(text string) (n Need, ok bool) {
	resource, rest, ok := strings.Cut(text, ":")
	id, action, named := strings.Cut(rest, ":")
	switch {
	case !ok || resource == "" || id == "" || named && action == "" || strings.Contains(action, ":"):
		return Need{}, false
	case !named:
		id, action = "", id
	case id == "*":
		id = ""
	}
	// "agents:*" and "*:read" look like wildcards and are none.
	if strings.Contains(resource, "*") || strings.Contains(action, "*") {
		return Need{}, false
	}
	return Need{Resource: canonical(resource), ID: id, Action: action}, true
}

// canonical maps the one legacy alias of AgentOS: system: is config:.
func canonical(resource string) string {
	if resource == "system" {
		return "config"
	}
	return resource
}

// Set is what a caller was granted. The zero Set grants nothing.
type Set struct {
	admin  bool
	grants map[Need]*grant // by the need for all of the family
}

// grant is one action on one family.
type grant struct {
	all bool
	ids []string // sorted, each once
}

// NewSet reads the scopes of a token. admin is the one string that grants
// everything; with another string configured, "agent_os:admin" is ordinary text.
func NewSet(scopes []string, admin string) Set {
	s := Set{grants: map[Need]*grant{}}
	for _, text := range scopes {
		if text == admin && admin != "" {
			s.admin = true
			continue
		}
		n, ok := Parse(text)
		if !ok {
			continue
		}
		family := Need{Resource: n.Resource, Action: n.Action}
		g := s.grants[family]
		if g == nil {
			g = new(grant)
			s.grants[family] = g
		}
		if n.ID == "" {
			g.all = true
		} else {
			g.ids = append(g.ids, n.ID)
		}
	}
	for _, g := range s.grants {
		slices.Sort(g.ids)
		g.ids = slices.Compact(g.ids)
	}
	return s
}

// Admin reports whether the set holds the administrator's scope.
func (s Set) Admin() bool { return s.admin }

// Covers reports whether the set grants need. A grant for one resource never
// covers the need for all: agents:x:run does not let its holder run y.
func (s Set) Covers(need Need) bool {
	if s.admin {
		return true
	}
	g := s.grants[Need{Resource: need.Resource, Action: need.Action}]
	if g == nil {
		return false
	}
	_, one := slices.BinarySearch(g.ids, need.ID)
	return g.all || one
}

// IDs lists, sorted, the resources on which the set grants the action. all means
// every one, and then ids is nil. Neither: no grant of that family at all. The
// list is the set's own.
func (s Set) IDs(resource, action string) (ids []string, all bool) {
	g := s.grants[Need{Resource: canonical(resource), Action: action}]
	switch {
	case s.admin || g != nil && g.all:
		return nil, true
	case g == nil:
		return nil, false
	}
	return slices.Clip(g.ids), false
}

// Named lists, sorted, every id that a grant names, of whatever family.
func (s Set) Named() (ids []string) {
	for _, g := range s.grants {
		ids = append(ids, g.ids...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Widened is the set with each grant for one resource made a grant for all of
// its family: what it covers of one, it covers of all.
func (s Set) Widened() Set {
	wide := Set{admin: s.admin, grants: make(map[Need]*grant, len(s.grants))}
	for family := range s.grants {
		wide.grants[family] = &grant{all: true}
	}
	return wide
}
