package tool

import (
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

// The schemas that tools declare are written for validators of any draft of JSON Schema. The vendors of models accept
// less: OpenAI and Anthropic refuse a schema whose root has anyOf, oneOf, allOf, enum or not, Amazon Bedrock refuses
// any root type but object, OpenAI refuses an object without properties and an array without items, and Anthropic
// refuses what is not draft 2020-12. They refuse the whole request, so one such tool stops every run of its agent.
// FitSchema therefore makes of every schema one that all of them accept.

// The limits protect the process from a server whose schema takes long to fit.
const (
	maxSchema      = 128 << 10 // bytes of a schema
	maxSchemaDepth = 64        // how deep a schema may be nested
	maxInlined     = 32 << 10  // bytes of definitions that are put in the place of references
	maxReferences  = 1000      // different references that are looked up
)

// FitSchema returns a schema that the models' vendors accept in place of a tool's schema. It describes an object, and
// its root has type, properties and no union. Arguments that fit the tool's schema fit the result too, with one
// exception: a property that one branch of a union declares has that type in all branches. The order of properties,
// and the text of numbers, stay as they are.
//
//   - A union at the root becomes one object with the properties of all branches. Those that every branch requires
//     stay required.
//   - A reference ($ref) is replaced by what it refers to. References of recursive definitions stay, with $defs.
//   - A keyword whose value is not valid is left out, and so is a reference that leads nowhere.
//   - A tuple of an older draft (items is a list) becomes prefixItems.
//
// No text stands for no parameters. The error says why text can't be used: it is not JSON, it is larger than 128 KiB or
// nested deeper than 64 levels, or it doesn't describe an object.
func FitSchema(text json.RawMessage) (json.RawMessage, error) {
	if len(text) == 0 {
		return json.RawMessage(`{"type":"object","properties":{}}`), nil
	}
	if len(text) > maxSchema {
		return nil, errors.New("it is larger than 128 KiB")
	}
	if err := strictjson.Check(text, strictjson.Options{MaxDepth: maxSchemaDepth, AnyNumber: true}); err != nil {
		return nil, errors.New("it is not JSON: " + err.Text)
	}
	root := strictjson.Root(string(text))
	if root.Raw[0] != '{' {
		return nil, errNoObject
	}
	f := &fitter{root: root, targets: map[string]*target{}, kept: map[string]bool{}}
	shape, err := f.shapeOf(root, nil)
	if err != nil {
		return nil, err
	}
	return f.write(shape), nil
}

// errNoObject is the error of a schema that accepts no object.
var errNoObject = errors.New("it is not the schema of an object")

// member is one member of a JSON object: its name and the text of its value.
type member struct{ name, text string }

// set replaces the value of the member with this name, or appends the member.
func set(members []member, name, text string) []member {
	if i := slices.IndexFunc(members, func(m member) bool { return m.name == name }); i >= 0 {
		members[i].text = text
		return members
	}
	return append(members, member{name, text})
}

// get returns the value of the member with this name. If a name occurs twice, the last one counts, as for every reader
// that decodes an object into a map.
func get(v strictjson.Value, name string) (found strictjson.Value, ok bool) {
	for n, value := range v.Members() {
		if n == name {
			found, ok = value, true
		}
	}
	return found, ok
}

// object returns the JSON object of members.
func object(members []member) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quote(m.name))
		b.WriteByte(':')
		b.WriteString(m.text)
	}
	b.WriteByte('}')
	return b.String()
}

// quote returns a JSON string.
func quote(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string has no value that can't be encoded
	return strings.TrimSuffix(b.String(), "\n")
}

// list returns the JSON array of elements.
func list(elements []string) string { return "[" + strings.Join(elements, ",") + "]" }

// fitter holds the state of one call of FitSchema.
type fitter struct {
	root    strictjson.Value
	targets map[string]*target // by reference
	kept    map[string]bool    // references that stay
	inlined int                // bytes of definitions that replaced references
}

// target is what a reference leads to.
type target struct {
	strictjson.Value
	refersTo []string // the references in it
	// recursive states that one of them leads back to the target. It is known once searched is true.
	searched, recursive bool
}

// shape is what a schema says about an object.
type shape struct {
	properties []member
	required   []string
	// closed states that no other properties are allowed.
	closed bool
	// members holds the schema's own members. They stay if nothing had to be merged.
	members []member
	merged  bool
}

// shapeOf reads a schema at the root, or a branch of one. within holds the references that led here.
func (f *fitter) shapeOf(v strictjson.Value, within []string) (s shape, err error) {
	if v.Raw[0] != '{' {
		if v.Raw == "true" {
			return shape{}, nil
		}
		return s, errNoObject
	}
	if t, ok := get(v, "type"); ok && !mayBeObject(t) {
		return s, errNoObject
	}
	if p, ok := get(v, "properties"); ok {
		if p.Raw[0] != '{' {
			return s, errors.New("its properties are not an object")
		}
		for name, value := range p.Members() {
			s.properties = set(s.properties, name, f.subschema(value, within))
		}
	}
	if r, ok := get(v, "required"); ok {
		s.required = texts(r)
	}
	if a, ok := get(v, "additionalProperties"); ok {
		_, patterns := get(v, "patternProperties")
		s.closed = a.Raw == "false" && !patterns
	}
	for name, value := range v.Members() {
		switch name {
		case "$ref":
			if err := f.mergeReference(&s, value, within); err != nil {
				return s, err
			}
		case "allOf":
			for branch := range value.Elements() {
				other, err := f.shapeOf(branch, within)
				if err != nil {
					return s, err
				}
				s.and(other)
			}
		case "anyOf", "oneOf":
			branches, err := f.branches(value, within)
			if err != nil {
				return s, err
			}
			s.and(either(branches))
		case "then", "else":
			// Which of them holds depends on the arguments, so their properties are described and not required.
			if other, err := f.shapeOf(value, within); err == nil {
				other.required, other.closed = nil, false
				s.and(other)
			}
		case "if", "not", "enum", "const":
			// A root without them accepts the same arguments, and more.
		case "type", "properties", "required":
			s.members = set(s.members, name, "") // write fills these in
		default:
			if text, ok := f.keyword(name, value, within); ok {
				s.members = set(s.members, name, text)
			}
		}
	}
	return s, nil
}

// mergeReference adds what a reference at the root leads to. A reference that leads nowhere, or to itself, adds
// nothing.
func (f *fitter) mergeReference(s *shape, ref strictjson.Value, within []string) error {
	name, _ := ref.Text()
	name = canonical(name)
	to := f.resolve(name)
	if to == nil || slices.Contains(within, name) || f.inlined+len(to.Raw) > maxInlined {
		return nil
	}
	f.inlined += len(to.Raw)
	other, err := f.shapeOf(to.Value, append(slices.Clone(within), name))
	if err == nil {
		s.and(other)
	}
	return err
}

// branches returns the shapes of the branches of a union that accept an object. It is an error if there is none.
func (f *fitter) branches(union strictjson.Value, within []string) (all []shape, err error) {
	err = errNoObject
	for branch := range union.Elements() {
		one, fails := f.shapeOf(branch, within)
		if fails != nil {
			err = fails
			continue
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil, err
	}
	return all, nil
}

// and adds what a schema says that holds at the same time.
func (s *shape) and(other shape) {
	s.merged = true
	for _, m := range other.properties {
		i := slices.IndexFunc(s.properties, func(p member) bool { return p.name == m.name })
		if i < 0 || s.properties[i].text == "{}" {
			s.properties = set(s.properties, m.name, m.text)
		}
	}
	for _, name := range other.required {
		if !slices.Contains(s.required, name) {
			s.required = append(s.required, name)
		}
	}
	s.closed = s.closed || other.closed
	for _, m := range other.members {
		if !slices.ContainsFunc(s.members, func(o member) bool { return o.name == m.name }) {
			s.members = append(s.members, m)
		}
	}
}

// either returns the shape of objects that have one of the shapes.
func either(branches []shape) (s shape) {
	s.closed = true
	types := map[string][]string{}
	for i, b := range branches {
		for _, m := range b.properties {
			if !slices.Contains(types[m.name], m.text) {
				types[m.name] = append(types[m.name], m.text)
			}
			s.properties = set(s.properties, m.name, m.text)
		}
		if i == 0 {
			s.required = b.required
		}
		s.required = slices.DeleteFunc(slices.Clone(s.required), func(name string) bool {
			return !slices.Contains(b.required, name)
		})
		s.closed = s.closed && b.closed
	}
	for i, m := range s.properties {
		switch all := types[m.name]; {
		case slices.Contains(all, "{}"):
			s.properties[i].text = "{}"
		case len(all) > 1:
			s.properties[i].text = object([]member{{"anyOf", list(all)}})
		}
	}
	return s
}

// write returns the schema of a shape. A required property that isn't described accepts every value.
func (f *fitter) write(s shape) json.RawMessage {
	required := make([]string, len(s.required))
	for i, name := range s.required {
		required[i] = quote(name)
		if !slices.ContainsFunc(s.properties, func(m member) bool { return m.name == name }) {
			s.properties = append(s.properties, member{name, "{}"})
		}
	}
	if s.merged {
		s.members = slices.DeleteFunc(s.members, func(m member) bool { return !slices.Contains(stays, m.name) })
		if s.closed {
			s.members = set(s.members, "additionalProperties", "false")
		}
	}
	s.members = set(s.members, "type", `"object"`)
	s.members = set(s.members, "properties", object(s.properties))
	s.members = set(s.members, "required", list(required))
	if len(required) == 0 {
		s.members = slices.DeleteFunc(s.members, func(m member) bool { return m.name == "required" })
	}
	return json.RawMessage(object(f.withDefinitions(s.members)))
}

// withDefinitions appends the definitions whose references stay. Writing one can add others.
func (f *fitter) withDefinitions(all []member) []member {
	written := map[string][]member{}
	done := map[string]bool{}
	for len(done) < len(f.kept) {
		for _, ref := range slices.Sorted(maps.Keys(f.kept)) {
			if done[ref] {
				continue
			}
			done[ref] = true
			holder, name, _ := definition(ref)
			written[holder] = append(written[holder], member{name, f.schemaObject(f.resolve(ref).Value, []string{ref})})
		}
	}
	for _, holder := range slices.Sorted(maps.Keys(written)) {
		all = append(all, member{holder, object(written[holder])})
	}
	return all
}

// canonical returns the one spelling of a reference to a definition. A name can be escaped in many ways, and each
// reference that stays is written with a definition of its own. Other references are returned as they are.
func canonical(ref string) string {
	holder, name, ok := definition(ref)
	if !ok {
		return ref
	}
	return "#/" + holder + "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}

// definition returns the parts of a reference to a definition: "#/$defs/NAME" or "#/definitions/NAME". ok is false for
// another reference.
func definition(ref string) (holder, name string, ok bool) {
	holder, name, ok = strings.Cut(strings.TrimPrefix(ref, "#/"), "/")
	if !ok || holder != "$defs" && holder != "definitions" || strings.Contains(name, "/") {
		return "", "", false
	}
	name, err := pointerPart(name)
	return holder, name, err == nil
}

// pointerPart decodes one part of a JSON Pointer in a URI fragment (RFC 6901, section 6).
func pointerPart(part string) (string, error) {
	part, err := url.PathUnescape(part)
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(part), err
}

// resolve returns what a reference within the same schema leads to, or nil.
func (f *fitter) resolve(ref string) *target {
	if known, ok := f.targets[ref]; ok || len(f.targets) == maxReferences {
		return known
	}
	f.targets[ref] = nil
	if v, ok := f.find(ref); ok {
		f.targets[ref] = &target{Value: v, refersTo: slices.Collect(references(v))}
	}
	return f.targets[ref]
}

// find looks a reference up.
func (f *fitter) find(ref string) (v strictjson.Value, ok bool) {
	path, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return v, false
	}
	v = f.root
	for part := range strings.SplitSeq(path, "/") {
		name, err := pointerPart(part)
		if err != nil {
			return v, false
		}
		if v.Raw[0] == '[' {
			v, ok = element(v, name)
		} else {
			v, ok = get(v, name)
		}
		if !ok {
			return v, false
		}
	}
	return v, true
}

// element returns the element of an array whose index is written in decimal.
func element(v strictjson.Value, index string) (strictjson.Value, bool) {
	n, err := strconv.Atoi(index)
	for e := range v.Elements() {
		if n == 0 && err == nil {
			return e, true
		}
		n--
	}
	return strictjson.Value{}, false
}

// reference returns what stands in place of a schema with a $ref. Of the other members only the annotations stay,
// because older drafts ignore all others beside a $ref.
func (f *fitter) reference(v strictjson.Value, ref string, within []string) string {
	ref = canonical(ref)
	var all []member
	to := f.resolve(ref)
	_, _, keepable := definition(ref)
	switch tooLarge := to != nil && f.inlined+len(to.Raw) > maxInlined; {
	case to == nil:
	case keepable && (tooLarge || f.isRecursive(ref)):
		f.kept[ref] = true
		all = append(all, member{"$ref", quote(ref)})
	case tooLarge || slices.Contains(within, ref):
	default:
		f.inlined += len(to.Raw)
		all = f.members(to.Value, append(slices.Clone(within), ref))
	}
	for name, value := range v.Members() {
		if text, ok := f.keyword(name, value, within); ok && slices.Contains(annotations, name) {
			all = set(all, name, text)
		}
	}
	return object(all)
}

// isRecursive reports whether a definition refers to itself, directly or through others.
func (f *fitter) isRecursive(ref string) bool {
	start := f.resolve(ref)
	if start.searched {
		return start.recursive
	}
	start.searched = true
	seen := map[string]bool{}
	for next := []string{ref}; len(next) > 0; next = next[1:] {
		to := f.resolve(next[0])
		if to == nil {
			continue
		}
		for _, found := range to.refersTo {
			if !seen[found] {
				seen[found] = true
				next = append(next, found)
			}
		}
	}
	start.recursive = seen[ref]
	return start.recursive
}

// references yields the text of every $ref within v.
func references(v strictjson.Value) iter.Seq[string] {
	return func(yield func(string) bool) {
		var walk func(strictjson.Value) bool
		walk = func(v strictjson.Value) bool {
			for name, value := range v.Members() {
				if text, ok := value.Text(); ok && name == "$ref" && !yield(canonical(text)) || !walk(value) {
					return false
				}
			}
			for value := range v.Elements() {
				if !walk(value) {
					return false
				}
			}
			return true
		}
		walk(v)
	}
}

// subschema returns the fitted text of a schema below the root.
func (f *fitter) subschema(v strictjson.Value, within []string) string {
	if v.Raw[0] == '{' {
		if r, ok := get(v, "$ref"); ok {
			if ref, ok := r.Text(); ok {
				return f.reference(v, ref, within)
			}
		}
		return f.schemaObject(v, within)
	}
	if v.Raw == "false" {
		return `{"not":{}}`
	}
	return "{}" // true, or no schema at all
}

// schemaObject returns the fitted text of a schema without $ref.
func (f *fitter) schemaObject(v strictjson.Value, within []string) string {
	return object(f.members(v, within))
}

// members returns the fitted members of a schema without $ref.
func (f *fitter) members(v strictjson.Value, within []string) (all []member) {
	if r, ok := get(v, "$ref"); ok {
		// A definition that is itself a reference.
		if ref, ok := r.Text(); ok {
			for name, value := range strictjson.Root(f.reference(v, ref, within)).Members() {
				all = set(all, name, value.Raw)
			}
			return all
		}
	}
	if _, tuple := get(v, "prefixItems"); !tuple {
		v = modernTuple(v)
	}
	for name, value := range v.Members() {
		if text, ok := f.keyword(name, value, within); ok {
			all = set(all, name, text)
		}
	}
	if t, ok := get(v, "type"); ok && t.Raw == `"array"` {
		if _, ok := get(v, "items"); !ok {
			all = append(all, member{"items", "{}"})
		}
	}
	return all
}

// modernTuple returns v with the tuple of an older draft, a list in items, in the form of draft 2020-12.
func modernTuple(v strictjson.Value) strictjson.Value {
	if items, ok := get(v, "items"); !ok || items.Raw[0] != '[' {
		return v
	}
	var all []member
	for name, value := range v.Members() {
		switch name {
		case "items":
			name = "prefixItems"
		case "additionalItems":
			name = "items"
		}
		all = set(all, name, value.Raw)
	}
	return strictjson.Root(object(all))
}

// annotations holds the keywords that describe and don't restrict.
var annotations = []string{"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}

// stays holds the keywords of the root that stay when the root is merged.
var stays = append([]string{"type", "properties", "required"}, annotations...)

// kind is the kind of value that a keyword has.
type kind int

const (
	unknown     kind = iota
	dropped          // left out
	anything         // any JSON
	text             // a string
	boolean          // true or false
	number           // a number
	positive         // a number above 0
	count            // a whole number, 0 or more
	values           // a list of any JSON
	names            // a list of different strings
	types            // the name of a type, or a list of them
	one              // a schema
	some             // a list of schemas, at least one
	byName           // an object of schemas
	namesByName      // an object of lists of strings
)

// keywords holds the kinds of the keywords of all drafts. An unknown keyword stays as it is, since validators ignore
// it too.
var keywords = map[string]kind{
	"$schema": dropped, "$id": dropped, "id": dropped, "$anchor": dropped, "$dynamicAnchor": dropped,
	"$dynamicRef": dropped, "$recursiveRef": dropped, "$recursiveAnchor": dropped, "$vocabulary": dropped,
	"$comment": dropped, "$ref": dropped, "$defs": dropped, "definitions": dropped, "dependencies": dropped,
	"additionalItems": dropped, "unevaluatedProperties": dropped, "unevaluatedItems": dropped,
	"title": text, "description": text, "pattern": text, "format": text, "contentEncoding": text,
	"contentMediaType": text, "contentSchema": one,
	"default": anything, "const": anything, "enum": values, "examples": values,
	"deprecated": boolean, "readOnly": boolean, "writeOnly": boolean, "uniqueItems": boolean,
	"minimum": number, "maximum": number, "exclusiveMinimum": number, "exclusiveMaximum": number,
	"multipleOf": positive, "minLength": count, "maxLength": count, "minItems": count, "maxItems": count,
	"minContains": count, "maxContains": count, "minProperties": count, "maxProperties": count,
	"required": names, "type": types, "dependentRequired": namesByName,
	"anyOf": some, "oneOf": some, "allOf": some, "prefixItems": some,
	"not": one, "if": one, "then": one, "else": one, "items": one, "contains": one, "propertyNames": one,
	"additionalProperties": one,
	"properties":           byName, "patternProperties": byName, "dependentSchemas": byName,
}

// keyword returns the fitted value of a keyword. ok is false if the keyword is left out.
func (f *fitter) keyword(name string, v strictjson.Value, within []string) (string, bool) {
	switch keywords[name] {
	case unknown, anything:
		return v.Raw, true
	case text:
		return v.Raw, v.Raw[0] == '"'
	case boolean:
		return v.Raw, v.Raw[0] == 't' || v.Raw[0] == 'f'
	case number:
		return v.Raw, isNumber(v)
	case positive:
		n, err := strconv.ParseFloat(v.Raw, 64)
		return v.Raw, err == nil && n > 0
	case count:
		_, err := strconv.ParseUint(v.Raw, 10, 31)
		return v.Raw, err == nil
	case values:
		return v.Raw, v.Raw[0] == '['
	case names:
		quoted := make([]string, 0, 8)
		for _, s := range texts(v) {
			quoted = append(quoted, quote(s))
		}
		return list(quoted), v.Raw[0] == '['
	case types:
		return typeNames(v)
	case one:
		if name == "additionalProperties" && v.Raw[0] != '{' {
			return v.Raw, v.Raw == "true" || v.Raw == "false"
		}
		return f.subschema(v, within), v.Raw[0] == '{' || v.Raw[0] == 't' || v.Raw[0] == 'f'
	case some:
		var all []string
		for e := range v.Elements() {
			all = append(all, f.subschema(e, within))
		}
		return list(all), len(all) > 0
	case byName:
		var all []member
		for name, e := range v.Members() {
			all = set(all, name, f.subschema(e, within))
		}
		return object(all), v.Raw[0] == '{'
	case namesByName:
		var all []member
		for name, e := range v.Members() {
			if text, ok := f.keyword("required", e, within); ok {
				all = set(all, name, text)
			}
		}
		return object(all), v.Raw[0] == '{'
	}
	return "", false
}

// isNumber reports whether v is a number that fits a float64.
func isNumber(v strictjson.Value) bool {
	_, err := strconv.ParseFloat(v.Raw, 64)
	return err == nil
}

// texts returns the different strings of a list, in their order.
func texts(v strictjson.Value) (all []string) {
	for e := range v.Elements() {
		if s, ok := e.Text(); ok && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// jsonTypes holds the names of JSON Schema's types.
var jsonTypes = []string{"object", "array", "string", "number", "integer", "boolean", "null"}

// typeNames returns the value of the keyword type. A list of one type becomes that type. ok is false if there is a name
// that isn't a type's.
func typeNames(v strictjson.Value) (string, bool) {
	if s, ok := v.Text(); ok {
		return v.Raw, slices.Contains(jsonTypes, s)
	}
	all := texts(v)
	quoted := make([]string, len(all))
	for i, s := range all {
		if !slices.Contains(jsonTypes, s) {
			return "", false
		}
		quoted[i] = quote(s)
	}
	if len(all) == 1 {
		return quoted[0], true
	}
	return list(quoted), len(all) > 0
}

// mayBeObject reports whether the value of the keyword type allows an object.
func mayBeObject(t strictjson.Value) bool {
	s, ok := t.Text()
	return ok && s == "object" || slices.Contains(texts(t), "object")
}
