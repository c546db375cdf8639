package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fault is one error in keyway.yaml, or a warning about it, with the place that it concerns.
type Fault struct {
	// File is the name of the file as the caller gave it. Empty if unknown.
	File string
	// Line and Column count from 1, Column in characters. Both are 0 if unknown: the JSON form of
	// the file has no positions, package yamlfile adds them.
	Line, Column int
	// Path is the place inside the file, such as "agents[1].model". Empty for the whole file.
	Path string
	// Text says what is wrong. It follows the path, as in "agents[1].model: is empty", and never
	// contains a secret.
	Text string
	// Remedy says what to do. Empty if nothing more can be said.
	Remedy string
}

// String returns "keyway.yaml:12:5: agents[1].model: text; remedy", without the parts that are
// unknown.
func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File + ":")
	}
	if f.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", f.Line, f.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Text)
	if f.Remedy != "" {
		b.WriteString("; " + f.Remedy)
	}
	return b.String()
}

// Faults are all errors of a file together. An operator then corrects them in one pass instead of
// starting the program once for each.
type Faults []Fault

// Error returns one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// Member returns the path of an object's member: "auth.keys", or `headers["X-Key: a"]` if the key
// has other characters than those of a variable's name and hyphens.
func Member(path, key string) string {
	switch {
	case !isWord(strings.ReplaceAll(key, "-", "0")):
		return path + "[" + strconv.Quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// Element returns the path of a list's element: "agents[1]".
func Element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// suggest returns the remedy for a word that is not one of the known ones.
func suggest(word string, known []string) string {
	if k := nearest(word, known); k != "" {
		return "did you mean " + k + "?"
	}
	return "use " + OneOf(known)
}

// nearest returns the known word that was probably meant: the one with the fewest edits, and at
// most two. It returns "" if none is that close.
func nearest(word string, known []string) string {
	closest, best := "", 3
	for _, k := range known {
		d := distance(strings.ToLower(word), strings.ToLower(k))
		if strings.HasSuffix(word, "_"+k) { // AgentOS's verification_keys is called keys here
			d = 1
		}
		if d < best && d < len(k) {
			closest, best = k, d
		}
	}
	return closest
}

// OneOf lists words as "a, b or c", for a remedy that names all of them.
func OneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// distance returns the Levenshtein distance of two words: insertions, deletions and replacements of
// bytes. It keeps one row of the table. A swap of neighbours counts as two edits.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// clean reports whether no error has been reported at path, above it or below it. A check that
// depends on a value asks first, so that one mistake is not reported twice.
func (d *decoder) clean(path string) bool {
	return !slices.ContainsFunc(d.faults, func(f Fault) bool { return within(f.Path, path) || within(path, f.Path) })
}

// within reports whether path is outer or a path below it. "agents[10]" is not within "agents[1]".
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (outer == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// maxFaults is how many errors of a file are reported. Each check compares with those so far, and a person corrects the
// first ones first.
const maxFaults = 100

func (d *decoder) fault(path, text, remedy string) {
	if len(d.faults) >= maxFaults {
		d.moreFaults++
		return
	}
	d.faults = append(d.faults, d.written(path, text, remedy))
}

func (d *decoder) warn(path, text, remedy string) {
	d.c.Warnings = append(d.c.Warnings, d.written(path, text, remedy))
}

func (d *decoder) note(path, text, remedy string) {
	d.c.Notes = append(d.c.Notes, d.written(path, text, remedy))
}

// written returns a fault without any value of a variable, since the value can be a secret. A message that changes a
// text before it quotes it, or cuts it, passes it through AsWritten first.
func (d *decoder) written(path, text, remedy string) Fault {
	return Fault{Path: path, Text: d.c.AsWritten(text), Remedy: d.c.AsWritten(remedy)}
}
