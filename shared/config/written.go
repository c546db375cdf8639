package config

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// expansions remembers which variables of the file were replaced by which values. Commands print the file's texts, and
// the values can be secrets: a person who proposes a file could otherwise read the environment that checks it.
type expansions struct {
	whole  map[string]string // a text with its variables replaced -> as the file has it
	values map[string]string // the value of a variable -> ${NAME}
}

// minShown is the length in bytes from which the value of a variable is replaced inside another text too. A shorter one
// would match by chance inside other words.
const minShown = 4

func (e *expansions) value(value, variable string) {
	if e.values == nil {
		e.whole, e.values = map[string]string{}, map[string]string{}
	}
	e.values[value] = variable
}

func (e *expansions) text(expanded, raw string) {
	if e.whole != nil && expanded != "" {
		e.whole[expanded] = raw
	}
}

// asWritten returns text with variables in place of their values: a text of the file as the file has it, and in a
// longer text, such as a message, each value of at least minShown bytes, also in lower case.
func (e *expansions) asWritten(text string) string {
	if e == nil || len(e.values) == 0 {
		return text
	}
	if raw, ok := e.whole[text]; ok {
		return raw
	}
	if variable, ok := e.values[text]; ok {
		return variable
	}
	long := func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) }
	var pairs []string
	for _, value := range slices.SortedFunc(maps.Keys(e.values), long) { // a value can contain another one
		if len(value) >= minShown {
			pairs = append(pairs, value, e.values[value], strings.ToLower(value), e.values[value])
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// AsWritten returns text with each value of a variable of the file replaced by the variable as the file has it,
// ${NAME}. Everything that a command prints goes through it, because only decisions need the values. A text that equals
// a value by chance is replaced too. A value of fewer than 4 bytes is replaced only if the text is nothing else.
func (c *Config) AsWritten(text string) string { return c.expanded.asWritten(text) }
