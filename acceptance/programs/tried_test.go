package programs

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
)

var update = flag.Bool("update", false, "write the table of docs/tried.md again")

// entry is one line of the table in docs/tried.md.
type entry struct {
	program string   // as people call it
	name    string   // its directory in testdata
	pkgs    []string // the packages whose pinned versions are shown
	tried   string   // what its tests do and see work
	not     string   // what does not work, or what the program does differently; empty if nothing is known
	date    string   // of the last change of the tests or the pins, as 2026-11-29
}

// entries are the programs that CI runs. Each NAME_test.go adds its own with tried.
var entries []entry

// tried adds an entry. Its result is there for a declaration: var _ = tried(entry{…}).
func tried(e entry) struct{} {
	entries = append(entries, e)
	return struct{}{}
}

// lockedVersion returns the version of a package in the package-lock.json of a program.
func lockedVersion(name, pkg string) (string, error) {
	data, err := os.ReadFile(filepath.Join("testdata", name, "package-lock.json"))
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("testdata/%s pins no version of %s", name, pkg)
	} else if err != nil {
		return "", err
	}
	var lock struct {
		Packages map[string]struct{ Version string }
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		return "", err
	}
	locked, ok := lock.Packages["node_modules/"+pkg]
	if !ok {
		return "", fmt.Errorf("testdata/%s/package-lock.json pins no version of %s", name, pkg)
	}
	return locked.Version, nil
}

const (
	begin = "<!-- Made by \"make generate\" from acceptance/programs. Do not edit this table. -->\n"
	end   = "<!-- The end of the generated table. -->\n"
)

func TestTheTableOfTriedProgramsIsCurrent(t *testing.T) {
	t.Parallel()
	file := process.Path("docs/tried.md")
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, hasBegin := bytes.Cut(got, []byte(begin))
	_, after, hasEnd := bytes.Cut(rest, []byte(end))
	if !hasBegin || !hasEnd {
		t.Fatalf("%s has no lines %q and %q", file, begin, end)
	}
	want := slices.Concat(before, []byte(begin), []byte(table(t)), []byte(end), after)
	if *update {
		if err := os.WriteFile(file, want, 0o600); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(got, want) {
		t.Error("the table of docs/tried.md differs from the programs and their pins: run make generate")
	}
}

func table(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	out.WriteString("\n| Program | Version | What is tried and works | What does not, or is different | Date |\n|---|---|---|---|---|\n")
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.program, b.program) })
	for _, e := range entries {
		var versions []string
		for _, pkg := range e.pkgs {
			version, err := pinned(e.name, pkg)
			if err != nil {
				t.Error(err)
			}
			versions = append(versions, pkg+" "+version)
		}
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s |\n", e.program, strings.Join(versions, ", "), e.tried, e.not, e.date)
	}
	out.WriteString("\n")
	return out.String()
}

// Each program of testdata is in the table, so a reader knows what CI runs.
func TestEachProgramIsInTheTable(t *testing.T) {
	t.Parallel()
	dirs, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if !slices.ContainsFunc(entries, func(e entry) bool { return e.name == dir.Name() }) {
			t.Errorf("testdata/%s has no entry: add one with tried", dir.Name())
		}
	}
}
