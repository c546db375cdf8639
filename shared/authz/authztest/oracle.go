// Package authztest is a second implementation of the authorization rules, with which
// tests compare the first: it has its own table of routes, grammar, matching and order
// of mappings, written from docs/design.md and AgentOS's documented scopes. It imports
// nothing of the project, on purpose: an error that both implementations share can't
// be found. So don't let it use scope, route or authz, and don't copy a fix from them.
// It is for tests only.
package authztest

import (
	"regexp"
	"slices"
	"strings"
)

// Table is what is served, one route a line: method, path and needs. A caller needs all of them.
// "list" marks a list that shows only what its caller is allowed to read, "admin" a route that the
// administrator's scope alone opens, and "token" one that every valid token opens. "run" marks one
// that is open to callers that are allowed to run the agent in its path, or without one any agent.
// "mcp" marks one that is open to every token whose audience names the door for MCP.
const Table = `
GET    /                                          public
GET    /health                                    public
HEAD   /health                                    public
GET    /readyz                                    public
HEAD   /readyz                                    public
GET    /info                                      public
GET    /docs                                      public
GET    /console                                   public
GET    /console/{file}                            public
GET    /openapi.json                              public
GET    /config                                    config:read
GET    /whoami                                    token
POST   /can                                       token
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
POST   /agents/{agent_id}/agui                    run agents:run
POST   /agents/{agent_id}/ai-sdk                  run agents:run
GET    /agents/{agent_id}/ai-sdk/{session_id}/stream run agents:run
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
GET    /metrics                                   metrics:read
POST   /metrics/refresh                           metrics:write
GET    /metrics/refresh/status                    metrics:read
GET    /revocations                               admin
POST   /revocations                               admin
DELETE /revocations                               admin
GET    /active-runs                               admin
DELETE /active-runs                               admin
GET    /user-data                                 admin
DELETE /user-data                                 admin
GET    /usage                                     admin
GET    /v1/models                                 run agents:run
GET    /v1/models/{agent_id}                      run agents:run
POST   /v1/chat/completions                       run agents:run
POST   /v1/responses                              run agents:run
GET    /v1/responses/{response_id}                run agents:run
DELETE /v1/responses/{response_id}                run agents:run
POST   /v1/responses/{response_id}/cancel         run agents:run
GET    /.well-known/oauth-protected-resource/mcp  public
GET    /.well-known/oauth-protected-resource      public
POST   /mcp                                       mcp
GET    /decisions                                 admin
POST   /diff                                      admin
POST   /dev/token                                 admin
POST   /dev/sign-in                               public
`

// Row is one line of Table, parsed.
type Row struct {
	Method, Pattern string
	Public, List    bool
	Admin, Token    bool
	Run, MCP        bool
	Needs           []string
	form            *regexp.Regexp // matches the paths
}

// Rows are the lines of Table.
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
			case "admin":
				r.Admin = true
			case "token":
				r.Token = true
			case "run":
				r.Run = true
			case "mcp":
				r.MCP = true
			default:
				r.Needs = append(r.Needs, w)
			}
		}
		// A path may end in slashes; a parameter is anything without one.
		form := param.ReplaceAllString(strings.TrimSuffix(r.Pattern, "/"), "(?P<$1>[^/]+)")
		r.form = regexp.MustCompile("^" + form + "/*$")
		if r.Pattern == "/" {
			r.form = regexp.MustCompile("^/+$")
		}
		out = append(out, r)
	}
	return out
}

// Mapping replaces the needs of the requests that it matches.
type Mapping struct {
	Method, Path string
	Scopes       []string
}

// Oracle contains the rules of one OS.
type Oracle struct {
	Admin    string
	Mappings []Mapping
}

// Request is what the rules say about a request, whichever caller sends it.
type Request struct {
	Row    *Row   // nil if the request is not served
	Agent  string // the agent's id in the path, or empty
	Mapped bool   // whether a mapping replaced the needs
	needs  []string
	any    []Request // instead, one of these must be allowed, or one of as for an agent that a scope names
	as     func(agent string) Request
}

// Request applies the table and the mappings to a request.
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
		if row.Run {
			return o.run(r)
		}
		if m := o.mapping(method, path); m != nil && !row.Public && !row.Admin && !row.Token && !row.MCP {
			r.Mapped, r.needs = true, m.Scopes
		}
		return r
	}
	return Request{}
}

// run returns a request to a route that is decided as a run.
func (o Oracle) run(r Request) Request {
	as := func(agent string) Request {
		one := o.Request("POST", "/agents/"+agent+"/runs")
		return Request{Row: r.Row, Agent: agent, Mapped: one.Mapped, needs: one.needs}
	}
	if r.Agent != "" {
		return as(r.Agent)
	}
	// No scope and no mapping names the first one. Of the others, the mappings decide.
	r.any, r.as = []Request{as("nobody")}, as
	for _, m := range o.Mappings {
		for segment := range strings.SplitSeq(m.Path, "/") {
			for _, star := range []string{"", "x", "nobody"} {
				if agent := strings.ReplaceAll(segment, "*", star); agent != "" {
					r.any = append(r.any, as(agent))
				}
			}
		}
	}
	return r
}

// mapping returns the most specific mapping that matches: one without a star, else the
// one with the most text before its first star, else the first one.
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

// Glob reports whether text matches glob, in which * matches any text. It tries every
// rest of the text, which is slow but obviously right.
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

// grammar is a family, an optional id and an action. No part is empty, and there is no
// star in the family or the action.
var grammar = regexp.MustCompile(`^([^:*]+)(?::([^:]+))?:([^:*]+)$`)

// Read returns the long form of a scope, family:id:action, with * for all ids. ok is
// false for text that grants nothing.
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

// Caller is what the scopes of one token grant.
type Caller struct {
	admin bool
	aud   string          // see For
	has   map[string]bool // scopes in the long form
}

// Caller reads the scopes of one token.
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

// For returns the caller with a token for another audience: "mcp" is one that only the door for MCP accepts, "both" one
// that names it beside the API, and "" is for the API alone.
func (c Caller) For(audience string) Caller {
	c.aud = audience
	return c
}

// Covers reports whether the scopes grant need. If need is about all agents and agent
// isn't empty, a grant for that agent is enough.
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

// May reports whether the caller is allowed to send the request.
func (c Caller) May(r Request) bool {
	switch {
	case r.Row == nil:
		return false
	case r.Row.Public:
		return true
	case r.Row.MCP:
		return c.aud != ""
	case c.aud == "mcp":
		return r.Row.Token
	case r.Row.Admin:
		return c.admin
	case r.Row.Token:
		return true
	case r.any != nil:
		return c.anyAgent(r)
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

// anyAgent reports whether one of r.any is allowed, or r.as for an agent that a scope names.
func (c Caller) anyAgent(r Request) bool {
	all := slices.Clone(r.any)
	for long := range c.has {
		if agent := strings.Split(long, ":")[1]; agent != "*" {
			all = append(all, r.as(agent))
		}
	}
	return slices.ContainsFunc(all, func(one Request) bool {
		one.Row = &Row{}
		return c.May(one)
	})
}

// some reports whether any scope has the need's family and action, whatever its id.
func (c Caller) some(need string) bool {
	family, action, _ := strings.Cut(need, ":")
	for long := range c.has {
		if strings.HasPrefix(long, family+":") && strings.HasSuffix(long, ":"+action) {
			return true
		}
	}
	return false
}

// Lists reports whether the answer to a list is allowed to show id.
func (c Caller) Lists(r Request, id string) bool {
	if !r.Row.List || r.Mapped {
		return c.May(r)
	}
	family, action, _ := strings.Cut(r.needs[0], ":")
	return c.Covers(family+":"+id+":"+action, "")
}
