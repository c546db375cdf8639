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

	"github.com/keyway-agents/keyway/shared/scope"
)

// mappingsPath is the only object with members in a meaningful order: the order of scope mappings
// decides between equally specific patterns.
const mappingsPath = "auth.scope_mappings"

// apiKeySuffix ends the path of a model's API key. Parse accepts it with an unset variable, so that a
// configuration can be checked without the keys. Package agents reports the missing key when it opens
// the model, or with --dev uses the demo model.
const apiKeySuffix = ".model.api_key"

// DurationPattern is the form of a duration. It is narrower than time.ParseDuration, which also
// accepts a sign. A number of days stands alone.
const DurationPattern = `^(0|[0-9]+d|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// isWord reports whether s can be the name of a variable: ^[A-Za-z_][A-Za-z0-9_]*$. Like
// scope.IsAgentID it is a loop, because every function calls it at a cold start.
func isWord(s string) bool {
	for i, c := range []byte(s) {
		if !isLetter(c) && c != '_' && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// onFirstUse returns a function that compiles the pattern at its first call. Most files need few of
// these patterns, and compiling all of them would slow down every cold start.
func onFirstUse(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// decoder fills a Config from a tree and collects all errors. A field with an invalid value stays
// zero, and later checks skip zero values, so that a mistake is reported once.
type decoder struct {
	Options
	c      *Config
	faults []Fault
	// moreFaults is how many errors are not in faults.
	moreFaults int
	patterns   map[string]*regexp.Regexp // the compiled patterns of struct tags

	droppable []string // the paths that dropEmptyKeys removes if their variable is set to ""
}

// shorthand is a struct that can also be written as one text.
type shorthand interface {
	fromText(d *decoder, path string, n *node)
}

// value decodes n into v. Values that are left out, or have an error already, stay zero. Types with a
// notation of their own come first, then the general rules for each Go kind. tag is the tag of the
// field, for its bounds.
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
	case *Key:
		d.key(path, n, target)
	case *ClaimSource:
		*target = d.source(path, n)
	case *Grants:
		*target = d.grants(path, n)
	case *Sources, *Texts:
		d.oneOrMany(path, n, v, tag)
	default:
		d.byKind(path, n, v, tag)
	}
}

// byKind decodes by the Go kind of v. It panics for a kind that no field of Config has; every test
// would show such a mistake.
func (d *decoder) byKind(path string, n *node, v reflect.Value, tag reflect.StructTag) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(d.text(path, n, tag))
		if strings.HasSuffix(path, apiKeySuffix) && v.Len() > 0 && !n.hasVariable {
			d.warn(path, "is a secret written in the file",
				"write ${OPENAI_API_KEY} or another variable instead, and set that variable")
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

// object decodes an object into a struct. Unknown members are errors, since a misspelled field would
// otherwise silently keep its default. Absent members get their defaults.
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
	for _, key := range slices.Clone(n.keys) { // put below adds keys
		if slices.Contains(known, key) {
			continue
		}
		d.fault(Member(path, key), "unknown field", suggest(key, known))
		if meant := nearest(key, known); meant != "" && n.member(meant) == nil {
			n.put(meant, &node{kind: faultyKind}) // do not report it as missing too
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

// absent handles a field that is not in the file or has an unset variable: it sets the default, or
// reports that the field is required.
func (d *decoder) absent(path string, f reflect.StructField, v reflect.Value) {
	if d.agentsInGo(path) && d.c.Unset[path] == "" {
		return
	}
	name, unset := d.c.Unset[path]
	if f.Tag.Get("required") == "true" {
		what := "is missing"
		if unset {
			what = "is required, but ${" + name + "} is not set"
		}
		if !unset || !d.unneeded(path) {
			d.fault(path, what, "add "+f.Tag.Get("json")+": "+f.Tag.Get("example"))
		}
	} else if text, ok := f.Tag.Lookup("default"); ok {
		d.value(path, defaultNode(f.Type, text), v, f.Tag)
	} else if _, source := v.Addr().Interface().(*ClaimSource); v.Kind() == reflect.Struct && !source {
		d.value(path, &node{kind: objectKind}, v, f.Tag)
	}
}

// agentsInGo reports whether path is the list of agents and the file can leave it out: the program has
// agents declared in Go, or is one that does not run agents, so that it cannot know.
func (d *decoder) agentsInGo(path string) bool {
	return path == "agents" && (len(d.Agents) > 0 || d.without(Runs))
}

// defaultNode returns the tag default as if it were in the file. The same code then decodes and checks
// both.
func defaultNode(t reflect.Type, s string) *node {
	n := textNode(s)
	n.isDefault = true
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

// list decodes a list. An element that is left out because its variable is unset stays as a zero
// element if it is a struct, so that the index in the path of a later message is the one of the file
// (Config.complete removes it). A text is removed at once, since no later check looks at it.
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
	if tag.Get("min") != "" && v.Len() == 0 && !d.agentsInGo(path) {
		d.fault(path, "is an empty list", "add an element")
	}
}

// texts decodes an object with any member names into a map of texts.
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

// text decodes a text, and checks the tags min, max (in bytes), enum and pattern.
func (d *decoder) text(path string, n *node, tag reflect.StructTag) string {
	if !d.expect(path, n, textKind, "text, in quotes where needed") {
		return ""
	}
	enum, pattern := tag.Get("enum"), tag.Get("pattern")
	most := fromTag(tag.Get("max"), math.MaxInt, strconv.Atoi)
	switch {
	case strings.ContainsRune(n.text, 0):
		d.fault(path, "has a NUL character", "remove it") // PostgreSQL cannot store it
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

// number decodes a number, and checks the tags min and max. The default maximum fits an int on every
// platform. want is how a message describes the expected value.
func (d *decoder) number(path string, n *node, tag reflect.StructTag, want string) float64 {
	if !d.expect(path, n, numberKind, want) {
		return 0
	}
	parse := func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }
	least := fromTag(tag.Get("min"), 0, parse)
	most := fromTag(tag.Get("max"), math.MaxInt32, parse)
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

// duration decodes a duration with a unit, and checks the tags min and max.
func (d *decoder) duration(path string, n *node, tag reflect.StructTag) time.Duration {
	const want = "a duration with its unit, such as 10s or 5m"
	if !d.expect(path, n, textKind, want) {
		return 0
	}
	least := fromTag(tag.Get("min"), 0, time.ParseDuration)
	most := fromTag(tag.Get("max"), math.MaxInt64, time.ParseDuration)
	t, err := parseDuration(n.text)
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

// parseDuration is time.ParseDuration with days, of 24 hours each.
func parseDuration(text string) (time.Duration, error) {
	days, ok := strings.CutSuffix(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16) // 65,535 days are 179 years, and a Duration has 292.
	return time.Duration(n) * 24 * time.Hour, err
}

// matches reports whether the text of n matches the pattern. The two cases before the regular
// expression are there for the time of a cold start. A test checks the defaults against their
// patterns.
func (d *decoder) matches(pattern string, n *node) bool {
	switch {
	case n.isDefault:
		return true
	case pattern == scope.AgentIDPattern:
		return scope.IsAgentID(n.text)
	}
	if d.patterns[pattern] == nil {
		d.patterns[pattern] = regexp.MustCompile(pattern)
	}
	return d.patterns[pattern].MatchString(n.text)
}

// fromTag parses the tag min or max, and returns otherwise if there is none.
func fromTag[T any](tag string, otherwise T, parse func(string) (T, error)) T {
	if v, err := parse(tag); err == nil {
		return v
	}
	return otherwise
}

// prefix decodes a network, or a single address. It rejects an IPv4 address in IPv6 notation, which
// would never match a connection, and a network with host bits, which matches more addresses than it
// seems to.
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

// expect reports whether n is of kind k. If it is not, it adds an error that describes the expected
// value as want.
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

// seen quotes the text of n for a message, at most 60 characters of it. Variables are not expanded,
// because their values can be secrets. In auth.keys nothing is quoted, because a key can be in the
// wrong field.
func seen(path string, n *node) string {
	if strings.HasPrefix(path, "auth.keys") {
		return "not in the required form"
	}
	r := []rune(n.raw)
	if len(r) > 60 {
		r = append(r[:60], '…')
	}
	return strconv.Quote(string(r))
}

// fieldNames returns the names that the fields of t have in the file, in their order.
func fieldNames(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		if name := f.Tag.Get("json"); name != "-" {
			names = append(names, name)
		}
	}
	return names
}
