// Package scope decides whether granted scopes cover a needed one. It knows nothing
// of HTTP, tokens or agents.
package scope

import (
	"slices"
	"strings"
)

// Need is a permission that a request requires: an action on a family of resources,
// or on one of them if ID is set. It is also the parsed form of a granted scope. A Need
// without an Action is the administrator's scope itself: no grant covers it, because no
// scope is parsed without an action.
type Need struct {
	Resource, ID, Action string
}

// String returns the scope that grants exactly this need, as a token would contain it.
func (n Need) String() string {
	if n.Action == "" {
		return n.Resource
	}
	if n.ID == "" {
		return n.Resource + ":" + n.Action
	}
	return n.Resource + ":" + n.ID + ":" + n.Action
}

// On narrows a need to one resource if that resource belongs to the need's family.
// Otherwise it returns the need unchanged: agents:run on a session stays agents:run.
func (n Need) On(resource, id string) Need {
	if n.ID == "" && id != "" && n.Resource == canonical(resource) {
		n.ID = id
	}
	return n
}

// Parse reads one scope. ok is false for text that can never grant anything.
//
// The grammar is AgentOS's. It is case-sensitive:
//
//	resource:action        the action on every resource of the family
//	resource:<id>:action   the action on that one resource
//	resource:*:action      the same as the first form
//
// One more string, which the operator chooses, makes its holder the administrator.
// Any other text grants nothing: empty parts, wildcards in another place, more than
// three parts. A text that grants nothing is no error, because a token may contain
// scopes for other services.
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
	// AgentOS has a wildcard in the place of an id only. "agents:*" and "*:read" look
	// like wildcards; if they granted something here, a token could do more here than
	// in AgentOS.
	if strings.Contains(resource, "*") || strings.Contains(action, "*") {
		return Need{}, false
	}
	return Need{Resource: canonical(resource), ID: id, Action: action}, true
}

// canonical replaces the one alias of AgentOS: "system" is the old name of "config".
func canonical(resource string) string {
	if resource == "system" {
		return "config"
	}
	return resource
}

// Set is what a token grants. The zero Set grants nothing. A Set is not changed after
// NewSet, so that several goroutines can use it.
type Set struct {
	admin  bool
	grants map[Need]*grant // by resource and action, without an ID
}

// grant is what a token grants of one action on one family.
type grant struct {
	all bool
	ids []string // sorted, each once
}

// NewSet reads the scopes of a token. admin is the one string that grants everything;
// if it is empty, no string does. AgentOS's default is "agent_os:admin". If the
// operator chose another string, "agent_os:admin" grants nothing.
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

// Admin reports whether the set contains the administrator's scope.
func (s Set) Admin() bool { return s.admin }

// Covers reports whether the set grants need. A grant for one resource never covers
// the need for all: with agents:x:run, a caller can't run y.
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

// IDs returns the sorted ids of the resources on which the set grants the action. If
// the set grants it on all of them, all is true and ids is nil. If the set doesn't
// grant it at all, all is false and ids is nil. The caller must not change the slice.
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

// Named returns the sorted ids that any grant names, of all families.
func (s Set) Named() (ids []string) {
	for _, g := range s.grants {
		ids = append(ids, g.ids...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Widened returns the set with each grant for one resource replaced by a grant for all
// of its family. API Gateway's policy for a token uses it where the exact ids don't
// fit: the policy may allow more than Decide, because the function decides again, but
// never less.
func (s Set) Widened() Set {
	wide := Set{admin: s.admin, grants: make(map[Need]*grant, len(s.grants))}
	for family := range s.grants {
		wide.grants[family] = &grant{all: true}
	}
	return wide
}
