package configdoc

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"

	"github.com/keyway-agents/keyway/shared/config"
)

// Source is the description of the settings: the struct tags of config.Config, which the program
// knows, and the comments of its fields, which only the source file has.
type Source struct {
	comments map[string]string // by "Type.Field", on one line each
}

// Read reads the comments of the fields from config.go, the file that declares config.Config. It
// returns an error if a field of the file format has none.
func Read(file string) (Source, error) {
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return Source{}, err
	}
	s := Source{comments: map[string]string{}}
	ast.Inspect(tree, func(n ast.Node) bool {
		declared, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if fields, ok := declared.Type.(*ast.StructType); ok {
			s.add(declared.Name.Name, fields)
		}
		return false
	})
	return s, errors.Join(s.complete(reflect.TypeFor[config.Config]()), s.complete(reflect.TypeFor[config.Limits]()),
		s.complete(reflect.TypeFor[config.Price]()))
}

// add records the comments of a struct's fields. Line breaks of a comment are not significant in the
// documents, so each becomes one line.
func (s Source) add(name string, fields *ast.StructType) {
	for _, f := range fields.Fields.List {
		for _, field := range f.Names {
			s.comments[name+"."+field.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
		}
	}
}

// complete checks that every field of t, and of the structs in it, has a comment. A new setting without an
// explanation would otherwise get an empty cell in the documents.
func (s Source) complete(t reflect.Type) error {
	for f := range t.Fields() {
		if f.Tag.Get("json") == "-" {
			continue
		}
		if s.comment(t, f) == "" {
			return fmt.Errorf("%s.%s has no comment", t, f.Name)
		}
		if inner := structIn(f.Type); inner != nil {
			if err := s.complete(inner); err != nil {
				return err
			}
		}
	}
	return nil
}

// comment returns the comment of a field of t.
func (s Source) comment(t reflect.Type, f reflect.StructField) string {
	return s.comments[t.Name()+"."+f.Name]
}

// structIn returns the struct that t is, points to or is a list of. It returns nil if that is none
// with fields in the file: a scope mapping, for example, is written as a member of an object.
func structIn(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	isScopeMapping := t == reflect.TypeFor[config.ScopeMapping]()
	if isScopeMapping || t.Kind() != reflect.Struct || !strings.HasSuffix(typeName(t), "object") {
		return nil
	}
	return t
}
