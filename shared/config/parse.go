package config

import (
	"cmp"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Options are what Parse takes from its surroundings.
type Options struct {
	// Lookup reads the environment, as os.LookupEnv does; nil is an empty one.
	Lookup func(name string) (string, bool)
	// Dev lets values whose variable is unset count as not written, auth.keys
	// be absent, and jwks_url be plain http on loopback.
	Dev bool
	// Tools are the names of the built-in tools; nil is hackernews and websearch.
	Tools []string
	// Agents are declared outside the file, whole and with valid ids of their own.
	// They follow the file's, which then needs none.
	Agents []Agent
	// MatchesRoute tells whether a scope mapping matches any route that may be
	// mapped; nil leaves that unchecked.
	MatchesRoute func(method, pattern string) bool
	// Without are the parts that the program does not act on. A value there whose
	// variable is unset counts as not written, and what only an operator's own program
	// knows, its tools and agents, is not asked for; all else is checked.
	Without []Part
	// Platform lets the key of a variable that is unset be left out beside another one,
	// as an empty one's is: AWS may hand an empty variable on or not, and which there
	// are, the template says.
	Platform bool
	// Dir is where relative jwks_file paths start; "" leaves them as written.
	Dir string
	// Check finds faults that only the caller can know of; they are told with the
	// others. It sees what was read so far and need not be set.
	Check func(*Config) []Fault
}

// BuiltinTools returns the names of the tools that come with Keyway: the default of Options.Tools.
func BuiltinTools() []string { return []string{"hackernews", "websearch"} }

// Parse checks data, the JSON of a keyway.yaml, and returns either a Config or
// every fault, in the order of the fields.
func Parse(data []byte, o Options) (*Config, []Fault) {
	if o.Lookup == nil {
		o.Lookup = func(string) (string, bool) { return "", false }
	}
	if o.Tools == nil {
		o.Tools = BuiltinTools()
	}
	root, twice, err := parseJSON(data)
	if err != nil {
		return nil, []Fault{{Text: "is not JSON: " + err.Error(), Remedy: "run keyway config check on the file it was made of"}}
	}
	d := &decoder{Options: o, c: &Config{Unset: map[string]string{}}, patterns: map[string]*regexp.Regexp{}}
	for _, path := range twice {
		d.fault(path, "is written twice", "keep one of them")
	}
	d.c.Digest = Digest(root.canonical())
	d.surroundings(&d.c.Database)
	d.leaveOutKeys(root)
	d.expand("", root)
	d.value("", root, reflect.ValueOf(d.c).Elem(), "")
	d.checkAuth(&d.c.Auth)
	d.checkCORS()
	d.checkDatabase(&d.c.Database)
	d.checkEgress()
	d.checkAgents()
	if o.Check != nil {
		d.faults = append(d.faults, o.Check(d.c)...)
	}
	if len(d.faults) > 0 {
		return nil, d.faults
	}
	d.c.complete(o.Dir, !d.without(Keys))
	d.c.Agents = append(d.c.Agents, o.Agents...)
	return d.c, nil
}

// complete drops list elements that wait for a variable (checked before, so that
// paths still counted them) and fills what depends on other fields or on dir. Without
// keys, they stay as they are.
func (c *Config) complete(dir string, keys bool) {
	if keys { // whose keys they are not counts all the same: see SeveralIssuers
		c.Auth.Keys = slices.DeleteFunc(c.Auth.Keys, Key.waits)
	}
	for i := range c.Auth.Keys {
		if file := &c.Auth.Keys[i].JWKSFile; *file != "" && dir != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(dir, *file)
		}
	}
	if c.Auth.Audience == nil {
		c.Auth.Audience = []string{c.ID}
	}
	for i := range c.Agents {
		a := &c.Agents[i]
		a.Name = cmp.Or(a.Name, a.ID)
		a.Tools = slices.DeleteFunc(a.Tools, func(t Tool) bool { return t == Tool{} })
	}
}

// expand replaces the variables in every text below n.
func (d *decoder) expand(path string, n *node) {
	for i, v := range n.sub {
		if n.kind == objectKind {
			d.expand(Member(path, n.keys[i]), v)
		} else {
			d.expand(Element(path, i), v)
		}
	}
	if n.kind == textKind && strings.Contains(n.text, "${") {
		n.text = d.expanded(path, n)
	}
}

// expanded finds each ${NAME}, its escape $${, and every other ${ to complain about.
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

// variable is what one match of the pattern stands for. An empty variable counts
// as unset: container tools pass those for variables that nobody set.
func (d *decoder) variable(path string, n *node, match string) string {
	if match == "$${" {
		return "${"
	}
	if match == "${" {
		n.kind = faultyKind
		d.fault(path, "has a ${ that begins no ${NAME}", "write $${ where a plain ${ is meant")
		return match
	}
	n.vars = true
	name := match[2 : len(match)-1]
	value, _ := d.Lookup(name)
	switch {
	case value != "":
		return value
	case d.mayBeUnset(path):
		n.kind = absentKind
		d.c.Unset[path] = name
	default:
		n.kind = faultyKind
		remedy := d.set(name)
		if slices.Contains(d.dispensable, path) {
			remedy += ", or set it empty to go without this key beside another"
		}
		d.fault(path, match+" is not set or empty", remedy+", or write $${ where a plain ${ is meant")
	}
	return ""
}

// mayBeUnset excepts the file as a whole, and the scope mappings: leaving one of
// their scopes out would open the route to more callers.
func (d *decoder) mayBeUnset(path string) bool {
	switch {
	case strings.HasSuffix(path, apiKeySuffix) || d.needless(path):
		return true
	case path == "database.url" && d.c.Database.Secret != "": // the secret holds it
		return true
	}
	return d.Dev && path != "" && !strings.HasPrefix(path, mappingsPath)
}
