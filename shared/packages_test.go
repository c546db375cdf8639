package shared_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/doc"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

//go:generate go test -run TestThePackageTableIsCurrent -update .

var update = flag.Bool("update", false, "write docs/packages.md again")

const packagesFile = "../docs/packages.md"

// The table is made from the package comments and from the import table, so it cannot be out of date.
func TestThePackageTableIsCurrent(t *testing.T) {
	t.Parallel()
	want := packageTable(t)
	if *update {
		if err := os.WriteFile(packagesFile, want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(packagesFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/packages.md differs from the package comments and the import table: run make generate")
	}
}

func packageTable(t *testing.T) []byte {
	t.Helper()
	summaries := packageSummaries(t)
	var out bytes.Buffer
	out.WriteString(`# Packages

<!-- Made by "make generate" from the package comments and shared/imports_test.go. Do not edit. -->

Each package is one step of a request or one noun. [design.md](design.md) shows in which order a request passes them.
A test fails when a package imports anything of the project or of another module that its row does not list.
The standard library is not listed.

| Package | What it does | Imports of the project | Imports of other modules |
|---|---|---|---|
`)
	for _, name := range slices.Sorted(maps.Keys(rooms)) {
		var own, others []string
		for path := range strings.FieldsSeq(rooms[name]) {
			if path == "shared/" {
				own = append(own, "any package of `shared`")
			} else if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
				others = append(others, strings.TrimPrefix(path, "github.com/"))
			} else {
				own = append(own, "`"+strings.TrimPrefix(path, "shared/")+"`")
			}
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n",
			name, summaries[name], strings.Join(own, ", "), strings.Join(others, ", "))
	}
	return out.Bytes()
}

// packageSummaries are the first sentences of the package comments, without the words "Package NAME".
func packageSummaries(t *testing.T) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.ImportPath}}\t{{.Name}}\t{{.Doc}}", "./...")
	cmd.Dir = ".."
	list, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	summaries := map[string]string{}
	for line := range strings.Lines(string(list)) {
		fields := strings.SplitN(strings.TrimSpace(line), "\t", 3)
		path := strings.TrimPrefix(fields[0], module)
		if len(fields) < 3 || fields[2] == "" {
			if path != strings.TrimSuffix(module, "/")+"/shared" && rooms[path] != "" {
				t.Errorf("%s has no package comment", path)
			}
			continue
		}
		text := new(doc.Package).Synopsis(fields[2])
		for _, prefix := range []string{"Package " + fields[1] + " ", "Command " + fields[1] + " "} {
			text = strings.TrimPrefix(text, prefix)
		}
		summaries[path] = strings.ReplaceAll(text, "|", "\\|")
	}
	return summaries
}

// A package comment says what the package decides, in one to five sentences. What else a reader needs is in the
// comment of the function or the type concerned.
func TestPackageCommentsHaveOneToFiveSentences(t *testing.T) {
	t.Parallel()
	sentence := regexp.MustCompile(`[.!?](\s|$)`)
	for _, path := range trackedFiles(t) {
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", path), nil,
			parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		if file.Doc == nil {
			continue // TestThePackageTableIsCurrent finds a package without any comment
		}
		text := file.Doc.Text()
		if n := len(sentence.FindAllString(text, -1)); n < 1 || n > 5 {
			t.Errorf("%s: the package comment has %d sentences", path, n)
		}
		if !strings.HasPrefix(text, "Package "+file.Name.Name+" ") && !strings.HasPrefix(text, "Command ") {
			t.Errorf("%s: the package comment begins with %.30q", path, text)
		}
	}
}
