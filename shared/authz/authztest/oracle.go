// Package authztest is a second reading of the authorization rules, for tests to
// hold the first against: its own table of routes, grammar, matching and order of
// mappings, written from the design and AgentOS's documented scopes. It imports
// nothing of the project and says things twice on purpose; don't make it share code
// with scope, route or authz, nor mend it by looking at them.
// It decides nothing that is served.
package authztest

import (
	"regexp"
	"strings"
)

// Table is what is served, a route a line: method, path, what it needs. All needs
// of a line are needed. "list" marks a list that shows what its caller may read.
const Table = `
GET    /                                          public
GET    /health                                    public
GET    /info                                      public
GET    /docs                                      public
GET    /openapi.json                              public
GET    /config                                    config:read
GET    /agents                                    list agents:read
GET    /agents/{agent_id}                         agents:read
GET    /teams                                     list teams:read
GET    /workflows                                 list workflows:read
POST   /agents/{agent_id}/runs                    agents:run
GET    /agents/{agent_id}/runs                    agents:read agents:run
GET    /agents/{agent_id}/runs/{run_id}           agents:read agents:run
POST   /agents/{agent_id}/runs/{run_id}/cancel    agents:run
POST   /agents/{agent_id}/runs/{run_id}/continue  agents:run
POST   /agents/{agent_id}/runs/{run_id}/resume    agents:run
GET    /sessions                                  sessions:read
POST   /sessions                                  sessions:write
DELETE /sessions                                  sessions:delete
GET    /sessions/{session_id}                     sessions:read
PATCH  /sessions/{session_id}                     sessions:write
DELETE /sessions/{session_id}                     sessions:delete
POST   /sessions/{session_id}/rename              sessions:write
GET    /sessions/{session_id}/runs                sessions:read
GET    /sessions/{session_id}/run-previews        sessions:read
GET    /sessions/{session_id}/runs/{run_id}       sessions:read
GET    /memories                                  memories:read
POST   /memories                                  memories:write
DELETE /memories                                  memories:delete
GET    /memories/{memory_id}                      memories:read
PATCH  /memories/{memory_id}                      memories:write
DELETE /memories/{memory_id}                      memories:delete
GET    /memory_topics                             memories:read
GET    /user_memory_stats                         memories:read
POST   /optimize-memories                         memories:write
`

// Row is one line of Table.
type Row struct {
	Method, Pattern string
	Public, List    bool
	Needs           []string
	form            *regexp.Regexp
}

// Rows is Table, read.
var Rows = rows()

func rows() (out []Row) {
	param := regexp.MustCompile(`\{(\w+)\}`)
	for line := range strings.Lines(strings.TrimSpace(Table)) {
		words := strings.Fields(line)
		r := Row{Method: words[0], Pattern: words[1]}
		for _, w := range words[2:] {
			switch w {
			case "public":
				r.Public = true
			case "list":
				r.List = true
			default:
				r.Needs = append(r.Needs, w)
			}
		}
		// A path may end in slashes; a parameter is anything without one.
		r.form = regexp.MustCompile("^" + param.ReplaceAllString(strings.TrimSuffix(r.Pattern, "/"), "(?P<$1>[^/]+)") + "/*$")
		if r.Pattern == "/" {
			r.form = regexp.MustCompile("^/+$")
		}
		out = append(out, r)
	}
	return out
}

// Mapping replaces the needs of the requests it matches.
type Mapping struct {
	Method, Path string
	Scopes       []string
}

// Oracle is one OS's rules.
type Oracle struct {
	Admin    string
	Mappings []Mapping
}

// Request is what the rules say of a request, whoever sends it.
type Request struct {
	Row    *Row   // nil: not served
	Agent  string // the id in a path below /agents
	Mapped bool   // a mapping replaced the needs
	needs  []string
}

// Request looks a request up.
func (o Oracle) Request(method, path string) Request {
	for i := range Rows {
		row := &Rows[i]
		if row.Method != method {
			continue
		}
		found := row.form.FindStringSubmatch(path)
		if found == nil {
			continue
		}
		r := Request{Row: row, needs: row.Needs}
		if n := row.form.SubexpIndex("agent_id"); n > 0 {
			r.Agent = found[n]
		}
		if m := o.mapping(method, path); m != nil && !row.Public {
			r.Mapped, r.needs = true, m.Scopes
		}
		return r
	}
	return Request{}
}

// mapping picks the most specific that matches: one without a star, else the one
// with the most text before its first star, else the first written.
func (o Oracle) mapping(method, path string) (best *Mapping) {
	for len(path) > 1 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	rank := func(m *Mapping) int {
		before, _, star := strings.Cut(m.Path, "*")
		if !star {
			return 1_000_000
		}
		return len(before)
	}
	for i := range o.Mappings {
		m := &o.Mappings[i]
		if m.Method == method && Glob(m.Path, path) && (best == nil || rank(m) > rank(best)) {
			best = m
		}
	}
	return best
}

// Glob reports whether text matches glob, a * of which is any text. It asks every
// ending of the text, which is slow and plain.
func Glob(glob, text string) bool {
	if glob == "" {
		return text == ""
	}
	if glob[0] != '*' {
		return text != "" && text[0] == glob[0] && Glob(glob[1:], text[1:])
	}
	for cut := 0; cut <= len(text); cut++ {
		if Glob(glob[1:], text[cut:]) {
			return true
		}
	}
	return false
}

// grammar: a family, perhaps an id, an action; no part empty, no star in family or
// action.
var grammar = regexp.MustCompile(`^([^:*]+)(?::([^:]+))?:([^:*]+)$`)

// Read gives a scope's three parts in one text, with * for every id; ok is false
// for what grants nothing.
func Read(scope string) (long string, ok bool) {
	found := grammar.FindStringSubmatch(scope)
	if found == nil {
		return "", false
	}
	family, id, action := found[1], found[2], found[3]
	if family == "system" {
		family = "config"
	}
	if id == "" {
		id = "*"
	}
	return family + ":" + id + ":" + action, true
}

// Caller is what a token's scopes come to.
type Caller struct {
	admin bool
	has   map[string]bool
}

// Caller reads a token's scopes.
func (o Oracle) Caller(scopes []string) Caller {
	c := Caller{has: map[string]bool{}}
	for _, s := range scopes {
		if o.Admin != "" && s == o.Admin {
			c.admin = true
		} else if long, ok := Read(s); ok {
			c.has[long] = true
		}
	}
	return c
}

// Covers reports whether the caller holds what need says, of agent where need
// speaks of all agents and agent isn't empty.
func (c Caller) Covers(need, agent string) bool {
	if c.admin {
		return true
	}
	long, ok := Read(need)
	if !ok {
		return false
	}
	part := strings.Split(long, ":")
	if part[1] == "*" && part[0] == "agents" && agent != "" {
		part[1] = agent
	}
	return c.has[part[0]+":*:"+part[2]] || c.has[strings.Join(part, ":")]
}

// May reports whether the caller may send the request.
func (c Caller) May(r Request) bool {
	switch {
	case r.Row == nil:
		return false
	case r.Row.Public:
		return true
	case r.Row.List && !r.Mapped:
		return c.admin || c.some(r.needs[0])
	}
	for _, need := range r.needs {
		if !c.Covers(need, r.Agent) {
			return false
		}
	}
	return true
}

// some: a scope of the need's family and action, whatever its id.
func (c Caller) some(need string) bool {
	family, action, _ := strings.Cut(need, ":")
	for long := range c.has {
		if strings.HasPrefix(long, family+":") && strings.HasSuffix(long, ":"+action) {
			return true
		}
	}
	return false
}

// Lists reports whether the answer to a list shows id.
func (c Caller) Lists(r Request, id string) bool {
	if !r.Row.List || r.Mapped {
		return c.May(r)
	}
	family, action, _ := strings.Cut(r.needs[0], ":")
	return c.Covers(family+":"+id+":"+action, "")
}
