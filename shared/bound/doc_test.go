package bound_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/bound"
)

//go:generate go test -run TestTheTableOfBoundsIsCurrent -update .

var update = flag.Bool("update", false, "rewrite docs/limits.md")

func TestTheTableOfBoundsIsCurrent(t *testing.T) {
	t.Parallel()
	const path = "../../docs/limits.md"
	constants, err := markdownOfConstants()
	if err != nil {
		t.Fatal(err)
	}
	want := append(markdown(), constants...)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(want) {
		t.Errorf("docs/limits.md is not current; run make generate (error %v)", err)
	}
}

func TestEachBoundHasANameANumberAndAReasonOfItsOwn(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, b := range bound.All() {
		if b.Name == "" || names[b.Name] || b.Of == "" || b.Why == "" || b.Default <= 0 {
			t.Errorf("%+v", *b)
		}
		names[b.Name] = true
		if b.Kind.Status() < 400 || b.Kind.Status() > 599 {
			t.Errorf("%s has status %d", b.Name, b.Kind.Status())
		}
		if text := b.Exceeded(7, 8); strings.ContainsAny(text, "{}") {
			t.Errorf("%s: %s", b.Name, text)
		}
	}
}
