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
	data, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	there := testNames(t)
	name := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z0-9]\w*(?:/\w+)?`)
	named, shows := 0, false
	for i, line := range strings.Split(string(data), "\n") {
		found := name.FindAllString(line, -1)
		for _, n := range found {
			named++
			if !there[n] {
				t.Errorf("docs/security.md:%d: the test %s does not exist", i+1, n)
			}
		}
		switch {
		case strings.HasPrefix(line, "| Attack |"):
			shows = true
		case !strings.HasPrefix(line, "|"):
			shows = false
		case shows && !strings.HasPrefix(line, "|---") && len(found) == 0:
			t.Errorf("docs/security.md:%d: names no test: %s", i+1, line)
		}
	}
	if named < 50 {
		t.Errorf("docs/security.md names only %d tests; check whether its form has changed", named)
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
