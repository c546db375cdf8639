package owner

import "strings"

// GroupOf returns the group of a name: what it has up to the first #, or "" for a bare name.
func GroupOf(name string) string {
	issuer, _, qualified := strings.Cut(name, "#")
	if !qualified {
		return ""
	}
	return issuer + "#"
}
