package shared_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/bound"
)

// The documents whose sentences docs/promises.md lists. docs/security.md, docs/guarantees.md and
// docs/limits.md have tables of their own.
var promising = []string{
	"docs/operating.md", "README.md", "SECURITY.md", "docs/deploy.md", "docs/aws.md", "docs/keys.md", "docs/budgets.md",
	"docs/tools.md", "docs/models.md", "docs/postgres.md", "docs/setup.md", "docs/doors.md", "docs/identity.md",
	"docs/chaos.md", "docs/hostile.md", "docs/dependencies.md", "docs/store.md",
}

// Each sentence about logs, bounds, egress or checksums is quoted in docs/promises.md, beside the tests
// that fail if it is not true, or beside the reason why no test can show it.
func TestEachPromiseOfTheDocumentsNamesItsTest(t *testing.T) {
	t.Parallel()
	table, err := os.ReadFile("../docs/promises.md")
	if err != nil {
		t.Fatal(err)
	}
	there := testNames(t)
	texts := map[string]string{}
	for _, name := range promising {
		text, err := os.ReadFile("../" + name) // #nosec G304 -- a file of this repository
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	shown, faults := promisesOf(string(table), texts, there, valuesOfConstant)
	for _, f := range faults {
		t.Error(f)
	}
	if shown < 200 {
		t.Errorf("only %d sentences name a test; check whether the form of docs/promises.md has changed", shown)
	}
}

// The comparison must find each way in which a document and the table can differ.
func TestASentenceWithoutATestIsFound(t *testing.T) {
	t.Parallel()
	const table = "## docs/a.md\n\n| Section | Sentence | Shown by |\n|---|---|---|\n" +
		"| [Logs](a.md#logs) | A line has at most 8 KB. | `TestIt` |\n" +
		"| | `x` ¦ ends after 3 s | `TestIt`; `a.end` is 3 s |\n" +
		"| [Cost](a.md#cost) | all | – prices of AWS |\n"
	const document = "# A\n\n## Logs\n\nHello. A line has\nat most 8 KB.\n\n" +
		"| | |\n|---|---|\n| `x` | ends after 3 s |\n\n## Cost\n\nIt costs 3 KB.\n"
	there := map[string]bool{"TestIt": true}
	check := func(table, document string) []string {
		values := func(string) ([]int64, error) { return []int64{3_000_000_000}, nil }
		_, faults := promisesOf(table, map[string]string{"docs/a.md": document}, there, values)
		return faults
	}
	if faults := check(table, document); len(faults) != 0 {
		t.Fatalf("the sound document has faults: %q", faults)
	}
	for name, c := range map[string]struct{ table, document string }{
		"a changed number":        {table, strings.Replace(document, "8 KB", "9 KB", 1)},
		"a changed cell":          {table, strings.Replace(document, "3 s", "4 s", 1)},
		"a new sentence":          {table, strings.Replace(document, "Hello.", "No log has it.", 1)},
		"a new row":               {table, strings.Replace(document, "\n\n## Cost", "\n| y | 2 MB |\n\n## Cost", 1)},
		"a removed sentence":      {table, strings.Replace(document, "A line has\nat most 8 KB.", "", 1)},
		"a removed test":          {strings.Replace(table, "TestIt", "TestNothing", 1), document},
		"no test":                 {strings.Replace(table, "`TestIt`", "", 1), document},
		"an exemption, no reason": {strings.Replace(table, "`TestIt`", "–", 1), document},
		"a number left out":       {strings.Replace(table, "has at most 8 KB", "has at most …", 1), document},
		"a wrong section":         {strings.Replace(table, "#logs", "#log", 1), document},
		"a changed constant": {
			strings.ReplaceAll(table, "3 s", "4 s"), strings.Replace(document, "3 s", "4 s", 1),
		},
		"a constant of another": {strings.Replace(table, "is 3 s", "is 3 seconds", 1), document},
		"a missing document":    {strings.Replace(table, "docs/a.md", "docs/b.md", 1), document},
	} {
		if faults := check(c.table, c.document); len(faults) == 0 {
			t.Errorf("%s is not found", name)
		}
	}
}

// A promise is a row of docs/promises.md.
type promise struct {
	line    int
	section string
	parts   []string // between "…"; nil for the whole section
	used    bool
}

// promisesOf compares the table with the documents, by their names. It returns how many rows name a test,
// and a text for each fault.
//
// values returns the values of a constant.
func promisesOf(
	table string, texts map[string]string, there map[string]bool, values func(name string) ([]int64, error),
) (shown int, faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	rows := map[string][]*promise{}
	document, section := "", ""
	test := regexp.MustCompile("`((?:Test|Fuzz)[A-Z0-9]\\w*(?:/\\w+)?)`")
	value := regexp.MustCompile("`(\\w+\\.\\w+)` is ([^;]+)")
	place := regexp.MustCompile(`^\[(.*)\]\(([^#]*)#(.*)\)$`)
	for i, line := range strings.Split(table, "\n") {
		at := fmt.Sprintf("docs/promises.md:%d", i+1)
		if name, ok := strings.CutPrefix(line, "## "); ok {
			document, section = name, ""
			if _, ok := texts[name]; !ok {
				fault("%s: %s is not one of the documents", at, name)
			}
		}
		if document == "" || !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| Section |") {
			continue
		}
		cells := cellsOf(line)
		if len(cells) != 3 {
			fault("%s: a row has three cells, not %d", at, len(cells))
			continue
		}
		if cells[0] != "" {
			m := place.FindStringSubmatch(cells[0])
			if m == nil || m[3] != anchor(m[1]) || filepath.Base(m[2]) != filepath.Base(document) {
				fault("%s: %s is no link to a section of %s", at, cells[0], document)
				continue
			}
			section = m[1]
		}
		p := &promise{line: i + 1, section: section}
		if cells[1] != "all" {
			for _, part := range strings.Split(cells[1], "…") {
				p.parts = append(p.parts, strings.TrimSpace(part))
			}
		}
		reason, exempt := strings.CutPrefix(cells[2], "– ")
		names := test.FindAllStringSubmatch(cells[2], -1)
		switch {
		case exempt && len(strings.Fields(reason)) < 2, !exempt && len(names) == 0:
			fault("%s: the row names no test and no reason", at)
		case !exempt:
			shown++
		}
		for _, n := range names {
			if !there[n[1]] {
				fault("%s: the test %s does not exist", at, n[1])
			}
		}
		for _, v := range value.FindAllStringSubmatch(cells[2], -1) {
			if !strings.Contains(cells[1], v[2]) {
				fault("%s: the sentence doesn't have %q", at, v[2])
			}
			if got, err := values(v[1]); err != nil || !slices.Contains(got, amount(v[2])) {
				fault("%s: %s is %v, not %s (%d): %v", at, v[1], got, v[2], amount(v[2]), err)
			}
		}
		rows[document] = append(rows[document], p)
	}
	for name, text := range texts {
		for _, s := range sentencesOf(text) {
			covered := make([]bool, len(s.text))
			for _, p := range rows[name] {
				if p.section == s.section {
					p.used = p.cover(s.text, covered) || p.used
				}
			}
			for _, span := range promiseSpans(s.text) {
				if slices.Contains(covered[span[0]:span[1]], false) {
					fault("%s, %q: %q is in no row of docs/promises.md. Name there the test that fails if this is not "+
						"true:\n\t%s", name, s.section, s.text[span[0]:span[1]], s.text)
					break
				}
			}
		}
		for _, p := range rows[name] {
			if !p.used {
				fault("docs/promises.md:%d: %s has no such sentence in %q: %s", p.line, name, p.section,
					strings.Join(p.parts, " … "))
			}
		}
	}
	return shown, faults
}

// cover marks what the row quotes of a sentence. It reports whether the sentence has all parts, in order.
func (p *promise) cover(sentence string, covered []bool) bool {
	if p.parts == nil {
		for i := range covered {
			covered[i] = true
		}
		return true
	}
	var spans [][2]int
	from := 0
	for _, part := range p.parts {
		i := strings.Index(sentence[from:], part)
		if i < 0 {
			return false
		}
		spans = append(spans, [2]int{from + i, from + i + len(part)})
		from += i + len(part)
	}
	for _, s := range spans {
		for i := s[0]; i < s[1]; i++ {
			covered[i] = true
		}
	}
	return true
}

var (
	quantity = regexp.MustCompile(`(?i)\b(?:\d[\d,.]*|an?|one|two|three|four|five|six|seven|eight|nine|ten|twenty|` +
		`hundred|each|every)(?: and a half)? (?:µs|ms|s|milliseconds?|microseconds?|seconds?|min|h|minutes?|hours?|` +
		`days?|months?|bytes|bits|[KMG]i?B|kbit/s)\b` +
		`|\b\d[\d,.]* (?:[a-z]+ )?(?:characters|digits|rows|runs|lines|requests|connections|sessions|memories|values|` +
		`files|levels|keys|redirects|stories|results|tools|clients|spans|instances|megabytes|kinds|calls|merges|ids|` +
		`letters)\b` +
		`|¦ \d[\d,.]*(?: ¦|$)`)
	word = regexp.MustCompile(`(?i)\b(?:logs?|logged|logging|at most|at least|no more than|twice as|limited|bounded|` +
		`never|checksums?|sha-?256|digests?|hash(?:es|ed)?|egress|outbound|reachable|proxy|proxies|redirects?|` +
		`(?:is|are) (?:not |never )?sent|nothing is fetched|fetches keys|connects to)\b`)
	status = regexp.MustCompile(`^¦ [2345]0\d`)
	// Words that look like one of the above and are none: a log-in, and another one of something.
	otherwise  = regexp.MustCompile(`(?i)\b(?:logs? in(?: as| with| again| so| there|\.|$)|a second \S+|RDS Proxy)\b`)
	notASecond = regexp.MustCompile(`^(?i)a second (?:after|and|share|at)\b`)
)

// promiseSpans returns where a sentence has a quantity with its unit, or a word about logs, bounds, egress or
// checksums.
func promiseSpans(sentence string) (spans [][]int) {
	var others [][]int
	for _, o := range otherwise.FindAllStringIndex(sentence, -1) {
		if !notASecond.MatchString(sentence[o[0]:o[1]]) {
			others = append(others, o)
		}
	}
	for _, span := range append(quantity.FindAllStringIndex(sentence, -1), word.FindAllStringIndex(sentence, -1)...) {
		within := func(o []int) bool { return o[0] <= span[0] && span[1] <= o[1] }
		if !status.MatchString(sentence[span[0]:span[1]]) && !slices.ContainsFunc(others, within) {
			spans = append(spans, span)
		}
	}
	return spans
}

// A sentence of a document: of a paragraph or an item of a list, or a whole row of a table, whose cells
// "¦" separates. Links are their texts, and no letters are bold. Code between fences is left out.
type sentence struct{ section, text string }

func sentencesOf(document string) (all []sentence) {
	link := regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
	item := regexp.MustCompile(`^\s*(?:[-*]|\d+\.)\s+`)
	end := regexp.MustCompile("[.?!][)\"*`]* +[A-Z`\"(*\\d]")
	section, code := "", false
	var paragraph []string
	bold := regexp.MustCompile(`\*\*([^*]+)\*\*`)
	plain := func(text string) string { return bold.ReplaceAllString(link.ReplaceAllString(text, "$1"), "$1") }
	flush := func() {
		text := plain(strings.Join(paragraph, " "))
		paragraph = nil
		for text != "" {
			next := len(text)
			if m := end.FindStringIndex(text); m != nil {
				next = m[1] - 1
			}
			all = append(all, sentence{section, strings.TrimSpace(text[:next])})
			text = text[next:]
		}
	}
	lines := strings.Split(document, "\n")
	for i, line := range lines {
		switch trimmed := strings.TrimSpace(line); {
		case strings.HasPrefix(trimmed, "```"):
			flush()
			code = !code
		case code:
		case trimmed == "":
			flush()
		case strings.HasPrefix(line, "#"):
			flush()
			section = strings.TrimLeft(line, "# ")
		case strings.HasPrefix(line, "|"):
			flush()
			names := i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|--") // of the columns
			if !names && !strings.HasPrefix(line, "|--") {
				all = append(all, sentence{section, plain(strings.Join(cellsOf(line), " ¦ "))})
			}
		case item.MatchString(line):
			flush()
			paragraph = append(paragraph, item.ReplaceAllString(line, ""))
		default:
			paragraph = append(paragraph, trimmed)
		}
	}
	flush()
	return all
}

// cellsOf returns the cells of a row of a table.
func cellsOf(line string) []string {
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i, c := range cells {
		cells[i] = strings.TrimSpace(c)
	}
	return cells
}

// anchor returns the anchor that GitHub makes of a heading.
func anchor(heading string) string {
	return strings.ReplaceAll(regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// valuesOfConstant returns the value of a constant, such as cli.checkTime, of each package of that name that has it.
// bound.NAME is the bound of that name. A time is in nanoseconds.
func valuesOfConstant(name string) (all []int64, err error) {
	pkg, name, _ := strings.Cut(name, ".")
	for _, b := range bound.All() {
		if pkg == "bound" && b.Name == name {
			all = append(all, int64(b.Default))
		}
	}
	for _, depth := range []string{"*/*", "*/*/*", "*/*/*/*"} {
		files, err := filepath.Glob("../shared/" + depth + ".go")
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if filepath.Base(filepath.Dir(file)) != pkg || strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file) // #nosec G304 -- a file of this repository
			if err != nil {
				return nil, err
			}
			if !strings.Contains(string(source), name) {
				continue
			}
			if found, err := constantIn(string(source), name); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			} else if found != nil {
				all = append(all, *found)
			}
		}
	}
	return all, nil
}

// constantIn returns the value of a constant of a file, or nil if it has none of that name.
func constantIn(source, name string) (found *int64, err error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "", source, 0)
	if err != nil {
		return nil, err
	}
	unit := regexp.MustCompile(`time\.(?:Microsecond|Millisecond|Second|Minute|Hour)`)
	units := map[string]time.Duration{
		"time.Microsecond": time.Microsecond, "time.Millisecond": time.Millisecond, "time.Second": time.Second,
		"time.Minute": time.Minute, "time.Hour": time.Hour,
	}
	ast.Inspect(file, func(n ast.Node) bool {
		group, ok := n.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			return true
		}
		for _, s := range group.Specs {
			spec := s.(*ast.ValueSpec)
			i := slices.IndexFunc(spec.Names, func(id *ast.Ident) bool { return id.Name == name })
			if i < 0 || i >= len(spec.Values) {
				continue
			}
			v := spec.Values[i]
			text := source[set.Position(v.Pos()).Offset:set.Position(v.End()).Offset]
			text = unit.ReplaceAllStringFunc(text, func(u string) string { return fmt.Sprint(int64(units[u])) })
			result, failed := types.Eval(token.NewFileSet(), nil, token.NoPos, text)
			if failed != nil {
				err = failed
				continue
			}
			number, _ := constant.Int64Val(constant.ToInt(result.Value))
			found = &number
		}
		return true
	})
	return found, err
}

// amount returns a quantity of a document as a number: of nanoseconds for a time, of bytes for a size.
func amount(text string) int64 {
	number, unit, _ := strings.Cut(strings.ReplaceAll(text, ",", ""), " ")
	n, err := strconv.ParseFloat(number, 64)
	if i := slices.Index(strings.Fields("one two three four five six seven eight nine ten"), number); i >= 0 {
		n, err = float64(i+1), nil
	}
	if number == "a" || number == "an" || number == "each" {
		n, err = 1, nil
	}
	if err != nil {
		return -1
	}
	factors := map[string]float64{
		"KB": 1 << 10, "MB": 1 << 20, "MiB": 1 << 20,
		"ms": 1e6, "s": 1e9, "second": 1e9, "minute": 60e9, "hour": 3600e9, "day": 24 * 3600e9,
	}
	for _, name := range []string{unit, strings.TrimSuffix(unit, "s")} {
		if f := factors[name]; f > 0 {
			return int64(n * f)
		}
	}
	return int64(n)
}
