package bedrock

import (
	"cmp"
	"strconv"
	"strings"
)

// names makes names fit the API's pattern, [a-zA-Z0-9_-]{1,64}: an MCP server's
// tools may hold dots, and calls may stem from another vendor's model. Different
// names stay different, and the same name gets the same one in the whole request.
type names struct{ fits, meant map[string]string }

func newNames() *names { return &names{fits: map[string]string{}, meant: map[string]string{}} }

const maxName = 64

func (n *names) fit(name string) string {
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

func (n *names) knows(name string) bool {
	_, ok := n.fits[name]
	return ok
}

// own is the name that was made to fit; a name that wasn't is its own.
func (n *names) own(fit string) string { return cmp.Or(n.meant[fit], fit) }
