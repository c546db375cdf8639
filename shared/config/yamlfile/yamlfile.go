// Package yamlfile reads keyway.yaml. It converts the YAML into the JSON that package config checks, and
// adds the line and column to each error. Open reads other YAML files in the same way. The package
// decides which parts of YAML are accepted, and knows no field of the file. Lambda functions do not link
// it: they read the JSON that keyway build wrote.
package yamlfile

// The package does not decode YAML into structs. The YAML becomes JSON first, so that a keyway.yaml and the
// keyway.json of a function go through the same checks, and that package config needs no YAML library. The
// errors of package config name a path, such as agents[1].model, and this package finds its position.

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyway-agents/keyway/shared/config"
)

// limit is the maximum size of a file, in bytes. It is far above the size of any real keyway.yaml, and
// limits the memory and time that a wrong file name can cost.
const limit = 1 << 20

// Load reads and checks the file at path. It sets o.Dir to the directory of the file, so that relative
// jwks_file paths start there. Errors in the file are returned as config.Faults, in the order of the
// file. If the file does not exist, the error wraps os.ErrNotExist.
func Load(path string, o config.Options) (*config.Config, error) {
	data, err := read(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist; name the file with --config: %w", path, os.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	o.Dir = filepath.Dir(path)
	return Parse(path, data, o)
}

// read returns the content of the file, but at most one byte more than limit; convert rejects that.
func read(path string) ([]byte, error) {
	f, err := os.Open(path) // not os.ReadFile: the path could name a device or a file of any size
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// Parse checks data, a keyway.yaml as YAML or JSON (JSON is a subset of YAML 1.2). name is the file name in
// messages. Errors are returned as config.Faults, in the order of the file. The warnings of the Config
// have positions too.
func Parse(name string, data []byte, o config.Options) (*config.Config, error) {
	doc, faults := convert(data)
	var c *config.Config
	if len(faults) == 0 {
		c, faults = config.Parse(doc.json.Bytes(), o)
	}
	if len(faults) > 0 {
		return nil, config.Faults(doc.place(name, faults))
	}
	c.Warnings, c.Notes = doc.place(name, c.Warnings), doc.place(name, c.Notes)
	return c, nil
}

// Canonical returns the canonical form (see config.Canonical) of a file given as YAML or JSON. It is the
// keyway.json of a Lambda function. Only the notation is checked, not the fields. Errors are returned
// as config.Faults.
func Canonical(name string, data []byte) ([]byte, error) {
	doc, faults := convert(data)
	if len(faults) > 0 {
		return nil, config.Faults(doc.place(name, faults))
	}
	return config.Canonical(doc.json.Bytes())
}

// Document is a YAML file that is not a keyway.yaml, such as a table of policies. It has the content as
// JSON and the position of each path.
type Document struct {
	name string
	doc  *document
}

// Open reads the file at path. Errors in the notation are returned as config.Faults.
func Open(path string) (Document, error) {
	data, err := read(path)
	if err != nil {
		return Document{}, err
	}
	doc, faults := convert(data)
	if len(faults) > 0 {
		return Document{}, config.Faults(doc.place(path, faults))
	}
	return Document{path, doc}, nil
}

// JSON returns the whole content. No object in it has two members of the same name.
func (d Document) JSON() []byte { return d.doc.json.Bytes() }

// Line returns the line of a path, counted from 1. For a path that is not in the file it is the line of
// the nearest enclosing one.
func (d Document) Line(path string) int { return d.doc.position(path).line }

// Place sets the file and the position of each fault, and sorts the faults by position.
func (d Document) Place(faults []config.Fault) config.Faults { return d.doc.place(d.name, faults) }

// place sets the file of each fault, and its position unless it has one, and sorts by position. The sort
// is stable: faults at one place keep the order in which they were found.
func (d *document) place(name string, faults []config.Fault) []config.Fault {
	for i := range faults {
		f := &faults[i]
		f.File = name
		if f.Line == 0 {
			at := d.position(f.Path)
			f.Line, f.Column = at.line, at.column
		}
	}
	slices.SortStableFunc(faults, func(a, b config.Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return faults
}

// position returns the position of path. A missing field has none; its position is that of the nearest
// enclosing path in the file.
func (d *document) position(path string) position {
	for end := len(path); end > 0; end-- {
		if end < len(path) && path[end] != '.' && path[end] != '[' {
			continue
		}
		if at, ok := d.at[path[:end]]; ok {
			return at
		}
	}
	return d.at[""]
}
