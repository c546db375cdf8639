package scope

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// maxLookalike is the length, in bytes, of the longest word that Remedy compares. A
// person writes no longer scope, and a caller must not be able to make the comparison
// expensive.
const maxLookalike = 200

// Remedy returns advice for a scope that does not grant need but looks as if its
// author meant it to: several scopes in one string, a wildcard in the wrong place, an
// empty part, or other case. The advice starts with "write" and always grants need.
// Remedy returns "" for a scope that is about something else, and for one that is
// correct but narrower than need. It decides nothing: Covers alone does.
func Remedy(text string, need Need) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,;\t\r\n", r) })
	if len(words) > 1 {
		helps := func(word string) bool {
			return NewSet([]string{word}, "").Covers(need) || lookalike(word, need) != ""
		}
		if slices.ContainsFunc(words, helps) {
			return "write each scope as a separate string"
		}
		return ""
	}
	if len(words) == 1 {
		return lookalike(words[0], need)
	}
	return ""
}

// lookalike returns the advice for one scope without separators in it.
func lookalike(word string, need Need) string {
	// No scope can name an id with a colon, and one with * means all of them.
	if len(word) > maxLookalike || strings.ContainsAny(need.ID, "*:") {
		return ""
	}
	parts := slices.DeleteFunc(strings.Split(strings.ToLower(word), ":"), func(s string) bool { return s == "" })
	if len(parts) < 2 || len(parts) > 3 {
		return ""
	}
	if !resembles(canonical(parts[0]), need.Resource) || !resembles(parts[len(parts)-1], need.Action) {
		return ""
	}
	all := Need{Resource: need.Resource, Action: need.Action}
	switch {
	case len(parts) == 3 && parts[1] != "*":
		if need.ID == "" || !resembles(parts[1], need.ID) {
			return ""
		}
		return fmt.Sprintf("write %q", need)
	case need.ID != "":
		return fmt.Sprintf("write %q, or %q for all", need, all)
	}
	return fmt.Sprintf("write %q", all)
}

// resembles reports whether a part of a scope is the name in any case, or a pattern
// that matches it. It is generous, because its result only leads to advice.
func resembles(part, name string) bool {
	ok, err := path.Match(part, strings.ToLower(name))
	return ok && err == nil
}
