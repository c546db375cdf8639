// Package policycheck reads a table of promises (who may send which request, and why
// not) and holds a configuration to it. Each promise is put twice: to the decision,
// and to the policy that the authorizer returns for such a caller's token.
// It knows no command line and prints nothing.
package policycheck

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

// Table is one file of promises.
type Table struct {
	File   string
	Config string // the keyway.yaml it is about
	Tests  []Test // in the order of the file; never empty

	doc     yamlfile.Document
	callers map[string]caller
}

// caller is who asks: nobody known (none), some scopes, or some claims.
type caller struct {
	none   bool
	scopes []string
	claims map[string]any // nil: scopes
}

// reader collects the faults of a table.
type reader struct {
	table  *Table
	faults []config.Fault
}

// Read reads a table. The error is config.Faults, every one at once, or that of
// opening the file.
func Read(path string) (*Table, error) {
	doc, err := yamlfile.Open(path)
	if err != nil {
		return nil, err
	}
	r := reader{table: &Table{File: path, Config: "keyway.yaml", doc: doc, callers: map[string]caller{}}}
	dec := json.NewDecoder(bytes.NewReader(doc.JSON()))
	dec.UseNumber()
	var root any
	if err := dec.Decode(&root); err != nil { // yamlfile wrote it
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.root(root)
	if len(r.faults) > 0 {
		return nil, doc.Place(r.faults)
	}
	if !filepath.IsAbs(r.table.Config) {
		r.table.Config = filepath.Join(filepath.Dir(path), r.table.Config)
	}
	return r.table, nil
}

func (r *reader) fault(path, text, remedy string) {
	r.faults = append(r.faults, config.Fault{Path: path, Text: text, Remedy: remedy})
}

func (r *reader) root(root any) {
	fields, ok := root.(map[string]any)
	if !ok {
		r.fault("", "is no table", "write the fields callers and tests")
		return
	}
	for name := range fields {
		if !slices.Contains([]string{"config", "callers", "tests"}, name) {
			r.fault(config.Member("", name), "unknown field", "use config, callers or tests")
		}
	}
	if v, given := fields["config"]; given {
		if file, ok := v.(string); ok && file != "" {
			r.table.Config = file
		} else {
			r.fault("config", "is no file name", "write config: keyway.yaml, a path that starts at this file's directory")
		}
	}
	callers, _ := fields["callers"].(map[string]any)
	if len(callers) == 0 {
		r.fault("callers", "names nobody", "write callers: {ann: [agents:read], anonymous: none}")
	}
	for name, v := range callers {
		r.caller(name, v)
	}
	tests, _ := fields["tests"].([]any)
	if len(tests) == 0 {
		r.fault("tests", "promises nothing, which always holds", "write tests: a list of rows such as "+example)
	}
	for i, v := range tests {
		r.row(config.Element("tests", i), v)
	}
	r.unused(callers)
}

// unused complains of callers in no row: somebody believes that they are tested.
func (r *reader) unused(callers map[string]any) {
	for _, t := range r.table.Tests {
		delete(callers, t.Caller)
	}
	if len(r.faults) > 0 { // the row may be one that was complained about
		return
	}
	for name := range callers {
		r.fault(config.Member("callers", name), "is in no test", "add a row about this caller, or remove it")
	}
}

var callerName = regexp.MustCompile(`^[A-Za-z0-9_.@-]+$`)

// dates are the claims that may be written as a distance from now.
var dates = []string{"exp", "nbf", "iat"}

func (r *reader) caller(name string, v any) {
	at := config.Member("callers", name)
	if !callerName.MatchString(name) {
		r.fault(at, "is no name that a row can begin with", "use letters, digits, dots, _, @ and -")
	}
	switch v := v.(type) {
	case string:
		if v != "none" {
			r.fault(at, "is text", "write none for a caller without a token, [agents:read] for scopes, or {sub: ann, scopes: [agents:read]} for claims")
		}
		r.table.callers[name] = caller{none: true}
	case []any:
		c := caller{}
		for i, s := range v {
			if text, ok := s.(string); ok {
				c.scopes = append(c.scopes, text)
			} else {
				r.fault(config.Element(at, i), "is no scope", "write one text in each element, such as agents:read")
			}
		}
		r.table.callers[name] = c
	case map[string]any:
		for _, claim := range dates {
			r.date(config.Member(at, claim), v[claim])
		}
		r.table.callers[name] = caller{claims: v}
	default:
		r.fault(at, "says nothing of the token", "write none, a list of scopes ([] for a token without any) or claims")
		r.table.callers[name] = caller{}
	}
}

// date takes a duration from now, or whatever JSON a hostile token may hold.
func (r *reader) date(at string, v any) {
	if text, ok := v.(string); ok {
		if _, err := time.ParseDuration(text); err != nil {
			r.fault(at, "is "+strconv.Quote(text), "write how far from now, such as 1h or -1h, a number of seconds since 1970, or null to leave it out")
		}
	}
}

// undeclared finds the agents that rows name and the configuration doesn't have:
// nothing said of them is a promise about this OS.
func (t *Table) undeclared(agents []string) (faults []config.Fault) {
	for i, test := range t.Tests {
		for _, id := range test.agents() {
			if !slices.Contains(agents, id) {
				faults = append(faults, config.Fault{Path: config.Element("tests", i),
					Text: fmt.Sprintf("names the agent %s, which %s does not declare", id, t.Config), Remedy: "use " + config.OneOf(agents)})
			}
		}
	}
	return faults
}

// unread finds claims that this OS reads nothing from: most are typing errors.
func (t *Table) unread(claims config.Claims) (faults []config.Fault) {
	known := []string{claims.Subject, claims.Scopes, claims.Session, "iss", "aud", "exp", "nbf", "iat", "jti"}
	for _, name := range slices.Sorted(maps.Keys(t.callers)) {
		for claim := range t.callers[name].claims {
			if !slices.Contains(known, claim) {
				faults = append(faults, config.Fault{Path: config.Member(config.Member("callers", name), claim),
					Text: "is a claim that this OS does not read", Remedy: "use " + config.OneOf(known)})
			}
		}
	}
	return faults
}
