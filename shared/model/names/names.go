// Package names makes the names of tools and the ids of calls fit the pattern that
// vendors take, [a-zA-Z0-9_-]{1,64}: an MCP server's tools may hold dots, and calls
// may stem from another vendor's model. It knows no vendor.
package names

import (
	"cmp"
	"strconv"
	"strings"
)

// Fitted are the names of one request. Different names stay different, and the same
// name gets the same one in the whole request.
type Fitted struct{ fits, meant map[string]string }

// New has no names yet.
func New() *Fitted { return &Fitted{fits: map[string]string{}, meant: map[string]string{}} }

const maxName = 64

// Fit is a name that fits, in the place of name.
func (n *Fitted) Fit(name string) string {
	if known, ok := n.fits[name]; ok {
		return known
	}
	base := cmp.Or(strings.Map(fitting, name), "_")
	base = base[:min(len(base), maxName)]
	fit := base
	for i := 2; n.meant[fit] != ""; i++ {
		end := "_" + strconv.Itoa(i)
		fit = base[:min(len(base), maxName-len(end))] + end
	}
	n.fits[name] = fit
	n.meant[fit] = cmp.Or(name, fit)
	return fit
}

func fitting(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
		return r
	}
	return '_'
}

// Knows reports whether name was made to fit before.
func (n *Fitted) Knows(name string) bool {
	_, ok := n.fits[name]
	return ok
}

// Own is the name that was made to fit; a name that wasn't is its own.
func (n *Fitted) Own(fit string) string { return cmp.Or(n.meant[fit], fit) }
