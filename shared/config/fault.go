package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fault is one complaint about one place of the file.
type Fault struct {
	File         string // as the caller named it; empty when unknown
	Line, Column int    // from 1, in characters; 0 when unknown
	Path         string // "agents[1].model"; empty for the file as a whole
	Text         string // what is wrong; never a secret
	Remedy       string // what to do
}

// String is "keyway.yaml:12:5: agents[1].model: text; remedy", without the parts
// that are unknown.
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

// Faults is every complaint at once, as an error of one line each.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// Member is the path of an object's member: "auth.keys", or
// `headers["X-Key: a"]` when the key is no plain word.
func Member(path, key string) string {
	switch {
	case !isWord(strings.ReplaceAll(key, "-", "0")):
		return path + "[" + strconv.Quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// Element is the path of a list's element: "agents[1]".
func Element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// suggest is the remedy for a word that is none of the known ones.
func suggest(word string, known []string) string {
	if k := nearest(word, known); k != "" {
		return "did you mean " + k + "?"
	}
	return "use " + OneOf(known)
}

// nearest is the known word that was probably meant, or "".
func nearest(word string, known []string) string {
	closest, best := "", 3
	for _, k := range known {
		d := distance(strings.ToLower(word), strings.ToLower(k))
		if strings.HasSuffix(word, "_"+k) { // Agno's verification_keys is keys here
			d = 1
		}
		if d < best && d < len(k) {
			closest, best = k, d
		}
	}
	return closest
}

// OneOf lists words as "a, b or c", for a remedy that names them all.
func OneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// distance counts the edits between two words, a swap of neighbours being two.
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

// clean reports whether nothing at, around or below path was complained about,
// so that one mistake is not reported twice.
func (d *decoder) clean(path string) bool {
	return !slices.ContainsFunc(d.faults, func(f Fault) bool { return within(f.Path, path) || within(path, f.Path) })
}

func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (outer == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

func (d *decoder) fault(path, text, remedy string) {
	d.faults = append(d.faults, Fault{Path: path, Text: text, Remedy: remedy})
}

func (d *decoder) warn(path, text, remedy string) {
	d.c.Warnings = append(d.c.Warnings, Fault{Path: path, Text: text, Remedy: remedy})
}
