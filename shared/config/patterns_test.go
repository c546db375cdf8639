package config

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/scope"
)

// The documents and the schema show a pattern, and the decoder uses a loop instead. Both must accept the
// same texts.
func TestLoopsAgreeWithTheirPatterns(t *testing.T) {
	t.Parallel()
	if f, _ := reflect.TypeFor[Agent]().FieldByName("ID"); f.Tag.Get("pattern") != scope.AgentIDPattern {
		t.Fatalf("an agent's id must match %s", f.Tag.Get("pattern"))
	}
	word := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	key := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)
	short := rapid.StringOfN(rapid.SampledFrom([]rune("azAZ09._-@[`{/:é\n ")), 0, 3, -1)
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(short, rapid.String()).Draw(t, "text") +
			strings.Repeat("x", rapid.SampledFrom([]int{0, 0, 61, 62, 63, 64}).Draw(t, "more"))
		if got := isWord(s); got != word.MatchString(s) {
			t.Errorf("%q is a variable's name: %t", s, got)
		}
		if got := Member("a", s) == "a."+s; got != key.MatchString(s) {
			t.Errorf("%q is a plain key: %t", s, got)
		}
	})
}

func TestExpansionAgreesWithItsPattern(t *testing.T) {
	t.Parallel()
	variable := regexp.MustCompile(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{`)
	found := func(m string) string { return "<" + m + ">" }
	part := rapid.SampledFrom([]string{"$", "{", "}", "${", "$${", "${A}", "A", "_1", "1", "-", "é", " "})
	rapid.Check(t, func(t *rapid.T) {
		s := strings.Join(rapid.SliceOfN(part, 0, 8).Draw(t, "parts"), "")
		d := &decoder{c: &Config{Unset: map[string]string{}, expanded: &expansions{}},
			Options: Options{Lookup: func(name string) (string, bool) { return found("${" + name + "}"), true }}}
		want := variable.ReplaceAllStringFunc(s, func(m string) string {
			if m == "$${" {
				return "${"
			} else if m == "${" {
				return m
			}
			return found(m)
		})
		n := textNode(s)
		if got := d.expanded("", n); got != want {
			t.Errorf("%q becomes %q, want %q", s, got, want)
		}
	})
}

func TestDefaultsMatchTheirPatterns(t *testing.T) {
	t.Parallel()
	tried := 0
	var walk func(reflect.Type)
	walk = func(t2 reflect.Type) {
		for t2.Kind() == reflect.Slice || t2.Kind() == reflect.Pointer {
			t2 = t2.Elem()
		}
		if t2.Kind() != reflect.Struct || !strings.HasSuffix(t2.PkgPath(), "/config") {
			return
		}
		for f := range t2.Fields() {
			walk(f.Type)
			pattern, text := f.Tag.Get("pattern"), f.Tag.Get("default")
			if f.Type.String() == "time.Duration" {
				pattern = DurationPattern
			}
			if text == "" || pattern == "" {
				continue
			}
			if tried++; !regexp.MustCompile(pattern).MatchString(text) {
				t.Errorf("%s: the default %q does not match %s", f.Name, text, pattern)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	if tried < 3 {
		t.Errorf("only %d defaults have a pattern", tried)
	}
}
