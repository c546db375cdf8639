package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
)

// request is an admitted request: who sends it, what was decided, and its
// inputs, whose faults are collected to be answered all at once.
type request struct {
	*http.Request
	principal *authz.Principal
	decision  authz.Decision
}

// param is a parameter of the path.
func (r *request) param(name string) string { return r.decision.Params[name] }

// inputs reads named text values (a query or a form) the way pydantic does, and
// collects what is wrong with them.
type inputs struct {
	place  string // "query" or "body", as FastAPI names it
	values url.Values
	faults []fault.Field
}

func (r *request) query() *inputs { return &inputs{place: "query", values: r.URL.Query()} }

// err is nil when every input was fine.
func (in *inputs) err() error {
	if len(in.faults) > 0 {
		return fault.Fields(in.faults...)
	}
	return nil
}

func (in *inputs) complain(name, kind, msg string, ctx map[string]any) {
	in.faults = append(in.faults, fault.Field{Type: kind, Loc: []any{in.place, name}, Msg: msg, Input: in.last(name), Ctx: ctx})
}

// last is the value that counts when one is given twice: the last, as in Starlette.
func (in *inputs) last(name string) string {
	if v := in.values[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// text reads an optional text of at most max bytes that can be stored.
func (in *inputs) text(name string, max int) string {
	s := in.last(name)
	switch {
	case !utf8.ValidString(s):
		in.faults = append(in.faults, fault.Field{Type: "string_unicode", Loc: []any{in.place, name},
			Msg: "Input should be a valid string, unable to parse raw data as a unicode string"})
	case strings.ContainsRune(s, 0):
		in.complain(name, "value_error", "Value error, a NUL character can't be stored", nil)
	case len(s) > max:
		in.faults = append(in.faults, fault.Field{Type: "string_too_long", Loc: []any{in.place, name},
			Msg: fmt.Sprintf("String should have at most %d bytes", max), Ctx: map[string]any{"max_length": max}})
	default:
		return s
	}
	return ""
}

// required is text that must be there and not empty.
func (in *inputs) required(name string, max int) string {
	if in.last(name) == "" {
		in.faults = append(in.faults, fault.Missing(in.place, name))
		return ""
	}
	return in.text(name, max)
}

// boolean reads pydantic's words for true and false; nothing is the default.
func (in *inputs) boolean(name string, fallback bool) bool {
	switch strings.ToLower(in.last(name)) {
	case "":
		return fallback
	case "1", "true", "t", "yes", "y", "on":
		return true
	case "0", "false", "f", "no", "n", "off":
		return false
	}
	in.complain(name, "bool_parsing", "Input should be a valid boolean, unable to interpret input", nil)
	return fallback
}

// integer reads a number of at least min; nothing is the default.
func (in *inputs) integer(name string, fallback, min int) int {
	s := in.last(name)
	if s == "" && !in.values.Has(name) {
		return fallback
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 32) // a larger page or limit means nothing
	switch {
	case err != nil:
		in.complain(name, "int_parsing", "Input should be a valid integer, unable to parse string as an integer", nil)
		return fallback
	case int(n) < min:
		in.complain(name, "greater_than_equal", fmt.Sprintf("Input should be greater than or equal to %d", min), map[string]any{"ge": min})
		return fallback
	}
	return int(n)
}

// choice reads one of the given words; nothing is the first.
func (in *inputs) choice(name string, words ...string) string {
	s := in.last(name)
	if s == "" && !in.values.Has(name) {
		return words[0]
	}
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" })
	if slices.Contains(words, s) {
		return s
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + w + "'"
	}
	expected := strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
	in.complain(name, "enum", "Input should be "+expected, map[string]any{"expected": expected})
	return ""
}
