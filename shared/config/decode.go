package config

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// mappingsPath is the one object whose members keep the file's order.
const mappingsPath = "auth.scope_mappings"

// apiKeySuffix ends the paths of the values whose variable may be unset.
const apiKeySuffix = ".model.api_key"

// DurationPattern is the form of a duration. It is narrower than time.ParseDuration, which also
// accepts a sign.
const DurationPattern = `^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`

// agentID is the pattern of an agent's id; see isAgentID.
const agentID = `^[A-Za-z0-9._-]{1,64}$`

// isAgentID is agentID, which every file meets: to compile it would take longer
// than all else that a function reads at its start.
func isAgentID(s string) bool {
	plain := func(c byte) bool { return isLetter(c) || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-' }
	for _, c := range []byte(s) {
		if !plain(c) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// isWord is ^[A-Za-z_][A-Za-z0-9_]*$: what may name a variable.
func isWord(s string) bool {
	for i, c := range []byte(s) {
		if !isLetter(c) && c != '_' && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// onFirstUse compiles a pattern that few files meet.
func onFirstUse(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// decoder fills a Config from a tree and collects what is wrong on the way. A
// value that was complained about stays zero, and checks skip zero values.
type decoder struct {
	Options
	c        *Config
	faults   []Fault
	patterns map[string]*regexp.Regexp // compiled once: a function's start pays for each

	dispensable []string // paths of keys that an empty variable leaves out
}

// shorthand is a struct that may also be written as one text.
type shorthand interface {
	fromText(d *decoder, path string, n *node)
}

// value is the way in for every value: what is left out or was complained about
// stays zero, a union takes its text, and a few types have their own notation.
func (d *decoder) value(path string, n *node, v reflect.Value, tag reflect.StructTag) {
	switch n.kind {
	case absentKind, faultyKind:
		return
	case nullKind:
		d.fault(path, "is empty", "give it a value")
		return
	}
	if s, ok := v.Addr().Interface().(shorthand); ok && n.kind == textKind {
		s.fromText(d, path, n)
		return
	}
	switch target := v.Addr().Interface().(type) {
	case *time.Duration:
		*target = d.duration(path, n, tag)
	case *netip.Prefix:
		*target = d.prefix(path, n)
	case *[]ScopeMapping:
		*target = d.scopeMappings(path, n)
	default:
		d.byKind(path, n, v, tag)
	}
}

// byKind has a rule for each Go kind that Config uses; another one is a mistake of
// the struct, which any test meets.
func (d *decoder) byKind(path string, n *node, v reflect.Value, tag reflect.StructTag) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(d.text(path, n, tag))
		if strings.HasSuffix(path, apiKeySuffix) && v.Len() > 0 && !n.vars {
			d.warn(path, "is a secret in the file", "write ${OPENAI_API_KEY}, or another variable, and set that")
		}
	case reflect.Bool:
		if d.expect(path, n, boolKind, "true or false") {
			v.SetBool(n.text == "true")
		}
	case reflect.Int:
		v.SetInt(int64(d.number(path, n, tag, "a whole number")))
	case reflect.Float64:
		v.SetFloat(d.number(path, n, tag, "a number"))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(path, n, v.Elem(), tag)
	case reflect.Slice:
		d.list(path, n, v, tag)
	case reflect.Map:
		d.texts(path, n, v)
	case reflect.Struct:
		d.object(path, n, v)
	default:
		panic("config: no rule for " + v.Type().String())
	}
}

// object fills a struct: unknown members are faults, absent ones get defaults.
func (d *decoder) object(path string, n *node, v reflect.Value) {
	known := fieldNames(v.Type())
	if n.kind != objectKind {
		want := "its fields: " + strings.Join(known, ", ")
		if _, ok := v.Addr().Interface().(shorthand); ok {
			want = "text, or " + want
		}
		d.expect(path, n, objectKind, want)
		return
	}
	for _, key := range slices.Clone(n.keys) {
		if slices.Contains(known, key) {
			continue
		}
		d.fault(Member(path, key), "unknown field", suggest(key, known))
		if meant := nearest(key, known); meant != "" && n.member(meant) == nil {
			n.put(meant, &node{kind: faultyKind}) // not missing as well
		}
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("json")
		if name == "-" {
			continue
		}
		at, child := Member(path, name), n.member(name)
		if child == nil || child.kind == absentKind {
			d.absent(at, f, v.Field(i))
			continue
		}
		d.value(at, child, v.Field(i), f.Tag)
	}
}

// absent fills a field that is not in the file, or waits for a variable.
func (d *decoder) absent(path string, f reflect.StructField, v reflect.Value) {
	if d.declared(path) && d.c.Unset[path] == "" {
		return
	}
	name, waits := d.c.Unset[path]
	if f.Tag.Get("required") == "true" {
		what := "is missing"
		if waits {
			what = "is required, but ${" + name + "} is not set"
		}
		if !waits || !d.needless(path) {
			d.fault(path, what, "add "+f.Tag.Get("json")+": "+f.Tag.Get("example"))
		}
	} else if text, ok := f.Tag.Lookup("default"); ok {
		d.value(path, defaultNode(f.Type, text), v, f.Tag)
	} else if v.Kind() == reflect.Struct {
		d.value(path, &node{kind: objectKind}, v, f.Tag)
	}
}

// declared reports whether the file may leave the list out: there are agents outside
// it, or may be.
func (d *decoder) declared(path string) bool {
	return path == "agents" && (len(d.Agents) > 0 || d.without(Runs))
}

// defaultNode is a default tag as if the file had it, so that it is checked as well.
func defaultNode(t reflect.Type, s string) *node {
	n := textNode(s)
	n.standard = true
	switch t.Kind() {
	case reflect.Bool:
		n.kind = boolKind
	case reflect.Int:
		n.kind = numberKind
	case reflect.Slice:
		return &node{kind: listKind, sub: []*node{n}}
	}
	return n
}

// list keeps a zero element for a struct that waits for a variable, so that the
// checks count as the file does; a text that waits is left out.
func (d *decoder) list(path string, n *node, v reflect.Value, tag reflect.StructTag) {
	if !d.expect(path, n, listKind, "a list") {
		return
	}
	t := v.Type().Elem()
	v.Set(reflect.MakeSlice(v.Type(), 0, len(n.sub)))
	for i, sub := range n.sub {
		if sub.kind == absentKind && t.Kind() != reflect.Struct {
			continue
		}
		e := reflect.New(t).Elem()
		d.value(Element(path, i), sub, e, reflect.StructTag(`enum:"`+tag.Get("enum")+`"`))
		v.Set(reflect.Append(v, e))
	}
	if tag.Get("min") != "" && v.Len() == 0 && !d.declared(path) {
		d.fault(path, "is an empty list", "add an element")
	}
}

// texts fills a map of texts.
func (d *decoder) texts(path string, n *node, v reflect.Value) {
	if !d.expect(path, n, objectKind, "an object") {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i, key := range n.keys {
		e := reflect.New(v.Type().Elem()).Elem()
		if n.sub[i].kind != absentKind {
			d.value(Member(path, key), n.sub[i], e, "")
			v.SetMapIndex(reflect.ValueOf(key), e)
		}
	}
}

// text checks the tags min, max (bytes), enum and pattern.
func (d *decoder) text(path string, n *node, tag reflect.StructTag) string {
	if !d.expect(path, n, textKind, "text, in quotes where needed") {
		return ""
	}
	enum, pattern := tag.Get("enum"), tag.Get("pattern")
	most := bound(tag.Get("max"), math.MaxInt, strconv.Atoi)
	switch {
	case strings.ContainsRune(n.text, 0):
		d.fault(path, "has a NUL character", "remove it") // PostgreSQL can't store one
	case n.text == "" && (tag.Get("min") != "" || enum+pattern != ""):
		d.fault(path, "is empty", "give it a value")
	case len(n.text) > most:
		d.fault(path, fmt.Sprintf("has %d bytes", len(n.text)), fmt.Sprintf("use at most %d", most))
	case enum != "" && !slices.Contains(strings.Split(enum, ","), n.text):
		d.fault(path, "is "+seen(path, n), suggest(n.raw, strings.Split(enum, ",")))
	case pattern != "" && !d.matches(pattern, n):
		d.fault(path, "is "+seen(path, n), "it must match "+pattern)
	default:
		return n.text
	}
	return ""
}

// number checks min and max; without a max, what fits an int everywhere.
func (d *decoder) number(path string, n *node, tag reflect.StructTag, want string) float64 {
	if !d.expect(path, n, numberKind, want) {
		return 0
	}
	parse := func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }
	least := bound(tag.Get("min"), 0, parse)
	most := bound(tag.Get("max"), math.MaxInt32, parse)
	f, err := parse(n.text)
	switch {
	case err != nil || want == "a whole number" && f != math.Trunc(f):
		d.fault(path, "is "+n.text, "write "+want)
	case f < least:
		d.fault(path, "is "+n.text, fmt.Sprintf("use at least %v", least))
	case f > most:
		d.fault(path, "is "+n.text, fmt.Sprintf("use at most %v", int64(most)))
	default:
		return f
	}
	return 0
}

func (d *decoder) duration(path string, n *node, tag reflect.StructTag) time.Duration {
	const want = "a duration with its unit, such as 10s or 5m"
	if !d.expect(path, n, textKind, want) {
		return 0
	}
	least := bound(tag.Get("min"), 0, time.ParseDuration)
	most := bound(tag.Get("max"), math.MaxInt64, time.ParseDuration)
	t, err := time.ParseDuration(n.text)
	switch {
	case err != nil || !d.matches(DurationPattern, n):
		d.fault(path, "is "+seen(path, n), "write "+want)
	case t < least:
		d.fault(path, "is "+seen(path, n), "use at least "+tag.Get("min"))
	case t > most:
		d.fault(path, "is "+seen(path, n), "use at most "+tag.Get("max"))
	default:
		return t
	}
	return 0
}

func (d *decoder) matches(pattern string, n *node) bool {
	switch {
	case n.standard: // the struct's own, which a test holds against the pattern
		return true
	case pattern == agentID:
		return isAgentID(n.text)
	}
	if d.patterns[pattern] == nil {
		d.patterns[pattern] = regexp.MustCompile(pattern)
	}
	return d.patterns[pattern].MatchString(n.text)
}

// bound reads the tag min or max.
func bound[T any](tag string, otherwise T, parse func(string) (T, error)) T {
	if v, err := parse(tag); err == nil {
		return v
	}
	return otherwise
}

// prefix refuses what would never match, or match more than it seems to: an IPv4
// address in IPv6 notation, a network with bits of a host.
func (d *decoder) prefix(path string, n *node) netip.Prefix {
	const want = "an address or a network, such as 10.1.2.3 or 10.0.0.0/8"
	if !d.expect(path, n, textKind, want) {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(n.text)
	if a, single := netip.ParseAddr(n.text); single == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil:
		d.fault(path, "is "+seen(path, n), "write "+want)
	case p.Addr().Is4In6():
		d.fault(path, "is "+seen(path, n), "write the IPv4 form")
	case p != p.Masked():
		d.fault(path, "is "+seen(path, n), "write "+p.Masked().String())
	default:
		return p
	}
	return netip.Prefix{}
}

// expect complains of a value of the wrong kind.
func (d *decoder) expect(path string, n *node, k kind, want string) bool {
	if n.kind == k {
		return true
	}
	what := n.kind.String()
	if n.kind == textKind && (k == boolKind || k == numberKind) {
		what = seen(path, n)
	}
	d.fault(path, "is "+what, "write "+want)
	return false
}

// seen quotes a text for a fault: short, with variables unexpanded, and nothing
// that may be a misplaced key.
func seen(path string, n *node) string {
	if strings.HasPrefix(path, "auth.keys") {
		return "not of the right form"
	}
	r := []rune(n.raw)
	if len(r) > 60 {
		r = append(r[:60], '…')
	}
	return strconv.Quote(string(r))
}

// fieldNames are the words of the file for t's fields, in their order.
func fieldNames(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		if name := f.Tag.Get("json"); name != "-" {
			names = append(names, name)
		}
	}
	return names
}
