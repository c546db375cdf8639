// Package yamlfile reads keyway.yaml: it turns YAML into the JSON that package
// config checks, and gives each fault its line and column. Other files of the same
// notation are read with Open.
// It knows the notation only, no field; it is for programs that people start,
// since functions link no YAML.
package yamlfile

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

// limit is far above any real file; it bounds what one mistaken name can cost.
const limit = 1 << 20

// Load reads the file at path. Relative jwks_file paths then start at its
// directory. The error is config.Faults, or that of opening the file.
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

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// Parse checks data, YAML or JSON; name is what faults call the file. The error
// is config.Faults, in the order of the file.
func Parse(name string, data []byte, o config.Options) (*config.Config, error) {
	doc, faults := convert(data)
	var c *config.Config
	if len(faults) == 0 {
		c, faults = config.Parse(doc.json.Bytes(), o)
	}
	if len(faults) > 0 {
		return nil, config.Faults(doc.place(name, faults))
	}
	c.Warnings = doc.place(name, c.Warnings)
	return c, nil
}

// Canonical is config.Canonical of a YAML or JSON file: what a build packs into
// functions. The error is config.Faults; only the notation is checked.
func Canonical(name string, data []byte) ([]byte, error) {
	doc, faults := convert(data)
	if len(faults) > 0 {
		return nil, config.Faults(doc.place(name, faults))
	}
	return config.Canonical(doc.json.Bytes())
}

// Document is a file that is not a keyway.yaml: its JSON, and where each path of it
// stands.
type Document struct {
	name string
	doc  *document
}

// Open reads the file at path. The error is config.Faults, or that of opening it.
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

// JSON is the whole content; no member is in it twice.
func (d Document) JSON() []byte { return d.doc.json.Bytes() }

// Line is where a path of the content stands.
func (d Document) Line(path string) int { return d.doc.position(path).line }

// Place gives each fault the file and its position, and sorts by them.
func (d Document) Place(faults []config.Fault) config.Faults { return d.doc.place(d.name, faults) }

// place gives each fault its file and position, and sorts by them.
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

// position finds where path stands in the file, or the nearest thing around it:
// a missing field has no place of its own.
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
