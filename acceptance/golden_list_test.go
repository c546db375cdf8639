package acceptance

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// differencesFile has, below exchangesHeading, a table of all differences from the
// recorded exchanges. Its columns are exchanges (GROUP/NAME), differences and reason. A *
// inside backticks matches any text.
const (
	differencesFile  = "../docs/differences.md"
	exchangesHeading = "## Exchange by exchange"
)

// listed is one row of the table.
type listed struct {
	number                 int // the line in the file
	exchanges, differences []*pattern
}

type pattern struct {
	text string
	re   *regexp.Regexp
	used bool
}

func (l listed) covers(exchange, difference string) bool {
	e, d := match(l.exchanges, exchange), match(l.differences, difference)
	if e == nil || d == nil {
		return false
	}
	e.used, d.used = true, true
	return true
}

func match(list []*pattern, s string) *pattern {
	for _, p := range list {
		if p.re.MatchString(s) {
			return p
		}
	}
	return nil
}

// differences is the table. A difference that it doesn't cover fails the test, and so does
// a pattern that covers nothing.
type differences struct {
	mu    sync.Mutex
	lines []listed
}

func readDifferences(t *testing.T) *differences {
	t.Helper()
	data, err := os.ReadFile(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := parseDifferences(string(data))
	if err != nil {
		t.Fatal(err)
	}
	return &differences{lines: lines}
}

var (
	cellEnd = regexp.MustCompile(`(?:^|[^\\])\|`)
	quoted  = regexp.MustCompile("`([^`]+)`")
)

func parseDifferences(text string) (lines []listed, err error) {
	below := false
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "## ") {
			below = line == exchangesHeading
		}
		if !below || !strings.HasPrefix(line, "| `") {
			continue
		}
		ends := cellEnd.FindAllStringIndex(line, -1)
		if len(ends) != 4 {
			return nil, fmt.Errorf("%s:%d has %d columns, want exchanges, differences, reason",
				differencesFile, i+1, len(ends)-1)
		}
		l := listed{number: i + 1}
		l.exchanges = patterns(line[ends[0][1] : ends[1][0]+1])
		l.differences = patterns(line[ends[1][1] : ends[2][0]+1])
		reason := strings.TrimSpace(line[ends[2][1]:ends[3][0]])
		if len(l.exchanges) == 0 || len(l.differences) == 0 || reason == "" {
			return nil, fmt.Errorf("%s:%d lacks exchanges, differences or a reason", differencesFile, i+1)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func patterns(cell string) (out []*pattern) {
	for _, m := range quoted.FindAllStringSubmatch(strings.ReplaceAll(cell, `\|`, "|"), -1) {
		re := strings.ReplaceAll(regexp.QuoteMeta(m[1]), `\*`, ".*")
		out = append(out, &pattern{text: m[1], re: regexp.MustCompile("(?s)^" + re + "$")})
	}
	return out
}

// covers reports whether a row covers the difference. Only the first such row counts as
// used.
func (d *differences) covers(exchange, difference string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lines {
		if l.covers(exchange, difference) {
			return true
		}
	}
	return false
}

// stale returns the patterns that covered nothing.
func (d *differences) stale() (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lines {
		for _, p := range append(l.exchanges, l.differences...) {
			if !p.used {
				out = append(out, fmt.Sprintf("%s:%d: %s", differencesFile, l.number, p.text))
			}
		}
	}
	return out
}
