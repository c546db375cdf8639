package names_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/model/names"
)

// fit makes all names fit, and finds what each was made of.
func fit(all ...string) (fits, meant []string) {
	n := names.New()
	for _, name := range all {
		fits = append(fits, n.Fit(name))
		meant = append(meant, n.Own(n.Fit(name)))
	}
	return fits, meant
}

func TestNamesFitAndStayApart(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70)
	fits, meant := fit("a.b", "a_b", "a/b", "a.b", "", long+"1", long+"2", "größe")
	want := []string{"a_b", "a_b_2", "a_b_3", "a_b", "_", long[:64], long[:62] + "_2", "gr__e"}
	if diff := cmp.Diff(want, fits); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a.b", "a_b", "a/b", "a.b", "_", long + "1", long + "2", "größe"}, meant); diff != "" {
		t.Error(diff)
	}
}

func TestANameThatWasNeverMadeToFitIsItsOwn(t *testing.T) {
	t.Parallel()
	n := names.New()
	if n.Knows("a.b") || n.Own("a.b") != "a.b" {
		t.Error("a name is known before it was fitted")
	}
	if n.Fit("a.b"); !n.Knows("a.b") || n.Knows("a_b") {
		t.Error("the name that was fitted isn't known, or its fit is")
	}
}

var pattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// Names of any kind fit, stay apart and are found again.
func FuzzFit(f *testing.F) {
	f.Add("a.b", "a/b", "a_b_2")
	f.Add("", "_", "\xff")
	f.Fuzz(func(t *testing.T, one, two, three string) {
		all := []string{one, two, three}
		fits, meant := fit(all...)
		for i, fit := range fits {
			if !pattern.MatchString(fit) || meant[i] != all[i] && all[i] != "" {
				t.Errorf("%q fits as %q, which means %q", all[i], fit, meant[i])
			}
			for j := range i {
				if (fits[j] == fit) != (all[j] == all[i]) {
					t.Errorf("%q and %q are %q and %q", all[j], all[i], fits[j], fit)
				}
			}
		}
	})
}
