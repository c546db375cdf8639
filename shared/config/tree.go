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

// kind is the kind of value that a node has. The last two are not JSON's: absentKind is a value that
// counts as absent because its variable is unset, and faultyKind is one with an error that was already
// reported.
type kind int

const (
	nullKind   kind = iota // null, or a YAML key without a value
	boolKind               // true or false
	numberKind             // text has its shortest form
	textKind               // text has its value
	listKind               // sub has the elements
	objectKind             // keys and sub have the members
	absentKind             // its variable is unset; the field gets its default
	faultyKind             // it has a reported error; later checks skip it
)

// String returns the kind as messages name it.
func (k kind) String() string {
	return [...]string{"empty", "true or false", "a number", "text", "a list", "an object", "absent", "faulty"}[k]
}

// node is a JSON value that keeps the order of its members.
type node struct {
	kind        kind
	text        string   // the value of a text, number or boolean
	raw         string   // the text before its variables were expanded
	hasVariable bool     // whether the text contains a variable
	isDefault   bool     // whether it is the default of a struct tag, and not a value of the file
	keys        []string // the names of an object's members
	sub         []*node  // the members of an object, or the elements of a list
}

func textNode(s string) *node { return &node{kind: textKind, text: s, raw: s} }

// member returns the member of an object, or nil if there is none.
func (n *node) member(key string) *node {
	if i := slices.Index(n.keys, key); i >= 0 {
		return n.sub[i]
	}
	return nil
}

// put adds a member to n, and makes n an object. It does not look for a member of the same name.
func (n *node) put(key string, v *node) {
	n.kind = objectKind
	n.keys, n.sub = append(n.keys, key), append(n.sub, v)
}

// parseJSON reads one JSON value. duplicates are the paths of members that occur more than once in
// their object; the tree has the first of each.
func parseJSON(data []byte) (root *node, duplicates []string, err error) {
	if !utf8.Valid(data) {
		return nil, nil, fmt.Errorf("not UTF-8")
	}
	// Unmarshal limits the depth and rejects data after the value. The token reader below would do
	// neither, and after this check it cannot fail.
	if err := json.Unmarshal(data, new(json.RawMessage)); err != nil {
		return nil, nil, err
	}
	r := reader{dec: json.NewDecoder(bytes.NewReader(data))}
	r.dec.UseNumber()
	return r.node(""), r.duplicates, nil
}

// reader builds the tree from the tokens of valid JSON.
type reader struct {
	dec        *json.Decoder
	duplicates []string
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

// object reads an object. Of two members with the same name it keeps the first and notes the path:
// encoding/json would silently use the last, and other readers of the file the first.
func (r *reader) object(path string) *node {
	n := &node{kind: objectKind}
	for r.dec.More() {
		token, _ := r.dec.Token()
		key, _ := token.(string)
		at := Member(path, key)
		v := r.node(at)
		if n.member(key) != nil {
			r.duplicates = append(r.duplicates, at)
			continue
		}
		n.put(key, v)
	}
	_, _ = r.dec.Token()
	return n
}

// shortest returns the same text for equal numbers, so that they have the same digest: 3, 3.0 and 3e0
// are all "3". A whole number keeps all its digits. A number too large for a float64 is returned
// unchanged; decoder.number rejects it later.
func shortest(number string) string {
	f, err := strconv.ParseFloat(number, 64)
	switch {
	case f == 0: // also -0, which is a float in JSON and an integer in YAML
		return "0"
	case err != nil || !strings.ContainsAny(number, ".eE"):
		return number
	}
	b, _ := json.Marshal(f) // finite, so without error
	return string(b)
}

// sort sorts the members of every object by name. It leaves out the scope mappings, because their
// order decides between equally specific patterns.
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

// indented returns the node as indented JSON with a line break at its end.
func (n *node) indented() []byte {
	var flat, b bytes.Buffer
	n.write(&flat)
	if err := json.Indent(&b, flat.Bytes(), "", "  "); err != nil {
		panic("config: wrote invalid JSON: " + err.Error())
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// quote appends s as a JSON string. It leaves <, > and & as they are, because people read the result.
func quote(b *bytes.Buffer, s string) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // encoding a string into a buffer cannot fail
	b.Truncate(b.Len() - 1)
}

// Canonical returns the canonical form of a keyway.yaml given as JSON: members sorted by name (except
// scope mappings, which keep their order), no white space, and ${VAR} as written. Equal files have
// equal canonical forms, however they are formatted. It checks that data is JSON without duplicate
// members and nothing else.
func Canonical(data []byte) ([]byte, error) {
	root, duplicates, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	if len(duplicates) > 0 {
		return nil, fmt.Errorf("%s is written twice", duplicates[0])
	}
	return root.canonical(), nil
}

// canonical sorts the tree and returns it as JSON.
func (n *node) canonical() []byte {
	n.sort("")
	var b bytes.Buffer
	n.write(&b)
	return b.Bytes()
}

// Digest returns the SHA-256 of a canonical form, in hex. Its first digits name a configuration in
// the decision log and in the output of the commands.
func Digest(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}
