package input

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Where Python 3.11's json module finds the first mistake in a text, and its words;
// "" where there is none. AgentOS passes them on.
var python = []struct{ text, says string }{
	{"", "0: Expecting value"},
	{" ", "1: Expecting value"},
	{"\n\t", "2: Expecting value"},
	{"nul", "0: Expecting value"},
	{"nulll", "4: Extra data"},
	{"true false", "5: Extra data"},
	{"tru", "0: Expecting value"},
	{"x", "0: Expecting value"},
	{"{", "1: Expecting property name enclosed in double quotes"},
	{"{ ", "2: Expecting property name enclosed in double quotes"},
	{"[", "1: Expecting value"},
	{"[ ", "2: Expecting value"},
	{`{"a"`, "4: Expecting ':' delimiter"},
	{`{"a" `, "5: Expecting ':' delimiter"},
	{`{"a":`, "5: Expecting value"},
	{`{"a": `, "6: Expecting value"},
	{`{"a":1`, "6: Expecting ',' delimiter"},
	{`{"a":1 `, "7: Expecting ',' delimiter"},
	{`{"a":1,`, "7: Expecting property name enclosed in double quotes"},
	{`{"a":1, `, "8: Expecting property name enclosed in double quotes"},
	{`{"a":1,}`, "7: Expecting property name enclosed in double quotes"},
	{`{"a":1 ,}`, "8: Expecting property name enclosed in double quotes"},
	{`{"a":1, }`, "8: Expecting property name enclosed in double quotes"},
	{"{,}", "1: Expecting property name enclosed in double quotes"},
	{"{ ,}", "2: Expecting property name enclosed in double quotes"},
	{"{a:1}", "1: Expecting property name enclosed in double quotes"},
	{"{'a':1}", "1: Expecting property name enclosed in double quotes"},
	{"{1:2}", "1: Expecting property name enclosed in double quotes"},
	{`{"a" 1}`, "5: Expecting ':' delimiter"},
	{`{"a"=1}`, "4: Expecting ':' delimiter"},
	{`{"a":}`, "5: Expecting value"},
	{`{"a":,}`, "5: Expecting value"},
	{`{"a":1 "b":2}`, "7: Expecting ',' delimiter"},
	{"[1", "2: Expecting ',' delimiter"},
	{"[1 ", "3: Expecting ',' delimiter"},
	{"[1,", "3: Expecting value"},
	{"[1, ", "4: Expecting value"},
	{"[1,]", "3: Expecting value"},
	{"[1, ]", "4: Expecting value"},
	{"[,]", "1: Expecting value"},
	{"[1 2]", "3: Expecting ',' delimiter"},
	{"[1;2]", "2: Expecting ',' delimiter"},
	{"]", "0: Expecting value"},
	{"}", "0: Expecting value"},
	{"[}", "1: Expecting value"},
	{"{]", "1: Expecting property name enclosed in double quotes"},
	{`"`, "0: Unterminated string starting at"},
	{`"abc`, "0: Unterminated string starting at"},
	{`"\`, "0: Unterminated string starting at"},
	{`"\"`, "0: Unterminated string starting at"},
	{"\"a\tb\"", "2: Invalid control character at"},
	{"\"a\nb", "2: Invalid control character at"},
	{"\"\u0000\"", "1: Invalid control character at"},
	{"\"\u001f\"", "1: Invalid control character at"},
	{"\"\u007f\"", ""},
	{`"\x"`, "1: Invalid \\escape"},
	{`"ab\q cd"`, "3: Invalid \\escape"},
	{`"\u12"`, "2: Invalid \\uXXXX escape"},
	{`"\u12G4"`, "2: Invalid \\uXXXX escape"},
	{`"\u`, "2: Invalid \\uXXXX escape"},
	{`"\u1`, "2: Invalid \\uXXXX escape"},
	{`"\uD83D\u12"`, "8: Invalid \\uXXXX escape"},
	{`"\ud83d\ude00"`, ""},
	{`"\u0000"`, ""},
	{"-", "0: Expecting value"},
	{"+1", "0: Expecting value"},
	{"01", "1: Extra data"},
	{"-01", "2: Extra data"},
	{"1.", "1: Extra data"},
	{"[1.]", "2: Expecting ',' delimiter"},
	{"[1. ]", "2: Expecting ',' delimiter"},
	{".5", "0: Expecting value"},
	{"1e", "1: Extra data"},
	{"[1e]", "2: Expecting ',' delimiter"},
	{"1e+", "1: Extra data"},
	{"[-]", "1: Expecting value"},
	{"[-a]", "1: Expecting value"},
	{"1.e5", "1: Extra data"},
	{"[01]", "2: Expecting ',' delimiter"},
	{"[1.5.5]", "4: Expecting ',' delimiter"},
	{"0x10", "1: Extra data"},
	{"nan", "0: Expecting value"},
	{"1 2", "2: Extra data"},
	{"{}{}", "2: Extra data"},
	{"{} x", "3: Extra data"},
	{"[]\n]", "3: Extra data"},
	{"ä", "0: Expecting value"},
	{`["ä", x]`, "6: Expecting value"},
	{`{"ä😀": x}`, "7: Expecting value"},
	{"\u00a01", "0: Expecting value"},
	{"'a'", "0: Expecting value"},
	{`{"a":1}}`, "7: Extra data"},
	{"[1]]", "3: Extra data"},
	{`{"a":"b}`, "5: Unterminated string starting at"},
	{`{"a":[1,{"b":2]}`, "14: Expecting ',' delimiter"},
	{"[tru]", "1: Expecting value"},
	{"[true false]", "6: Expecting ',' delimiter"},
	{"[nullx]", "5: Expecting ',' delimiter"},
	{`{"a":tru}`, "5: Expecting value"},
	{"/* c */ 1", "0: Expecting value"},
	{`"a" "b"`, "4: Extra data"},
	{`["a" "b"]`, "5: Expecting ',' delimiter"},
	{"-0", ""},
	{"-0.0", ""},
	{"1E5", ""},
	{"1e05", ""},
	{`"\u00e9"`, ""},
	{`"\/"`, ""},
	{`{"":1}`, ""},
	{"[[[[]]]]", ""},
	{`{"a":{}}`, ""},
}

// Texts that Python takes and that are refused here: they have no one meaning, or
// nothing to be stored as.
var stricter = []struct{ text, says string }{
	{`"\ud83d"`, "1: Half a surrogate pair"},
	{`"\ude00"`, "1: Half a surrogate pair"},
	{`"\ud83dx"`, "1: Half a surrogate pair"},
	{`"\ud83d\n"`, "1: Half a surrogate pair"},
	{"NaN", "0: Expecting value"},
	{"Infinity", "0: Expecting value"},
	{"-Infinity", "0: Expecting value"},
	{"[NaN]", "1: Expecting value"},
	{"1e999", "0: Number out of range"},
	{"1e-999", "0: Number out of range"},
	{"-1e999", "0: Number out of range"},
	{"\ufeff1", "0: Expecting value"},
}

// found is where check finds a mistake, in characters as Python counts, and what it
// says.
func found(text string) string {
	e := check([]byte(text))
	if e == nil {
		return ""
	}
	return fmt.Sprintf("%d: %s", len([]rune(text[:e.at])), e.text)
}

func TestMistakesInJSONAreToldInPythonsWords(t *testing.T) {
	t.Parallel()
	for _, row := range append(python, stricter...) {
		if got := found(row.text); got != row.says {
			t.Errorf("%q: %q, want %q", row.text, got, row.says)
		}
	}
}

func TestNestingIsBounded(t *testing.T) {
	t.Parallel()
	nested := func(open, inner, shut string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(shut, n)
	}
	for _, form := range [][3]string{{"[", "1", "]"}, {`{"a":`, "1", "}"}, {`[{"a":`, "1", "}]"}} {
		levels := strings.Count(form[0], "[") + strings.Count(form[0], "{")
		if got := found(nested(form[0], form[1], form[2], maxDepth/levels)); got != "" {
			t.Errorf("%s at the bound: %s", form[0], got)
		}
		for _, n := range []int{maxDepth/levels + 1, 10_000, 1_000_000} {
			if got := found(nested(form[0], form[1], form[2], n)); !strings.HasSuffix(got, ": Nesting is too deep") {
				t.Errorf("%s %d levels deep: %q", form[0], n, got)
			}
		}
	}
}

// strict reports whether one of the listed reasons is why check refuses what
// encoding/json takes.
func strict(e *syntaxError) bool {
	return e.text == "Half a surrogate pair" || e.text == "Number out of range" || e.text == "Nesting is too deep"
}

// agrees holds check against encoding/json for one text.
func agrees(t interface{ Fatalf(string, ...any) }, text string) {
	e, valid := check([]byte(text)), json.Valid([]byte(text))
	switch {
	case e == nil && !valid:
		t.Fatalf("%q passes, and isn't JSON", text)
	case e != nil && valid && !strict(e):
		t.Fatalf("%q is JSON, and is refused: %s", text, e)
	case e != nil && (e.at < 0 || e.at > len(text)):
		t.Fatalf("%q: a mistake at %d, outside the text", text, e.at)
	}
}

func TestCheckIsEncodingJSONAndStricterInThreeWaysOnly(t *testing.T) {
	t.Parallel()
	tokens := rapid.SampledFrom([]string{
		"{", "}", "[", "]", ",", ":", " ", "\n", `"a"`, `"`, `\`, `\u00e9`, `"\ud83d\ude00"`, `"\ud83d"`, `"\u0000"`, "1", "-", "0", ".", "e", "E", "+",
		"1e999", "true", "false", "null", "nul", "x", "ä", "\x00", "\x1f", "NaN", "\ufeff",
	})
	rapid.Check(t, func(t *rapid.T) { agrees(t, strings.Join(rapid.SliceOfN(tokens, 0, 12).Draw(t, "text"), "")) })
}

func FuzzCheck(f *testing.F) {
	for _, row := range append(python, stricter...) {
		f.Add(row.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ToValidUTF8(text, "") == text { // body has looked
			agrees(t, text)
		}
	})
}
