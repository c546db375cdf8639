package shared_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/security.md promises a test for each rule. Every row must name a test, and every named test
// must exist.
func TestThreatModelNamesExistingTests(t *testing.T) {
	t.Parallel()
	there := testNames(t)
	// Each row of a table with this heading names a test, and the document names at least so many.
	for document, c := range map[string]struct {
		heading string
		least   int
	}{
		"../docs/security.md":   {"| Attack |", 50},
		"../docs/guarantees.md": {"| What | Guarantee |", 15},
	} {
		data, err := os.ReadFile(document) // #nosec G304 -- a file of this repository
		if err != nil {
			t.Fatal(err)
		}
		name := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z0-9]\w*(?:/\w+)?`)
		named, shows := 0, false
		for i, line := range strings.Split(string(data), "\n") {
			found := name.FindAllString(line, -1)
			for _, n := range found {
				named++
				if !there[n] {
					t.Errorf("%s:%d: the test %s does not exist", document, i+1, n)
				}
			}
			switch {
			case strings.HasPrefix(line, c.heading):
				shows = true
			case !strings.HasPrefix(line, "|"):
				shows = false
			case shows && !strings.HasPrefix(line, "|---") && len(found) == 0:
				t.Errorf("%s:%d: names no test: %s", document, i+1, line)
			}
		}
		if named < c.least {
			t.Errorf("%s names only %d tests; check whether its form has changed", document, named)
		}
	}
}

// Each finding of the review in docs/security.md names the test that shows it, or says that it was kept.
func TestEachFindingNamesItsTestOrIsKept(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	test := regexp.MustCompile("`(Test|Fuzz)[A-Z]\\w+`")
	n := 0
	for _, row := range regexp.MustCompile(`(?m)^\| [HML]\d+ \|.*$`).FindAllString(string(data), -1) {
		if n++; !test.MatchString(row) && !strings.Contains(row, "kept, with this reason") {
			t.Errorf("no test and no reason: %s", row)
		}
	}
	if n != 4+8+13 {
		t.Errorf("%d findings", n)
	}
}

// testNames returns the tests and fuzz tests of the repository, and the command line's transcripts
// as subtests.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(\w+ \*testing\.[TF]\)`)
	names := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasSuffix(path, ".txtar"):
			names["TestScripts/"+strings.TrimSuffix(filepath.Base(path), ".txtar")] = true
		case strings.HasSuffix(path, "_test.go"):
			source, err := os.ReadFile(path) // #nosec G304 -- a file of this repository
			if err != nil {
				return err
			}
			for _, m := range declared.FindAllStringSubmatch(string(source), -1) {
				names[m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
