package yamlfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/keyway-agents/keyway/shared/config"
)

// position is a place in the file. Both numbers count from 1, and column counts characters.
type position struct{ line, column int }

// document is a file as JSON, with the position of each path.
type document struct {
	json    bytes.Buffer
	at      map[string]position // by path: a member's key, or the start of an element
	anchors map[string]ast.Node // the anchors that have been read so far, by name
	nodes   int                 // how many values have been written; see maxNodes
	faults  []config.Fault
}

// maxNodes limits the number of values after aliases are replaced. Aliases of aliases multiply: a file
// of a few hundred bytes can otherwise produce thousands of millions of values ("billion laughs").
const maxNodes = 100_000

// These three characters replace others while the parser works. Each replaces one character, so that
// columns stay correct. They are noncharacters of Unicode, which are not meant for interchange, and
// convert rejects a file that contains one.
const (
	leftBrace  = '\uFDD0'
	rightBrace = '\uFDD1'
	colon      = '\uFDD2'
)

// number is a number as JSON writes it. variable is a variable, as package config replaces it. bare restores
// the replaced characters.
var (
	number   = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`) // RFC 8259, section 6
	variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
	bare     = strings.NewReplacer(string(leftBrace), "{", string(rightBrace), "}", string(colon), ":")
)

// shield replaces braces and colons that the parser would misread in plain (unquoted) scalars. There
// are two cases:
//   - YAML ends a plain scalar at a brace inside [lists] and {maps}, so {url: ${X}} would be invalid.
//     The braces of variables are replaced.
//   - goccy/go-yaml 1.19.2 reads {scopes: [app:read]} as {scopes: [{app: read}]}. By YAML 1.2.2, section
//     7.4.2, a colon directly before another character separates nothing, except after a quoted or
//     bracketed key. Such colons are replaced.
func shield(data []byte) string {
	data = variable.ReplaceAll(data, []byte("$$"+string(leftBrace)+"$1"+string(rightBrace)))
	var b strings.Builder
	last := byte(0) // the last byte that is no space
	for i, c := range data {
		inWord := i+1 < len(data) && !strings.ContainsRune(" \t\r\n,[]{}", rune(data[i+1]))
		if c == ':' && inWord && !strings.ContainsRune(`"']}`, rune(last)) {
			b.WriteRune(colon)
		} else {
			b.WriteByte(c)
		}
		if c != ' ' && c != '\t' {
			last = c
		}
	}
	return b.String()
}

// convert reads a file. It always returns a document, because the positions are needed to report
// errors. If there are errors, the JSON is incomplete.
//
// The checks before the parser are for input that it would accept or misread: a file that is too large, is
// not UTF-8 (YAML 1.2.2, section 5.2, also allows UTF-16, which nobody uses here), or contains one of the
// replacement characters.
func convert(data []byte) (*document, []config.Fault) {
	d := &document{at: map[string]position{"": {1, 1}}, anchors: map[string]ast.Node{}}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if len(data) > limit {
		d.fault("", position{1, 1}, "is larger than 1 MiB", "check the name of the file")
		return d, d.faults
	}
	if !utf8.Valid(data) {
		d.fault("", locate(data, bytes.IndexRune(data, utf8.RuneError)), "is not UTF-8", "save the file as UTF-8")
		return d, d.faults
	}
	if i := bytes.IndexFunc(data, func(r rune) bool { return r >= leftBrace && r <= colon }); i >= 0 {
		d.fault("", locate(data, i), "contains a Unicode noncharacter", "delete it")
		return d, d.faults
	}
	switch body := d.parse(data); {
	case len(d.faults) > 0:
	case body == nil:
		d.json.WriteString("{}")
	default:
		d.at[""] = start(body)
		d.value("", body)
	}
	return d, d.faults
}

// locate returns the line and column of the byte with index i.
func locate(data []byte, i int) position {
	line := data[bytes.LastIndexByte(data[:i], '\n')+1 : i]
	return position{bytes.Count(data[:i], []byte("\n")) + 1, utf8.RuneCount(line) + 1}
}

// parse returns the only YAML document of the file, or nil if the file is empty or has an error.
// An empty file counts as an empty object, so that its errors are the missing fields. Duplicate keys are
// allowed here, because members reports them with a better message.
func (d *document) parse(data []byte) (body ast.Node) {
	defer func() {
		if r := recover(); r != nil { // a bug of the parser; the author of the file needs a message anyway
			d.fault("", position{1, 1}, "is YAML that the parser cannot read", "write it in a simpler form")
		}
	}()
	tokens := lexer.Tokenize(shield(data))
	if t := tooDeep(tokens); t != nil {
		d.fault("", at(t), "is nested too deeply", "use fewer levels")
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if bad, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		text, remedy := "is not YAML: "+bare.Replace(bad.Message), ""
		if strings.Contains(bad.Message, "'\t'") { // the usual mistake deserves a clearer text
			text, remedy = "is indented with a tab, which YAML does not allow", "indent with spaces"
		}
		d.fault("", at(bad.Token), text, remedy)
		return nil
	}
	if err != nil {
		d.fault("", position{1, 1}, "is not YAML: "+err.Error(), "")
		return nil
	}
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil: // "---" alone, or comments only
		case body != nil:
			d.fault("", start(doc.Body), "begins a second document", "keep one in a file: delete the --- line and what follows")
			return nil
		default:
			body = doc.Body
		}
	}
	return body
}

// tooDeep returns the first token that is nested too deeply, or nil. The parser's time and memory grow
// with the square of the depth: 100 kB of brackets would take minutes.
//
// Brackets nest in flow style. In block style, the entries of one line nest ("- - - x"), while the depth by
// indentation is limited by the size of the file. Anchors and tags can nest without brackets, so their number
// is limited.
func tooDeep(tokens token.Tokens) *token.Token {
	const most = 64
	// flow counts open brackets, marks anchors and tags, and entries the list entries and keys of one line.
	flow, marks, line, entries := 0, 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow = max(flow-1, 0)
		case token.AnchorType, token.TagType:
			marks++
		case token.SequenceEntryType, token.MappingKeyType:
			if t.Position.Line != line {
				line, entries = t.Position.Line, 0
			}
			entries++
		}
		if flow > most || entries > most || marks > 16*most {
			return t
		}
	}
	return nil
}

// value writes n as JSON, and records the positions of everything below path.
// YAML types that JSON does not have, such as infinite numbers and tags, are errors.
func (d *document) value(path string, n ast.Node) {
	if !d.spend(path, n, 1) {
		return
	}
	switch n := n.(type) {
	case *ast.AnchorNode: // &name value
		d.value(path, n.Value)
		d.anchors[n.Name.GetToken().Value] = n.Value // after the value, so that it cannot contain itself
	case *ast.AliasNode: // *name: the value is written once more, below this path
		if target := d.resolve(path, n); target != nil {
			d.value(path, target)
		}
	case *ast.MappingNode:
		d.mapping(path, n)
	case *ast.SequenceNode:
		d.sequence(path, n)
	case *ast.StringNode:
		if n.GetToken().Type == token.StringType && number.MatchString(n.Value) {
			d.write(json.Number(n.Value)) // the parser reads 1e3, and integers of more than 64 bits, as text
			return
		}
		d.write(bare.Replace(n.Value))
	case *ast.LiteralNode: // a block scalar, | or >
		d.write(bare.Replace(n.Value.Value))
	case *ast.IntegerNode:
		d.write(n.Value)
	case *ast.BoolNode:
		d.write(n.Value)
	case *ast.NullNode:
		d.write(nil)
	case *ast.FloatNode:
		d.write(n.Value)
	case *ast.InfinityNode, *ast.NanNode:
		d.fault(path, start(n), "is not a finite number", "write one")
	case *ast.TagNode:
		d.fault(path, start(n), "has the tag "+n.GetToken().Value, "remove it")
	default:
		d.fault(path, start(n), "is YAML that is not supported", "write plain fields, lists and texts")
	}
}

// spend adds n to the number of values, and reports whether it is still within maxNodes.
func (d *document) spend(path string, at ast.Node, n int) bool {
	before := d.nodes
	d.nodes += n
	if before <= maxNodes && d.nodes > maxNodes {
		d.fault(path, start(at), "has too many values once its aliases are replaced", "use fewer aliases")
	}
	return d.nodes <= maxNodes
}

// write appends a scalar as JSON.
func (d *document) write(v any) {
	b, err := json.Marshal(v)
	if err != nil { // only an infinite number has no JSON, and value rejects it before
		panic("yamlfile: " + err.Error())
	}
	d.json.Write(b)
}

// sequence writes a list.
func (d *document) sequence(path string, n *ast.SequenceNode) {
	d.json.WriteByte('[')
	for i, v := range n.Values {
		if i > 0 {
			d.json.WriteByte(',')
		}
		at := config.Element(path, i)
		d.at[at] = start(v)
		d.value(at, v)
	}
	d.json.WriteByte(']')
}

// member is a field of a mapping.
type member struct {
	key   string
	at    position
	value ast.Node
}

// mapping writes an object.
func (d *document) mapping(path string, n *ast.MappingNode) {
	d.json.WriteByte('{')
	for i, m := range d.members(path, n) {
		if i > 0 {
			d.json.WriteByte(',')
		}
		at := config.Member(path, m.key)
		d.at[at] = m.at
		d.write(m.key)
		d.json.WriteByte(':')
		d.value(at, m.value)
	}
	d.json.WriteByte('}')
}

// members returns the fields of n in the order of the file. Merged fields (<<) come last, and a field
// of n itself has precedence over a merged one (the merge key type of YAML 1.1).
func (d *document) members(path string, n *ast.MappingNode) []member {
	if !d.spend(path, n, len(n.Values)) {
		return nil
	}
	// The order matters for scope mappings and for the order of messages.
	var own, merged []member
	seen := map[string]position{}
	for _, v := range n.Values {
		if v.Key.IsMergeKey() {
			merged = append(merged, d.merge(path, v.Value)...)
			continue
		}
		// A complex key, "? [a, b]", has no text and no counterpart in JSON.
		key, plain := keyText(v.Key)
		m := member{key, at(v.Key.GetToken()), v.Value}
		if !plain {
			d.fault(path, m.at, "has a field name that is not plain text", "write name: value")
			continue
		}
		if first, twice := seen[m.key]; twice {
			text := fmt.Sprintf("is written twice, first on line %d", first.line)
			d.fault(config.Member(path, m.key), m.at, text, "keep one of them")
			continue
		}
		seen[m.key] = m.at
		own = append(own, m)
	}
	for _, m := range merged {
		if _, taken := seen[m.key]; !taken {
			seen[m.key] = m.at
			own = append(own, m)
		}
	}
	return own
}

// keyText returns the text of a key. A key that YAML reads as another type, such as null or 1, counts as
// its text. A key that is a list or a mapping is not plain.
func keyText(k ast.MapKeyNode) (key string, plain bool) {
	switch k := k.(type) {
	case *ast.StringNode:
		return bare.Replace(k.Value), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return k.GetToken().Value, true
	}
	return "", false
}

// merge returns the fields of the value of a <<, which is a mapping or a list of mappings.
func (d *document) merge(path string, n ast.Node) []member {
	switch n := n.(type) {
	case *ast.AliasNode:
		if target := d.resolve(path, n); target != nil {
			return d.merge(path, target)
		}
		return nil
	case *ast.MappingNode:
		return d.members(path, n)
	case *ast.SequenceNode:
		var all []member
		for _, v := range n.Values {
			all = append(all, d.merge(path, v)...)
		}
		return all
	}
	d.fault(path, start(n), "merges a value that is not a mapping", "write <<: *anchor, where &anchor marks a mapping")
	return nil
}

// resolve returns the value of the anchor that an alias names, or nil if no such anchor comes before it.
func (d *document) resolve(path string, n *ast.AliasNode) ast.Node {
	name := n.Value.GetToken().Value
	target := d.anchors[name]
	if target == nil {
		text := "has the alias *" + name + ", but no &" + name + " comes before it"
		d.fault(path, start(n), text, "define it first")
	}
	return target
}

// fault adds an error at a known position.
func (d *document) fault(path string, at position, text, remedy string) {
	d.faults = append(d.faults, config.Fault{Path: path, Line: at.line, Column: at.column, Text: text, Remedy: remedy})
}

// start returns the position where n begins. The parser gives a block mapping the position of its first
// colon, so this takes the first key instead.
func start(n ast.Node) position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return at(m.Values[0].Key.GetToken())
	}
	return at(n.GetToken())
}

// at returns the position of a token, or the start of the file if the parser has none.
func at(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}
