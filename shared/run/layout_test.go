package run_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layers lists the files of the package from the entry points down. A file may use only what files below it define. So
// a call that enters the package runs down through the files, and nobody has to read a circle of files at once.
var layers = []string{
	"claim.go",    // what workers and other processes call
	"run.go",      // what requests call
	"loop.go",     // the loop of a leg
	"decide.go",   // people's decisions about tool calls
	"answer.go",   // one call of the model
	"tools.go",    // one round of tool calls
	"end.go",      // how a leg ends
	"messages.go", // the messages of a run
	"leg.go",      // the leg and its checkpoints
	"first.go",    // the model call that is sent while a run begins
	"registry.go", // the leases of this process
	"outbox.go",   // the events of a leg
	"state.go",    // what is stored of a run between two legs
	"caller.go",   // the identity that is stored with a run
}

func TestFilesUseOnlyFilesBelowThem(t *testing.T) {
	t.Parallel()
	fset := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	for _, complaint := range upwardUses(fset, files, layers) {
		t.Error(complaint)
	}
}

// This tests the rule: each kind of use of a file above is found, and so is a file that the list lacks.
func TestAnUpwardUseIsFound(t *testing.T) {
	t.Parallel()
	const top = "package p\n" +
		"import \"example.com/unknown\"\n" +
		"type loop struct{ rows unknown.Rows; lower }\n" +
		"func start(l loop) { l.stop(); finish() }\n" +
		"func (l loop) execute() {}\n"
	for name, row := range map[string]struct{ bottom, used string }{
		"only downward uses":         {"", ""},
		"a function":                 {"func again() { start(nil) }", "start"},
		"a type":                     {"var all []loop", "loop"},
		"a method":                   {"func again(f func() loop) { f().execute() }", "execute"},
		"a field of an unknown type": {"func read(x any) { _ = x.(loop).rows }", "rows"},
		"a method of an unknown value": {
			"func again() { for _, l := range unknown.List(0) { l.execute() } }", "execute",
		},
	} {
		bottom := "package p\nimport \"example.com/unknown\"\nvar _ unknown.T\n" +
			"type lower struct{}\nfunc (lower) stop() {}\nfunc finish() {}\n" + row.bottom + "\n"
		fset, files := token.NewFileSet(), []*ast.File(nil)
		for file, text := range map[string]string{"top.go": top, "bottom.go": bottom} {
			parsed, err := parser.ParseFile(fset, file, text, parser.SkipObjectResolution)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			files = append(files, parsed)
		}
		got := strings.Join(upwardUses(fset, files, []string{"top.go", "bottom.go"}), "\n")
		found := strings.Contains(got, " uses "+row.used+" of top.go")
		if row.used == "" && got != "" || row.used != "" && !found {
			t.Errorf("%s: got %q", name, got)
		}
		got = strings.Join(upwardUses(fset, files, []string{"top.go"}), "\n")
		if !strings.Contains(got, "bottom.go is not in the list") {
			t.Errorf("%s, without bottom.go in the list: %q", name, got)
		}
	}
}

// upwardUses returns a complaint for each definition that a file uses although the file that defines it stands above it
// in the list. A file that only one of files and list has is a complaint too.
//
// No import is read, so that the check takes milliseconds. The types of values from other packages are then unknown. An
// unexported selector of such a value must be a method or a field of this package. If several have its name, the lowest
// of them counts.
func upwardUses(fset *token.FileSet, files []*ast.File, list []string) (complaints []string) {
	fileOf := func(at token.Pos) string { return filepath.Base(fset.Position(at).Filename) }
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: noImports{}, Error: func(error) {}}
	pkg, _ := config.Check("p", fset, files, info) // The errors are those of the missing imports.
	members := map[string][]types.Object{}         // the methods and fields by name
	for _, o := range info.Defs {
		if o != nil && !localOf(o, pkg) && o.Parent() != pkg.Scope() {
			members[o.Name()] = append(members[o.Name()], o)
		}
	}
	use := func(user *ast.Ident, o types.Object) {
		from, to := fileOf(user.Pos()), fileOf(o.Pos())
		if slices.Index(list, from) > slices.Index(list, to) {
			complaints = append(complaints, fmt.Sprintf("%s uses %s of %s, which is above it in the list",
				fset.Position(user.Pos()), o.Name(), to))
		}
	}
	var known []string
	for _, file := range files {
		name := fileOf(file.Pos())
		known = append(known, name)
		if !slices.Contains(list, name) {
			complaints = append(complaints, name+" is not in the list: give it its place between the others")
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				if o := info.Uses[n]; o != nil && o.Pkg() == pkg && !localOf(o, pkg) {
					use(n, o)
				}
			case *ast.SelectorExpr:
				if all := members[n.Sel.Name]; info.Uses[n.Sel] == nil && len(all) > 0 && !n.Sel.IsExported() {
					use(n.Sel, slices.MaxFunc(all, func(a, b types.Object) int {
						return slices.Index(list, fileOf(a.Pos())) - slices.Index(list, fileOf(b.Pos()))
					}))
				}
			}
			return true
		})
	}
	for _, name := range list {
		if !slices.Contains(known, name) {
			complaints = append(complaints, name+" is in the list and does not exist")
		}
	}
	slices.Sort(complaints)
	return complaints
}

// localOf reports whether o is defined inside a function, so that no other file can use it, or is an imported package.
func localOf(o types.Object, pkg *types.Package) bool {
	switch o := o.(type) {
	case *types.PkgName, *types.Label:
		return true
	case *types.Var:
		return !o.IsField() && o.Parent() != pkg.Scope()
	case *types.Func:
		return false
	}
	return o.Parent() != pkg.Scope()
}

// noImports is an importer that finds no package.
type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not read") }
