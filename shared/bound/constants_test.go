package bound_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"time"
	"unicode"
)

// fixed are the constants beside package bound that limit what a caller can cause, and what happens at the limit. Their
// numbers and descriptions are read from the source.
var fixed = []struct{ file, constant, then string }{
	{"cli/deadlines.go", "MaxHeader", "431"},
	{"cli/deadlines.go", "HeaderTime", "the connection is closed"},
	{"cli/deadlines.go", "IdleTime", "the connection is closed"},
	{"cli/deadlines.go", "TransferGrace", "the connection is closed"},
	{"cli/deadlines.go", "SlowestRate", "the connection is closed"},
	{"cli/deadlines.go", "DrainTime", "the connection is closed"},
	{"cli/deadlines.go", "MaxDrained", "the connection is closed"},
	{"cli/connections.go", "MinWait", "the connection is closed for a new one"},
	{"cli/connections.go", "MinUpload", "the connection is closed for a new one"},
	{"cli/capacity.go", "maxRuns", "503 with Retry-After; files and memory may allow fewer"},
	{"cli/capacity.go", "maxBackgroundRuns", "a background run waits"},
	{"api/stream.go", "writeTimeout", "the stream ends; the run continues"},
	{"api/api.go", "maxOwner", "400"},
	{"api/merge.go", "maxMerged", "400"},
	{"lambdahttp/lambdahttp.go", "maxAnswer", "413; a list asks for a smaller limit"},
	{"strictjson/strictjson.go", "DefaultMaxDepth", "422"},
	{"fault/fault.go", "MaxText", "the rest of the text is left out"},
	{"token/token.go", "maxToken", "401"},
	{"token/token.go", "maxScopes", "401"},
	{"token/token.go", "maxScopeBytes", "401"},
	{"token/token.go", "maxName", "401"},
	{"token/token.go", "maxID", "401"},
	{"token/remote.go", "minGap", "503, if the key may exist"},
	{"token/remote.go", "maxAsked", "401"},
	{"token/remote.go", "maxWaiters", "503"},
	{"gateway/gateway.go", "CacheTTL", "the authorizer is asked again"},
	{"gateway/cache.go", "MaxCached", "the oldest entry leaves the cache"},
	{"gateway/cache.go", "MaxCachedBytes", "the oldest entries leave the cache"},
	{"tool/call.go", "maxResult", "the text is cut, and a note for the model says so"},
	{"authz/sample.go", "maxEqual", "further equal refusals are counted"},
	{"authz/sample.go", "maxDistinct", "further refusals are counted together"},
	{"cli/logfile.go", "maxLogSize", "the file is renamed"},
	{"cli/recent.go", "maxRecent", "the oldest line leaves the memory"},
	{"cli/recent.go", "maxRecentBytes", "the oldest lines leave the memory"},
	{"cli/console.go", "maxDiffRows", "the others are counted"},
	{"cli/console.go", "codeTTL", "401"},
	{"authz/explain.go", "maxOrigins", "the others are counted"},
	{"authz/explain.go", "maxListed", "the others are left out, or counted"},
	{"logging/logging.go", "maxClientID", "the id is ignored"},
}

const fixedPreface = `
## Bounds of the server

These constants limit what a caller can cause beside the sizes above: times, connections, caches and answers. They
can't be set. On AWS, API Gateway takes the place of the rows about headers and connections: it accepts 10,240 bytes of
headers and limits the requests of all callers by the parameters RateLimit and BurstLimit of the template.

| Constant | Value | What it is | At the limit |
|---|---|---|---|
`

// markdownOfConstants returns the second table of docs/limits.md.
func markdownOfConstants() (string, error) {
	var b strings.Builder
	b.WriteString(fixedPreface)
	for _, c := range fixed {
		value, doc, err := readConstant("../"+c.file, c.constant)
		if err != nil {
			return "", err
		}
		pkg, _, _ := strings.Cut(c.file, "/")
		fmt.Fprintf(&b, "| `%s.%s` | %s | %s | %s |\n", pkg, c.constant, value, doc, c.then)
	}
	return b.String(), nil
}

// readConstant returns the value of a constant in a file and its comment, without the name at its beginning.
func readConstant(file, name string) (value, doc string, err error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return "", "", err
	}
	for _, d := range parsed.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, s := range group.Specs {
			spec := s.(*ast.ValueSpec)
			if spec.Names[0].Name != name {
				continue
			}
			text := spec.Doc.Text() + spec.Comment.Text()
			if text == "" && len(group.Specs) == 1 {
				text = group.Doc.Text()
			}
			if doc = sentence(name, text); doc == "" {
				return "", "", fmt.Errorf("%s: %s has no comment", file, name)
			}
			number, isTime := evaluate(spec.Values[0])
			if number == nil {
				return "", "", fmt.Errorf("%s: the value of %s can't be read", file, name)
			}
			if n, _ := constant.Int64Val(number); isTime {
				return short(time.Duration(n)), doc, nil
			}
			return number.ExactString(), doc, nil
		}
	}
	return "", "", fmt.Errorf("%s: no constant is named %s", file, name)
}

// short returns a time without its units that are zero: 2m, not 2m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// sentence returns a comment as one line of a table.
func sentence(name, text string) string {
	text = strings.TrimPrefix(strings.Join(strings.Fields(text), " "), name+" is ")
	text = strings.ReplaceAll(text, "|", `\|`)
	if text == "" {
		return ""
	}
	first := []rune(text)
	first[0] = unicode.ToUpper(first[0])
	return string(first)
}

// evaluate returns the value of an expression of numbers and of package time's units, or nil.
func evaluate(e ast.Expr) (v constant.Value, isTime bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0), false
	case *ast.SelectorExpr:
		unit := map[string]time.Duration{
			"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour,
		}[e.Sel.Name]
		return constant.MakeInt64(int64(unit)), true
	case *ast.BinaryExpr:
		x, xTime := evaluate(e.X)
		y, yTime := evaluate(e.Y)
		if x == nil || y == nil {
			return nil, false
		}
		if e.Op == token.SHL {
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(n)), false
		}
		return constant.BinaryOp(x, e.Op, y), xTime || yTime
	}
	return nil, false
}

func TestEachConstantOfTheTableIsReadFromTheSource(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"cli/deadlines.go MaxHeader": "81920", "cli/deadlines.go HeaderTime": "10s", "cli/deadlines.go IdleTime": "2m",
		"cli/connections.go MinWait": "500ms", "token/remote.go maxStale": "24h",
	} {
		file, constant, _ := strings.Cut(name, " ")
		if got, _, err := readConstant("../"+file, constant); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
}
