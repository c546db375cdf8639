// Package bound names everything that a caller can make large, with the largest value that is accepted. Each bound is
// one value here: the code that refuses more reads its number and its text from it, and docs/limits.md is generated
// from the same values. The package decides nothing itself.
package bound

import (
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Bound is the largest size or number of one thing.
type Bound struct {
	// Name identifies the bound: in the tag bound of an input, and as a setting under bounds in keyway.yaml.
	Name string
	// Of says what is bounded, and in which unit.
	Of string
	// Default is the largest value that is accepted, unless a setting has another one.
	Default int
	// Settable is whether keyway.yaml may have another value. Defaults to false: the value is fixed.
	Settable bool
	// Kind decides the status of the answer to more.
	Kind fault.Kind
	// Text is what the caller gets for more. {max} stands for the bound, and {sent} for what was sent, if it is known.
	Text string
	// Why is the reason for the number.
	Why string
}

// Limits are the values of the bounds in one program, by name. A bound without a value has its default, so that nil
// stands for all defaults.
type Limits map[string]int

// Of returns the largest value that is accepted.
func (l Limits) Of(b *Bound) int {
	if n, ok := l[b.Name]; ok {
		return n
	}
	return b.Default
}

// Exceeded returns the text for a caller who sent more than most.
func (b *Bound) Exceeded(most, sent int) string {
	return strings.NewReplacer("{max}", strconv.Itoa(most), "{sent}", strconv.Itoa(sent)).Replace(b.Text)
}

// Fault returns the error for a caller who sent more than most.
func (b *Bound) Fault(most, sent int) *fault.Error {
	return fault.Public(b.Kind, b.Exceeded(most, sent), nil)
}

// Named returns the bound of that name. It panics for an unknown name, which is a mistake in a tag.
func Named(name string) *Bound {
	for _, b := range All() {
		if b.Name == name {
			return b
		}
	}
	panic("bound: no bound is named " + name)
}

// All returns the bounds in the order of docs/limits.md.
func All() []*Bound { return all }

// all is filled by add.
var all []*Bound

// add registers a bound, so that no bound can be left out of the table.
func add(b Bound) *Bound {
	all = append(all, &b)
	return &b
}
