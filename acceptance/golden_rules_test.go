package acceptance

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestComparisonFindsEachKindOfDifference tests the comparison itself.
func TestComparisonFindsEachKindOfDifference(t *testing.T) {
	t.Parallel()
	const (
		one   = "3c29ef3f-d559-4db7-b4f0-a9c276ddcf0d"
		other = "00000000-0000-4000-8000-000000000001"
		third = "00000000-0000-4000-8000-000000000002"
	)
	for _, c := range []struct{ name, want, got, diff string }{
		{"the same", `{"a":[1,"x",null,true],"b":{}}`, `{"a":[1.0,"x",null,true],"b":{}}`, ""},
		{"a member missing", `{"a":{"b":1,"c":2}}`, `{"a":{"c":2}}`, "a.b is missing"},
		{"an extra member", `{"a":[{}]}`, `{"a":[{"b":1}]}`, "a[].b is extra"},
		{"another order", `{"a":1,"b":2}`, `{"b":2,"a":1}`, "has its members in the order b a"},
		{"another number", `{"total_tokens":14}`, `{"total_tokens":15}`, "total_tokens 14 → 15"},
		{"another text", `{"detail":"no"}`, `{"detail":"yes"}`, `detail "no" → "yes"`},
		{"another type", `{"detail":[1]}`, `{"detail":"yes"}`, `detail [1] → "yes"`},
		{"a number as text", `{"n":1}`, `{"n":"1"}`, `n 1 → "1"`},
		{"null for false", `{"a":false}`, `{"a":null}`, `a false → null`},
		{"fewer elements", `[1,2]`, `[1]`, "has 2 → 1 elements"},
		{"a time", `{"created_at":1795301598,"updated_at":"2026-11-21T22:53:57Z"}`,
			`{"created_at":1,"updated_at":"2027-01-01T00:00:00Z"}`, ""},
		{"a time in another form", `{"updated_at":"2026-11-21T22:53:57Z"}`, `{"updated_at":"2026-11-21T22:53:57.12"}`,
			`updated_at "2026-11-21T22:53:57Z" → "2026-11-21T22:53:57.12"`},
		{"a duration in a text", `"took 0.5s"`, `"took 12.25s"`, ""},
		{"an id", `{"id":"` + one + `","text":"run ` + one + `"}`, `{"id":"` + other + `","text":"run ` + other + `"}`, ""},
		{"an id that changes", `["` + one + `","` + one + `"]`, `["` + other + `","` + third + `"]`,
			"[] is an id that changes between answers"},
		{"an id for two", `["` + one + `","` + third + `"]`, `["` + other + `","` + other + `"]`,
			"[] is an id that stands for two"},
		{"no id", `"` + one + `"`, `"x"`, `is an id that became "x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			want, err1 := ordered(c.want)
			got, err2 := ordered(c.got)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			cmp := &comparison{ids: newBindings()}
			if cmp.value("", want, got); strings.Join(cmp.found, "; ") != c.diff {
				t.Errorf("found %q, want %q", cmp.found, c.diff)
			}
		})
	}
}

func TestStreamsAreAlignedByEventName(t *testing.T) {
	t.Parallel()
	stream := func(names string) (list []namedEvent) {
		for name := range strings.FieldsSeq(names) {
			name, data, _ := strings.Cut(name, "=")
			list = append(list, namedEvent{name, data})
		}
		return list
	}
	c := &comparison{ids: newBindings()}
	c.events(stream("Start Text=a Text=b Tool Tool End"), stream("Start Text=a Text=c More Tool End"))
	want := []string{`Text "b" → "c"`, "event Tool is missing 1×", "event More is extra 1×"}
	if diff := cmp.Diff(want, c.found); diff != "" {
		t.Error(diff)
	}
}

func TestListOfDifferencesIsExact(t *testing.T) {
	t.Parallel()
	lines, err := parseDifferences("## Else\n| `x` | `y` | z |\n" + exchangesHeading + "\n" +
		"| exchanges | differ in | why |\n|---|---|---|\n" +
		"| `runs/tool*`, `runs/old` | `a.b is extra`, `t \"x\\|y\" → *` | because |\n")
	if err != nil || len(lines) != 1 {
		t.Fatalf("%d lines, error %v", len(lines), err)
	}
	list := &differences{lines: lines}
	for _, c := range []struct {
		exchange, difference string
		want                 bool
	}{
		{"runs/tool json", "a.b is extra", true},
		{"runs/tool json", "a.b is missing", false},
		{"runs/a tool", "a.b is extra", false},
		{"users/tool", "a.b is extra", false},
	} {
		if got := list.covers(c.exchange, c.difference); got != c.want {
			t.Errorf("%s %s: covered %t", c.exchange, c.difference, got)
		}
	}
	if got := strings.Join(list.stale(), " "); !strings.Contains(got, "runs/old") ||
		!strings.Contains(got, `t "x|y" → *`) || strings.Contains(got, "tool") {
		t.Errorf("stale: %s", got)
	}
	if _, err := parseDifferences(exchangesHeading + "\n| `a` | `b` | |\n"); err == nil {
		t.Error("a line without a reason is accepted")
	}
}
