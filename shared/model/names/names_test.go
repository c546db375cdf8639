package names_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/model/names"
)

// fit maps all names with one Map, and maps each result back.
func fit(all ...string) (fitted, originals []string) {
	m := names.New()
	for _, name := range all {
		fitted = append(fitted, m.Fit(name))
		originals = append(originals, m.Original(m.Fit(name)))
	}
	return fitted, originals
}

func TestFittedNamesStayDifferent(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70)
	fitted, originals := fit("a.b", "a_b", "a/b", "a.b", "", long+"1", long+"2", "größe")
	want := []string{"a_b", "a_b_2", "a_b_3", "a_b", "_", long[:64], long[:62] + "_2", "gr__e"}
	if diff := cmp.Diff(want, fitted); diff != "" {
		t.Error(diff)
	}
	want = []string{"a.b", "a_b", "a/b", "a.b", "_", long + "1", long + "2", "größe"}
	if diff := cmp.Diff(want, originals); diff != "" {
		t.Error(diff)
	}
}

func TestANameThatWasNotFittedIsItsOwnOriginal(t *testing.T) {
	t.Parallel()
	m := names.New()
	if m.Has("a.b") || m.Original("a.b") != "a.b" {
		t.Error("the map has a name before Fit was called with it")
	}
	if m.Fit("a.b"); !m.Has("a.b") || m.Has("a_b") {
		t.Error("the map doesn't have the name that was fitted, or it has the result of Fit")
	}
}

var pattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// FuzzFit checks that all names fit the pattern, stay different, and map back to their
// originals.
func FuzzFit(f *testing.F) {
	f.Add("a.b", "a/b", "a_b_2")
	f.Add("", "_", "\xff")
	f.Fuzz(func(t *testing.T, one, two, three string) {
		all := []string{one, two, three}
		fitted, originals := fit(all...)
		for i, fit := range fitted {
			if !pattern.MatchString(fit) || originals[i] != all[i] && all[i] != "" {
				t.Errorf("%q is fitted to %q, which maps back to %q", all[i], fit, originals[i])
			}
			for j := range i {
				if (fitted[j] == fit) != (all[j] == all[i]) {
					t.Errorf("%q and %q are fitted to %q and %q", all[j], all[i], fitted[j], fit)
				}
			}
		}
	})
}
