package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is what a node holds. The last two are this package's own: a value whose
// variable is unset and may be, and one that was already complained about.
type kind int

const (
	nullKind kind = iota
	boolKind
	numberKind
	textKind
	listKind
	objectKind
	absentKind
	faultyKind
)

func (k kind) String() string {
	return [...]string{"empty", "true or false", "a number", "text", "a list", "an object", "absent", "faulty"}[k]
}

// node is a JSON value that keeps the order of its members.
type node struct {
	kind     kind
	text     string   // of text, number and boolean
	raw      string   // the text before variables were expanded
	vars     bool     // whether any was
	standard bool     // it is a default, not the file's
	keys     []string // of an object
	sub      []*node  // of an object or a list
}

func textNode(s string) *node { return &node{kind: textKind, text: s, raw: s} }

func (n *node) member(key string) *node {
	if i := slices.Index(n.keys, key); i >= 0 {
		return n.sub[i]
	}
	return nil
}

// put adds a member to n, making it an object.
func (n *node) put(key string, v *node) {
	n.kind = objectKind
	n.keys, n.sub = append(n.keys, key), append(n.sub, v)
}

// parseJSON reads one JSON value. twice lists the paths of members written twice,
// of which it keeps the first.
func parseJSON(data []byte) (root *node, twice []string, err error) {
	if !utf8.Valid(data) {
		return nil, nil, fmt.Errorf("not UTF-8")
	}
	// Unmarshal bounds the depth and refuses what follows the value, so that the
	// token reader below meets no error.
	if err := json.Unmarshal(data, new(json.RawMessage)); err != nil {
		return nil, nil, err
	}
	r := reader{dec: json.NewDecoder(bytes.NewReader(data))}
	r.dec.UseNumber()
	return r.node(""), r.twice, nil
}

type reader struct {
	dec   *json.Decoder
	twice []string
}

func (r *reader) node(path string) *node {
	token, _ := r.dec.Token()
	switch t := token.(type) {
	case bool:
		return &node{kind: boolKind, text: strconv.FormatBool(t)}
	case json.Number:
		return &node{kind: numberKind, text: shortest(t.String())}
	case string:
		return textNode(t)
	case json.Delim:
		if t == '[' {
			return r.list(path)
		}
		return r.object(path)
	}
	return &node{kind: nullKind}
}

func (r *reader) list(path string) *node {
	n := &node{kind: listKind}
	for r.dec.More() {
		n.sub = append(n.sub, r.node(Element(path, len(n.sub))))
	}
	_, _ = r.dec.Token() // the closing bracket
	return n
}

// object keeps the first of two members of one name, and notes the second:
// encoding/json would silently keep the last.
func (r *reader) object(path string) *node {
	n := &node{kind: objectKind}
	for r.dec.More() {
		token, _ := r.dec.Token()
		key, _ := token.(string)
		at := Member(path, key)
		v := r.node(at)
		if n.member(key) != nil {
			r.twice = append(r.twice, at)
			continue
		}
		n.put(key, v)
	}
	_, _ = r.dec.Token()
	return n
}

// shortest gives equal numbers equal texts: 3, 3.0 and 3e0 are "3". A whole number
// keeps all its digits, and what no float64 holds stays for number to refuse.
func shortest(number string) string {
	f, err := strconv.ParseFloat(number, 64)
	switch {
	case f == 0: // -0 too, which YAML has no integer for
		return "0"
	case err != nil || !strings.ContainsAny(number, ".eE"):
		return number
	}
	b, _ := json.Marshal(f) // finite, so without error
	return string(b)
}

// sort orders the members of every object but the mappings, whose order counts.
func (n *node) sort(path string) {
	for i, v := range n.sub {
		if n.kind == objectKind {
			v.sort(Member(path, n.keys[i]))
		} else {
			v.sort(Element(path, i))
		}
	}
	if n.kind != objectKind || path == mappingsPath {
		return
	}
	sub := make(map[string]*node, len(n.sub))
	for i, v := range n.sub {
		sub[n.keys[i]] = v
	}
	slices.Sort(n.keys)
	for i, key := range n.keys {
		n.sub[i] = sub[key]
	}
}

// write appends the node as JSON without any white space.
func (n *node) write(b *bytes.Buffer) {
	switch n.kind {
	case textKind:
		quote(b, n.text)
	case numberKind, boolKind:
		b.WriteString(n.text)
	case listKind:
		n.writeAll(b, '[', ']')
	case objectKind:
		n.writeAll(b, '{', '}')
	default:
		b.WriteString("null")
	}
}

func (n *node) writeAll(b *bytes.Buffer, begin, end byte) {
	b.WriteByte(begin)
	for i, v := range n.sub {
		if i > 0 {
			b.WriteByte(',')
		}
		if n.kind == objectKind {
			quote(b, n.keys[i])
			b.WriteByte(':')
		}
		v.write(b)
	}
	b.WriteByte(end)
}

func (n *node) indented() []byte {
	var flat, b bytes.Buffer
	n.write(&flat)
	if err := json.Indent(&b, flat.Bytes(), "", "  "); err != nil {
		panic("config: wrote JSON that is none: " + err.Error())
	}
	b.WriteByte('\n')
	return b.Bytes()
}

func quote(b *bytes.Buffer, s string) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false) // people read this
	_ = e.Encode(s)        // a text always encodes
	b.Truncate(b.Len() - 1)
}

// Canonical is the one form of the file that data, any JSON, describes: members
// sorted (scope mappings excepted), no white space, ${VAR} as written. It checks
// nothing but the JSON.
func Canonical(data []byte) ([]byte, error) {
	root, twice, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	if len(twice) > 0 {
		return nil, fmt.Errorf("%s is written twice", twice[0])
	}
	return root.canonical(), nil
}

func (n *node) canonical() []byte {
	n.sort("")
	var b bytes.Buffer
	n.write(&b)
	return b.Bytes()
}

// Digest is the SHA-256 of a canonical form, in hex.
func Digest(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}
