package programs

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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

// pins are the files in which a program of testdata pins its packages, with the form in which a
// version stands there: versions.txt is for what an install.sh fetches.
var pins = map[string]string{
	"requirements.txt":  `(?m)^%s(?:\[[^]]*\])?==(\S+)$`,
	"versions.txt":      `(?m)^%s==(\S+)$`,
	"package-lock.json": `"node_modules/%s": \{\s*"version": "([^"]+)"`,
	"pom.xml":           `<artifactId>%s</artifactId>\s*<version>([^<]+)<`,
}

// pinned returns the version of a package that a program of testdata pins.
func pinned(name, pkg string) (string, error) {
	for file, form := range pins {
		data, err := os.ReadFile(filepath.Join("testdata", name, file))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if m := regexp.MustCompile(fmt.Sprintf(form, regexp.QuoteMeta(pkg))).FindSubmatch(data); m != nil {
			return string(m[1]), nil
		}
	}
	return "", fmt.Errorf("testdata/%s pins no version of %s", name, pkg)
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
	out.WriteString("\n| Program | Version | What is tried and works | What does not, or is different | Date |\n")
	out.WriteString("|---|---|---|---|---|\n")
	byName := slices.Clone(entries) // Other tests read the list at the same time.
	slices.SortFunc(byName, func(a, b entry) int { return strings.Compare(a.program, b.program) })
	for _, e := range byName {
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
