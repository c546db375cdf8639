package scope

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// maxLookalike bounds what Remedy compares; no scope that a person wrote is longer.
const maxLookalike = 200

// Remedy tells what to write in place of a scope that does not grant need but
// looks as if it should: several in one string, a wildcard that is none, an empty
// part, another case. It is "" for scopes that are about something else.
func Remedy(text string, need Need) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,;\t\r\n", r) })
	if len(words) > 1 {
		apt := func(word string) bool { return NewSet([]string{word}, "").Covers(need) || lookalike(word, need) != "" }
		if slices.ContainsFunc(words, apt) {
			return "write each scope as a string of its own"
		}
		return ""
	}
	if len(words) == 1 {
		return lookalike(words[0], need)
	}
	return ""
}

// lookalike reads a scope as its writer may have meant it.
func lookalike(word string, need Need) string {
	// No scope names an id with a colon, and one with * means all of them.
	if len(word) > maxLookalike || strings.ContainsAny(need.ID, "*:") {
		return ""
	}
	parts := slices.DeleteFunc(strings.Split(strings.ToLower(word), ":"), func(s string) bool { return s == "" })
	if len(parts) < 2 || len(parts) > 3 {
		return ""
	}
	if !means(canonical(parts[0]), need.Resource) || !means(parts[len(parts)-1], need.Action) {
		return ""
	}
	all := Need{Resource: need.Resource, Action: need.Action}
	switch {
	case len(parts) == 3 && parts[1] != "*":
		if need.ID == "" || !means(parts[1], need.ID) {
			return ""
		}
		return fmt.Sprintf("write %q", need)
	case need.ID != "":
		return fmt.Sprintf("write %q, or %q for all", need, all)
	}
	return fmt.Sprintf("write %q", all)
}

// means reads a * anywhere in a part as its writer did. A part with other signs of
// a pattern is compared by them too: it only ever leads to advice.
func means(part, name string) bool {
	ok, err := path.Match(part, strings.ToLower(name))
	return ok && err == nil
}
