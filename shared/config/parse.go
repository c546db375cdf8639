package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Options are what Parse takes from its surroundings. The zero value is a server without any
// environment variable.
type Options struct {
	// Lookup returns the value of an environment variable and whether it is set, as os.LookupEnv does.
	// Defaults to an empty environment.
	Lookup func(name string) (string, bool)
	// Dev relaxes three rules for local development: a value with an unset variable counts as absent,
	// auth.keys can be absent, and a jwks_url can be http on a loopback address. Defaults to false.
	Dev bool
	// Tools are the names that agents can use in tools. Defaults to BuiltinTools().
	Tools []string
	// Agents are the agents declared in Go, complete and with valid ids (see ValidAgentID). Parse appends
	// them to the agents of the file, which then needs none. Defaults to none.
	Agents []Agent
	// MatchesRoute reports whether a scope mapping matches at least one route that can be mapped.
	// Defaults to no such check.
	MatchesRoute func(method, pattern string) bool
	// Without lists the parts that the program does not use. A value there with an unset variable counts
	// as absent. With Runs or ToolNames, names of tools are not checked, and with Runs the file can lack
	// agents, since only the operator's own program knows those in Go. All other rules still apply.
	// Defaults to a program that uses every part.
	Without []Part
	// OptionalKeys treats an unset variable in auth.keys like one that is set to "", so the entry is left
	// out if others remain. Functions set it: the template gives a function all variables, but Lambda
	// does not reliably pass on empty ones, so an unset variable there is no sign of a typing error.
	// Defaults to false.
	OptionalKeys bool
	// OnAWS means that the program is a Lambda function, where some doors are closed by default. Defaults to false.
	OnAWS bool
	// Dir is the directory where relative jwks_file paths start. Defaults to leaving them as written.
	Dir string
	// Check reports errors that only the caller can recognize. They are returned after those of Parse.
	// The Config can be incomplete, because Check runs even if there are other errors, and before the
	// agents declared in Go are added. Defaults to no such check.
	Check func(*Config) []Fault
}

// BuiltinTools returns the names of the tools that come with Keyway: the default of Options.Tools.
// Package config cannot ask the tools themselves, because it would then link them into every function.
func BuiltinTools() []string { return []string{"hackernews", "websearch"} }

// Parse checks data, the JSON form of a keyway.yaml, and returns either a Config or all errors. The
// errors are roughly in the order of the fields, and without positions: see package yamlfile.
func Parse(data []byte, o Options) (*Config, []Fault) {
	if o.Lookup == nil {
		o.Lookup = func(string) (string, bool) { return "", false }
	}
	if o.Tools == nil {
		o.Tools = BuiltinTools()
	}
	root, duplicates, err := parseJSON(data)
	if err != nil {
		const remedy = "run keyway config check on the keyway.yaml that it was built from"
		return nil, []Fault{{Text: "is not JSON: " + err.Error(), Remedy: remedy}}
	}
	d := &decoder{Options: o, c: &Config{Unset: map[string]string{}, expanded: &expansions{}},
		patterns: map[string]*regexp.Regexp{}}
	for _, path := range duplicates {
		d.fault(path, "is written twice", "keep one of them")
	}
	d.c.Digest = Digest(root.canonical()) // before variables are expanded
	d.readDatabaseVariables(&d.c.Database)
	d.dropEmptyKeys(root)
	d.expand("", root)
	d.value("", root, reflect.ValueOf(d.c).Elem(), "")
	d.checkAuth(&d.c.Auth)
	d.checkCORS()
	d.checkDatabase(&d.c.Database)
	d.checkEgress()
	d.checkNotify(d.c.Notify)
	d.checkAgents()
	d.checkPrices(d.c)
	if o.Check != nil {
		d.faults = append(d.faults, o.Check(d.c)...)
	}
	d.c.Doors.complete(o.OnAWS)
	if o.OnAWS && d.c.Doors.MCP.Open() && d.c.PublicURL == "" {
		d.fault("doors.mcp", "is open without public_url, by which its clients find out where to get tokens",
			"write the address of the API in public_url")
	}
	if d.moreFaults > 0 {
		d.faults = append(d.faults, Fault{
			Text: fmt.Sprintf("has %d more errors", d.moreFaults), Remedy: "correct those above first",
		})
	}
	if len(d.faults) > 0 {
		return nil, d.faults
	}
	d.c.complete(o.Dir, !d.without(Keys))
	d.c.Agents = append(d.c.Agents, o.Agents...)
	return d.c, nil
}

// complete removes the list elements that have no value because their variable is unset; until here
// they kept the indices of paths right. It also sets the defaults that depend on other fields or on
// dir. Entries of auth.keys are removed only if the program verifies tokens: the others need each
// entry's issuer (see Auth.Owners).
func (c *Config) complete(dir string, verifiesTokens bool) {
	for i, k := range c.Auth.Keys {
		if !verifiesTokens || !k.hasNoSource() {
			c.KeyPaths = append(c.KeyPaths, Element("auth.keys", i))
		}
	}
	if verifiesTokens {
		c.Auth.Keys = slices.DeleteFunc(c.Auth.Keys, Key.hasNoSource)
	}
	for i := range c.Auth.Keys {
		k := &c.Auth.Keys[i]
		k.Claims.Scopes, k.Claims.Roles = k.Claims.Scopes.named(), k.Claims.Roles.named()
		for _, file := range []*string{&k.JWKSFile, &k.CA} {
			if *file != "" && dir != "" && !filepath.IsAbs(*file) && !strings.Contains(*file, "-----BEGIN ") {
				*file = filepath.Join(dir, *file)
			}
		}
	}
	c.Auth.Claims.Scopes, c.Auth.Claims.Roles = c.Auth.Claims.Scopes.named(), c.Auth.Claims.Roles.named()
	// With --dev, {claim: "${UNSET}"} means the default, as "${UNSET}" does.
	if c.Auth.Claims.Scopes == nil {
		c.Auth.Claims.Scopes = Sources{{Claim: "scopes"}}
	}
	if c.Auth.Claims.Subject.Names() == nil {
		c.Auth.Claims.Subject.Claim = "sub"
	}
	if c.Auth.Claims.Session.Names() == nil {
		c.Auth.Claims.Session.Claim = "session_id"
	}
	if c.Auth.Audience == nil {
		c.Auth.Audience = []string{c.ID}
	}
	if c.Notify.URL != "" && c.Notify.On == nil {
		c.Notify.On = []string{"paused", "completed", "error"}
	}
	for i := range c.Agents {
		a := &c.Agents[i]
		a.Name = cmp.Or(a.Name, a.ID)
		a.Tools = slices.DeleteFunc(a.Tools, func(t Tool) bool { return t == Tool{} })
	}
}

// expand replaces the variables in every text below n. Names of members stay as they are.
func (d *decoder) expand(path string, n *node) {
	for i, v := range n.sub {
		if n.kind == objectKind {
			d.expand(Member(path, n.keys[i]), v)
		} else {
			d.expand(Element(path, i), v)
		}
	}
	if n.kind == textKind && strings.Contains(n.text, "${") {
		if n.text = d.expanded(path, n); n.hasVariable {
			d.c.expanded.text(n.text, n.raw)
		}
	}
}

// expanded returns the text of n with each ${NAME} replaced by its variable and each $${ by ${. Any
// other ${ is an error. The value of a variable is not expanded again, so a secret that contains ${
// stays as it is.
func (d *decoder) expanded(path string, n *node) string {
	var b strings.Builder
	for rest := n.text; ; {
		before, after, found := strings.Cut(rest, "${")
		name, behind, closed := strings.Cut(after, "}")
		switch {
		case !found:
			return b.String() + rest
		case strings.HasSuffix(before, "$"):
			b.WriteString(strings.TrimSuffix(before, "$") + d.variable(path, n, "$${"))
			rest = after
		case closed && isWord(name):
			b.WriteString(before + d.variable(path, n, "${"+name+"}"))
			rest = behind
		default:
			b.WriteString(before + d.variable(path, n, "${"))
			rest = after
		}
	}
}

// variable returns the replacement of one match: "$${", "${NAME}" or a "${" that begins no variable.
// An empty variable counts as unset, because container tools often pass on variables that nobody set
// as empty ones. If the variable is unset, the node becomes absent or an error.
func (d *decoder) variable(path string, n *node, match string) string {
	const escape = "write $${ for a literal ${"
	if match == "$${" {
		return "${"
	}
	if match == "${" {
		n.kind = faultyKind
		d.fault(path, "has a ${ that does not begin a variable such as ${NAME}", escape)
		return match
	}
	n.hasVariable = true
	name := match[2 : len(match)-1]
	value, _ := d.Lookup(name)
	switch {
	case value != "":
		d.c.expanded.value(value, match)
		return value
	case d.canBeUnset(path):
		n.kind = absentKind
		d.c.Unset[path] = name
	default:
		n.kind = faultyKind
		remedy := d.howToSet(name)
		if slices.Contains(d.droppable, path) {
			remedy += ", or set it to an empty value to use only the other keys"
		}
		d.fault(path, match+" is unset or empty", remedy+", or "+escape)
	}
	return ""
}

// canBeUnset reports whether the value at path counts as absent if its variable is unset. Even with
// Options.Dev that is not so for the file as a whole and for scope mappings: a mapping with fewer
// scopes would open its route to more callers. A path with fewer names would lead to another claim, and
// what a role grants must not depend on the place.
func (d *decoder) canBeUnset(path string) bool {
	switch {
	case strings.HasSuffix(path, apiKeySuffix) || d.unneeded(path):
		return true
	case path == "database.url" && d.c.Database.Secret != "": // the secret has the address
		return true
	}
	whole := strings.HasPrefix(path, mappingsPath) || strings.Contains(path, ".path[") ||
		strings.HasPrefix(path, "auth.grants") || strings.HasPrefix(path, "auth.keys[") && strings.Contains(path, "].grants")
	return d.Dev && path != "" && !whole
}
