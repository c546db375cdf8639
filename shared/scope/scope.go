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
	"maps"
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
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return Need{}, false
	}
	n = Need{Resource: canonical(parts[0]), Action: parts[len(parts)-1]}
	if len(parts) == 3 && parts[1] != "*" {
		n.ID = parts[1]
	}
	// "agents:*" and "*:read" look like wildcards and are none.
	if strings.Contains(n.Resource, "*") || strings.Contains(n.Action, "*") {
		return Need{}, false
	}
	return n, true
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
	grants map[Need]struct{}
}

// NewSet reads the scopes of a token. admin is the one string that grants
// everything; with another string configured, "agent_os:admin" is ordinary text.
func NewSet(scopes []string, admin string) Set {
	s := Set{grants: make(map[Need]struct{}, len(scopes))}
	for _, text := range scopes {
		if text == admin && admin != "" {
			s.admin = true
			continue
		}
		if n, ok := Parse(text); ok {
			s.grants[n] = struct{}{}
		}
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
	if _, all := s.grants[Need{Resource: need.Resource, Action: need.Action}]; all {
		return true
	}
	_, one := s.grants[need]
	return one
}

// IDs lists, sorted, the resources on which the set grants the action. all means
// every one, and then ids is nil. Neither: no grant of that family at all.
func (s Set) IDs(resource, action string) (ids []string, all bool) {
	resource = canonical(resource)
	if s.Covers(Need{Resource: resource, Action: action}) {
		return nil, true
	}
	for n := range maps.Keys(s.grants) {
		if n.Resource == resource && n.Action == action {
			ids = append(ids, n.ID)
		}
	}
	slices.Sort(ids)
	return ids, false
}
