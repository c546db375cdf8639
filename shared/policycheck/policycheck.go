// Package policycheck decides whether a configuration keeps the promises in a policies.yaml: which caller
// may send which request, and why not. It checks each promise twice, against the decision of package
// authz and against the policy that the authorizer returns for a token of that caller. API Gateway
// applies the second one, so both must agree. The package does not print anything; see keyway test.
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
	// File is the path of the table, as given to Read.
	File string
	// Config is the path of the keyway.yaml that the table is about. Defaults to keyway.yaml in the
	// directory of the table.
	Config string
	// Tests are the rows, in the order of the file. There is at least one.
	Tests []Test

	doc     yamlfile.Document
	callers map[string]caller
}

// caller is an entry of callers in one of its three forms: no token (none), a token with these claims,
// or, if claims is nil, a token with these scopes.
type caller struct {
	none   bool
	scopes []string
	claims map[string]any
}

// reader reads a table and collects all its errors.
type reader struct {
	table  *Table
	faults []config.Fault
}

// Read reads the table at path. All errors in it are returned together, as config.Faults.
//
// A table has three fields. config is the keyway.yaml that it is about. callers maps names to tokens: none,
// a list of scopes, or an object of claims. tests is a list of rows, sentences about one caller and one
// request; docs/policies.md lists their forms. Read checks everything that does not depend on the
// configuration. Check does the rest.
func Read(path string) (*Table, error) {
	doc, err := yamlfile.Open(path)
	if err != nil {
		return nil, err
	}
	r := reader{table: &Table{File: path, Config: "keyway.yaml", doc: doc, callers: map[string]caller{}}}
	dec := json.NewDecoder(bytes.NewReader(doc.JSON()))
	dec.UseNumber() // a claim can be a whole number that no float64 represents exactly
	var root any
	if err := dec.Decode(&root); err != nil { // unexpected, because yamlfile wrote the JSON
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

// fault adds an error.
func (r *reader) fault(path, text, remedy string) {
	r.faults = append(r.faults, config.Fault{Path: path, Text: text, Remedy: remedy})
}

// root reads the fields of the table.
func (r *reader) root(root any) {
	fields, ok := root.(map[string]any)
	if !ok {
		r.fault("", "is not a table of promises", "write the fields callers and tests")
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
			r.fault("config", "is not a file name", "write config: keyway.yaml, a path relative to this file's directory")
		}
	}
	// A wrong type counts as missing, because the remedy shows the right one.
	callers, _ := fields["callers"].(map[string]any)
	if len(callers) == 0 {
		r.fault("callers", "has no caller", "write callers: {ann: [agents:read], anonymous: none}")
	}
	for name, v := range callers {
		r.caller(name, v)
	}
	tests, _ := fields["tests"].([]any)
	if len(tests) == 0 {
		r.fault("tests", "has no row, so it would always pass", "write tests: a list of rows such as "+example)
	}
	for i, v := range tests {
		r.row(config.Element("tests", i), v)
	}
	r.unused(callers) // last, because it needs all rows
}

// unused reports callers without a row. The author of the table probably expects that they are tested.
// It runs only if there is no other error, because a row with an error is not in Tests.
func (r *reader) unused(callers map[string]any) {
	for _, t := range r.table.Tests {
		delete(callers, t.Caller)
	}
	if len(r.faults) > 0 {
		return
	}
	for name := range callers {
		r.fault(config.Member("callers", name), "is in no test", "add a row about this caller, or remove it")
	}
}

// callerName is the form of a caller's name, the first word of a row.
var callerName = regexp.MustCompile(`^[A-Za-z0-9_.@-]+$`)

// dates are the claims that can be written as a duration from now.
var dates = []string{"exp", "nbf", "iat"}

// caller reads one entry of callers. Claims are accepted as they are, whatever their types, because a table
// can describe invalid tokens. Only dates are checked, since a mistyped duration would silently become an
// invalid claim.
func (r *reader) caller(name string, v any) {
	at := config.Member("callers", name)
	if !callerName.MatchString(name) {
		r.fault(at, "is not a name that can begin a row", "use letters, digits, dots, _, @ and -")
	}
	switch v := v.(type) {
	case string:
		if v != "none" {
			r.fault(at, "is "+strconv.Quote(v), "write none for a caller without a token, [agents:read] for scopes, "+
				"or {sub: ann, scopes: [agents:read]} for claims")
		}
		r.table.callers[name] = caller{none: true}
	case []any:
		c := caller{}
		for i, s := range v {
			if text, ok := s.(string); ok {
				c.scopes = append(c.scopes, text)
			} else {
				r.fault(config.Element(at, i), "is not a scope", "write one text in each element, such as agents:read")
			}
		}
		r.table.callers[name] = c
	case map[string]any:
		for _, claim := range dates {
			r.date(config.Member(at, claim), v[claim])
		}
		r.table.callers[name] = caller{claims: v}
	default:
		r.fault(at, "does not describe a token", "write none, a list of scopes ([] for a token without scopes) or claims")
		r.table.callers[name] = caller{}
	}
}

// date checks a claim in dates. A text must be a duration. Any other JSON value is accepted, because a
// row can test a token that nobody should issue.
func (r *reader) date(at string, v any) {
	if text, ok := v.(string); ok {
		if _, err := time.ParseDuration(text); err != nil {
			r.fault(at, "is "+strconv.Quote(text), "write a duration from now, such as 1h or -1h, "+
				"a number of seconds since 1970, or null to leave the claim out")
		}
	}
}

// undeclared reports agents that rows name and the configuration does not declare. A promise about such
// an agent would not be about this OS.
func (t *Table) undeclared(agents []string) (faults []config.Fault) {
	for i, test := range t.Tests {
		for _, id := range test.agents() {
			if !slices.Contains(agents, id) {
				faults = append(faults, config.Fault{Path: config.Element("tests", i),
					Text:   fmt.Sprintf("names the agent %s, which %s does not declare", id, t.Config),
					Remedy: "use " + config.OneOf(agents)})
			}
		}
	}
	return faults
}

// unread reports claims that this OS does not read. Most are typing errors: a row about a claim "scope" would
// pass or fail for the wrong reason if the OS reads "scopes".
func (t *Table) unread(auth config.Auth) (faults []config.Fault) {
	known := readClaims(auth)
	roles := len(auth.Claims.Roles) > 0
	for _, k := range auth.Keys {
		roles = roles || len(k.Claims.Roles) > 0
	}
	if roles {
		known = append(known, "roles") // see rolesOf
	}
	scopes := len(auth.ClaimsOf(firstKey(auth)).Scopes) > 0
	for _, name := range slices.Sorted(maps.Keys(t.callers)) {
		if !scopes && len(t.callers[name].scopes) > 0 {
			faults = append(faults, config.Fault{Path: config.Member("callers", name),
				Text:   "is a list of scopes, but this OS reads no claim with scopes",
				Remedy: "write the roles of the caller, such as {roles: [web-users]}"})
		}
		for claim := range t.callers[name].claims {
			if !slices.Contains(known, claim) {
				faults = append(faults, config.Fault{Path: config.Member(config.Member("callers", name), claim),
					Text: "is a claim that this OS does not read", Remedy: "use " + config.OneOf(unique(known))})
			}
		}
	}
	return faults
}

// readClaims returns the names of the claims that this OS reads.
func readClaims(auth config.Auth) (known []string) {
	for _, k := range append([]config.Key{{}}, auth.Keys...) {
		c := auth.ClaimsOf(k)
		for _, s := range slices.Concat(config.Sources{c.Subject}, c.Scopes, c.Roles, config.Sources{c.Session}) {
			known = append(known, s.Names()[0])
		}
		if len(k.Clients) > 0 {
			known = append(known, "azp", "client_id", "cid")
		}
	}
	return append(known, "iss", "aud", "exp", "nbf", "iat", "jti")
}

// unique returns the names of a list, each once and in their order.
func unique(names []string) (out []string) {
	for _, name := range names {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}
