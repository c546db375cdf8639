package shared_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// The lines of decisions have nothing of a caller because one function writes them. Their message is "decision".
func TestOneFunctionWritesTheLinesOfDecisions(t *testing.T) {
	t.Parallel()
	const only = "../shared/authz/log.go"
	writers := map[string]int{}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !strings.Contains(" Write Log LogAttrs Info InfoContext Warn Error ", " "+method.Sel.Name+" ") {
				return true
			}
			for _, arg := range call.Args {
				if text, ok := arg.(*ast.BasicLit); ok && text.Value == `"decision"` {
					writers[path]++
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(writers) != 1 || writers[only] == 0 {
		t.Errorf("%v write lines of decisions, and not %s alone", writers, only)
	}
}
