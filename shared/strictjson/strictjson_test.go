package strictjson

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// pythonErrors holds where Python 3.11's json module finds the first error in a text,
// and its words; "" where there is no error. AgentOS sends these words to its clients.
var pythonErrors = []struct{ text, want string }{
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

// stricterErrors holds texts that Python accepts and that Check refuses: readers
// disagree about their meaning, or PostgreSQL can't store them.
var stricterErrors = []struct{ text, want string }{
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
	{"0." + strings.Repeat("1", 15_998), ""},
	{"0." + strings.Repeat("1", 15_999), "0: Number out of range"},
	{"\ufeff1", "0: Expecting value"},
}

// firstError is the offset of the first error in characters, as Python counts, and its
// words.
func firstError(text string, o Options) string {
	e := Check([]byte(text), o)
	if e == nil {
		return ""
	}
	return fmt.Sprintf("%d: %s", len([]rune(text[:e.Offset])), e.Text)
}

func TestErrorsHavePythonsWordsAndOffsets(t *testing.T) {
	t.Parallel()
	for _, row := range append(pythonErrors, stricterErrors...) {
		if got := firstError(row.text, Options{}); got != row.want {
			t.Errorf("%q: %q, want %q", row.text, got, row.want)
		}
	}
}

func TestInvalidUTF8IsAnError(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"\"a\xff\"": "2: Invalid UTF-8", "{\"\xed\xa0\x80\":1}": "2: Invalid UTF-8", "\"\xe2\x82": "1: Invalid UTF-8",
		"\xff": "0: Expecting value", "\"\ufffd\"": "",
	} {
		if got := firstError(text, Options{}); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestNumbersAreNotLimitedIfNobodyReadsThem(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"1e999", "-1e999", "1e-999"} {
		if got := firstError(text, Options{AnyNumber: true}); got != "" {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestNestingIsBounded(t *testing.T) {
	t.Parallel()
	nested := func(open, inner, shut string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(shut, n)
	}
	for _, o := range []Options{{}, {MaxDepth: 8}, {MaxDepth: 9_998}} {
		limit := o.MaxDepth
		if limit == 0 {
			limit = 512
		}
		for _, form := range [][3]string{{"[", "1", "]"}, {`{"a":`, "1", "}"}, {`[{"a":`, "1", "}]"}} {
			levels := strings.Count(form[0], "[") + strings.Count(form[0], "{")
			if got := firstError(nested(form[0], form[1], form[2], limit/levels), o); got != "" {
				t.Errorf("%s at the limit %d: %s", form[0], limit, got)
			}
			for _, n := range []int{limit/levels + 1, 10_000, 1_000_000} {
				if got := firstError(nested(form[0], form[1], form[2], n), o); !strings.HasSuffix(got, ": Nesting is too deep") {
					t.Errorf("%s %d levels deep: %q", form[0], n, got)
				}
			}
		}
	}
}

// agreesWithEncodingJSON compares Check and the walk over the value with
// encoding/json. What Check accepts, encoding/json must accept; what only Check
// refuses must have one of the four named reasons.
func agreesWithEncodingJSON(t interface{ Fatalf(string, ...any) }, text string) {
	e, valid := Check([]byte(text), Options{}), json.Valid([]byte(text))
	switch {
	case e == nil && !valid:
		t.Fatalf("%q is accepted, and encoding/json refuses it", text)
	case e == nil:
		sameParts(t, text)
	case e.Offset < 0 || e.Offset > len(text):
		t.Fatalf("%q: the error is at %d, outside the text", text, e.Offset)
	case valid && !slices.Contains([]string{notUTF8, halfSurrogate, outOfRange, tooDeep}, e.Text):
		t.Fatalf("%q is refused without a named reason: %s", text, e.Text)
	}
}

// sameParts compares the members or elements with those that encoding/json finds.
func sameParts(t interface{ Fatalf(string, ...any) }, text string) {
	root := Root(text)
	part := func(v Value) json.RawMessage {
		if text[v.Offset:v.Offset+len(v.Raw)] != v.Raw {
			t.Fatalf("%q: %q isn't at %d", text, v.Raw, v.Offset)
		}
		return json.RawMessage(v.Raw)
	}
	part(root)
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &members) == nil && members != nil {
		got := map[string]json.RawMessage{}
		for name, v := range root.Members() {
			got[name] = part(v)
		}
		if diff := cmp.Diff(members, got); diff != "" {
			t.Fatalf("%q: members (-encoding/json +ours):\n%s", text, diff)
		}
	}
	var elements []json.RawMessage
	if json.Unmarshal([]byte(text), &elements) == nil && elements != nil {
		got := []json.RawMessage{}
		for v := range root.Elements() {
			got = append(got, part(v))
		}
		if diff := cmp.Diff(elements, got); diff != "" {
			t.Fatalf("%q: elements (-encoding/json +ours):\n%s", text, diff)
		}
	}
	var want string
	isText := json.Unmarshal([]byte(text), &want) == nil && root.Raw != "null"
	if got, ok := root.Text(); ok != isText || got != want {
		t.Fatalf("%q: text %q, %v, and encoding/json reads %q, %v", text, got, ok, want, isText)
	}
}

func TestCheckAcceptsPartOfWhatEncodingJSONAccepts(t *testing.T) {
	t.Parallel()
	tokens := rapid.SampledFrom([]string{
		"{", "}", "[", "]", ",", ":", " ", "\n", `"a"`, `"`, `\`, `\u00e9`, `"\ud83d\ude00"`, `"\ud83d"`, `"\u0000"`,
		"1", "-", "0", ".", "e", "E", "+", "1e999", "true", "false", "null", "nul", "x", "ä", "\x00", "\x1f", "NaN",
		"\ufeff", "\"\xff\"", `{"a":1`, `,"b":[]`,
	})
	rapid.Check(t, func(t *rapid.T) {
		agreesWithEncodingJSON(t, strings.Join(rapid.SliceOfN(tokens, 0, 12).Draw(t, "text"), ""))
	})
}

func FuzzCheck(f *testing.F) {
	for _, row := range append(pythonErrors, stricterErrors...) {
		f.Add(row.text)
	}
	for _, text := range []string{
		"\"\xff\"", ` { "a" : [1, {"b": "]}"}] , "c":-1.5e3,"\u0061b":null } `,
		`{"a":1,"\u0061":2}`, `{"":"\ud83d\ude42\\\""}`,
		`[ "a,b" , {} ,[[]], -0.5e+3,null ]`, strings.Repeat("[", 600) + strings.Repeat("]", 600),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { agreesWithEncodingJSON(t, text) })
}

func TestMembersOfOneNameAreAllYielded(t *testing.T) {
	t.Parallel()
	const text = ` {"a": 1, "b":[], "\u0061" : "x" }`
	var got []string
	for name, v := range Root(text).Members() {
		got = append(got, fmt.Sprintf("%s=%s at %d", name, v.Raw, v.Offset))
	}
	if diff := cmp.Diff([]string{"a=1 at 7", "b=[] at 14", `a="x" at 29`}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOnlyObjectsHaveMembersAndOnlyArraysHaveElements(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`"[1]"`, "1", "null", "true", "{}", "[]", "[1]", `{"a":1}`} {
		for name := range Root(text).Members() {
			if text != `{"a":1}` {
				t.Errorf("%s has the member %q", text, name)
			}
		}
		for v := range Root(text).Elements() {
			if text != "[1]" {
				t.Errorf("%s has the element %s", text, v.Raw)
			}
		}
	}
}
