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

type position struct{ line, column int }

// document is a file as JSON, and where each path of it stands: a member at its
// key, an element at its first character.
type document struct {
	json    bytes.Buffer
	at      map[string]position
	anchors map[string]ast.Node
	nodes   int
	faults  []config.Fault
}

// maxNodes bounds what aliases of aliases may grow into.
const maxNodes = 100_000

// Stand-ins for three characters while the parser works, one for one so that
// columns stay. They are noncharacters of Unicode, which no text may hold.
const (
	leftBrace  = '\uFDD0'
	rightBrace = '\uFDD1'
	colon      = '\uFDD2'
)

var (
	number   = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`) // RFC 8259, 6
	variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
	bare     = strings.NewReplacer(string(leftBrace), "{", string(rightBrace), "}", string(colon), ":")
)

// shield makes two kinds of plain scalar safe. YAML ends one at a brace inside
// [lists] and {maps}, so that {url: ${X}} would be no YAML. And goccy/go-yaml
// 1.19.2 reads {scopes: [app:read]} as {scopes: [{app: read}]}: a colon inside a
// word separates nothing, unless it follows a quoted or bracketed key (YAML 1.2.2,
// 7.4.2).
func shield(data []byte) string {
	data = variable.ReplaceAll(data, []byte("$$"+string(leftBrace)+"$1"+string(rightBrace)))
	var b strings.Builder
	last := byte(0) // before any spaces
	for i, c := range data {
		if c == ':' && i+1 < len(data) && !strings.ContainsRune(" \t\r\n,[]{}", rune(data[i+1])) && !strings.ContainsRune(`"']}`, rune(last)) {
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

// convert never returns nil; with faults, the JSON is not to be used.
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

// locate is the line and column of a byte.
func locate(data []byte, i int) position {
	line := data[bytes.LastIndexByte(data[:i], '\n')+1 : i]
	return position{bytes.Count(data[:i], []byte("\n")) + 1, utf8.RuneCount(line) + 1}
}

// parse gives the one document of the file, nil when there is nothing in it.
func (d *document) parse(data []byte) (body ast.Node) {
	defer func() {
		if r := recover(); r != nil { // the parser's fault, but the file's author needs an answer
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
		if strings.Contains(bad.Message, "'\t'") {
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
		case doc.Body == nil:
		case body != nil:
			d.fault("", start(doc.Body), "begins a second document", "keep one in a file: delete the --- line and what follows")
			return nil
		default:
			body = doc.Body
		}
	}
	return body
}

// tooDeep finds where the file nests further than any real one. The parser's time
// and memory grow with the square of the depth: minutes for 100 kB of brackets.
func tooDeep(tokens token.Tokens) *token.Token {
	const most = 64
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

// value writes n as JSON, and notes where everything below path stands.
func (d *document) value(path string, n ast.Node) {
	if !d.spend(path, n, 1) {
		return
	}
	switch n := n.(type) {
	case *ast.AnchorNode:
		d.value(path, n.Value)
		d.anchors[n.Name.GetToken().Value] = n.Value // known from here on, so none holds itself
	case *ast.AliasNode:
		if target := d.resolve(path, n); target != nil {
			d.value(path, target)
		}
	case *ast.MappingNode:
		d.mapping(path, n)
	case *ast.SequenceNode:
		d.sequence(path, n)
	case *ast.StringNode:
		if n.GetToken().Type == token.StringType && number.MatchString(n.Value) {
			d.write(json.Number(n.Value)) // the parser takes 1e3 and integers past 64 bits for text
			return
		}
		d.write(bare.Replace(n.Value))
	case *ast.LiteralNode:
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

// spend counts n nodes, and reports whether they still fit.
func (d *document) spend(path string, at ast.Node, n int) bool {
	before := d.nodes
	d.nodes += n
	if before <= maxNodes && d.nodes > maxNodes {
		d.fault(path, start(at), "has too many values once its aliases are replaced", "use fewer aliases")
	}
	return d.nodes <= maxNodes
}

func (d *document) write(v any) {
	b, err := json.Marshal(v)
	if err != nil { // no scalar of YAML but the infinite ones, refused above
		panic("yamlfile: " + err.Error())
	}
	d.json.Write(b)
}

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

type member struct {
	key   string
	at    position
	value ast.Node
}

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

// members lists the fields of n in the order of the file. Those it merges (<<)
// come last, and only where n has no field of that name, as YAML 1.1 says.
func (d *document) members(path string, n *ast.MappingNode) []member {
	if !d.spend(path, n, len(n.Values)) {
		return nil
	}
	var own, merged []member
	seen := map[string]position{}
	for _, v := range n.Values {
		if v.Key.IsMergeKey() {
			merged = append(merged, d.merge(path, v.Value)...)
			continue
		}
		key, plain := keyText(v.Key)
		m := member{key, at(v.Key.GetToken()), v.Value}
		if !plain {
			d.fault(path, m.at, "has a field name that is not plain text", "write name: value")
			continue
		}
		if first, twice := seen[m.key]; twice {
			d.fault(config.Member(path, m.key), m.at, fmt.Sprintf("is written twice, first on line %d", first.line), "keep one of them")
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

// keyText takes a word that YAML reads as another type (null, 1) for the text it is.
func keyText(k ast.MapKeyNode) (key string, plain bool) {
	switch k := k.(type) {
	case *ast.StringNode:
		return bare.Replace(k.Value), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return k.GetToken().Value, true
	}
	return "", false
}

// merge lists the fields of the mapping, or list of mappings, behind a <<.
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

func (d *document) resolve(path string, n *ast.AliasNode) ast.Node {
	name := n.Value.GetToken().Value
	target := d.anchors[name]
	if target == nil {
		d.fault(path, start(n), "has the alias *"+name+", but no &"+name+" comes before it", "define it first")
	}
	return target
}

func (d *document) fault(path string, at position, text, remedy string) {
	d.faults = append(d.faults, config.Fault{Path: path, Line: at.line, Column: at.column, Text: text, Remedy: remedy})
}

// start is where n begins; the parser itself places a block mapping at its colon.
func start(n ast.Node) position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return at(m.Values[0].Key.GetToken())
	}
	return at(n.GetToken())
}

func at(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}
