package edge_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/route"
)

// generator makes configurations, tokens and requests that often touch each other: it uses
// few ids, ids that are also path segments, and mappings made from the routes' patterns.
type generator struct{ *rand.Rand }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) oneIn(n int) bool { return g.IntN(n) == 0 }

// plainID returns an id that a policy can name. Half of them equal a path segment.
func (g generator) plainID() string {
	return pick(g, "a", "b", "ab", "a-b", "r", ".", "runs", "cancel", "agents", "sessions", "resume")
}

// oddID returns an id that a path can contain and a policy can't name.
func (g generator) oddID() string {
	return pick(g, "*", "a*", "?", "$x", "${aws:username}", "a b", "ä", "a;x", "%2F", "\x00", "arn:aws:x",
		strings.Repeat("x", 256))
}

var (
	tableRoutes = slices.Collect(route.Table.All())
	agentRoutes = slices.DeleteFunc(slices.Clone(tableRoutes),
		func(r *route.Route) bool { return !strings.Contains(r.Pattern, "{agent_id}") })
)

// route returns a route of an agent in two of three cases.
func (g generator) route() *route.Route {
	if g.oneIn(3) {
		return pick(g, tableRoutes...)
	}
	return pick(g, agentRoutes...)
}

func (g generator) os() *config.Config {
	var ids []string
	for range 1 + g.IntN(6) {
		ids = append(ids, g.plainID())
	}
	if g.oneIn(16) {
		for n := range 60 {
			ids = append(ids, fmt.Sprintf("many-%d", n))
		}
	}
	slices.Sort(ids)
	c := declaring(slices.Compact(ids)...)
	switch g.IntN(6) {
	case 0, 1: // the defaults
	case 2:
		c.Auth.ScopeMappings = document004
	default:
		for range 1 + g.IntN(4) {
			c.Auth.ScopeMappings = append(c.Auth.ScopeMappings, g.mapping())
		}
	}
	return c
}

// mapping returns a mapping with a route's pattern, and ids and stars for its parameters.
// Some have a star for the rest of the path, or for several segments. All match a route, so
// the test fails if a mapping is rejected because it matches none.
func (g generator) mapping() config.ScopeMapping {
	r := g.route()
	for r.Public || r.Admin || r.AnyToken || r.Addressed || r.As != "" {
		r = g.route()
	}
	hole := func(string) string { return pick(g, "*", "*", "*", "a*", "*b", "a*b", g.plainID(), "a") }
	m := config.ScopeMapping{Method: r.Method, Pattern: r.Path(hole)}
	if g.oneIn(4) {
		m.Pattern = m.Pattern[:1+g.IntN(len(m.Pattern))] + "*"
	}
	if from := strings.LastIndexByte(m.Pattern, '/'); g.oneIn(6) && from > 0 && strings.HasPrefix(r.Pattern, "/agents/") {
		m.Pattern = pick(g, "/*", "/a*", "/agents*", "/*/*", "*") + m.Pattern[from:]
	}
	for range 1 + g.IntN(2) {
		m.Scopes = append(m.Scopes, g.need())
	}
	return m
}

func (g generator) need() string {
	return pick(g, "app:read", "app:run", "app:admin", "agents:run", "agents:read", "agents:a:read", "agents:runs:run",
		"agents:*:run", "sessions:read", "system:read")
}

// scopes returns the scopes of a token. Some have more ids than a policy names one by one.
func (g generator) scopes() (scopes []string) {
	for range g.IntN(9) {
		switch g.IntN(12) {
		case 0:
			scopes = append(scopes, pick(g, "nonsense", "", "agents:*", "agents::read", "x "+admin, "a:b:c:d", "AGENTS:RUN"))
		case 1, 2, 3, 4:
			scopes = append(scopes, g.need())
		case 5:
			scopes = append(scopes, pick(g, "sessions", "memories", "config", "teams")+":"+pick(g, "read", "write", "delete"))
		case 6:
			scopes = append(scopes, "agents:"+g.oddID()+":"+pick(g, "read", "run"))
		default:
			scopes = append(scopes, "agents:"+g.plainID()+":"+pick(g, "read", "run"))
		}
	}
	if g.oneIn(24) {
		scopes = append(scopes, admin)
	}
	if g.oneIn(12) {
		for n := range 45 + g.IntN(12) {
			scopes = append(scopes, fmt.Sprintf("agents:many-%d:%s", n, pick(g, "read", "read", "run")))
		}
	}
	return scopes
}

// roles moves some of the scopes of a token into the grants of roles. The token lacks one of these roles,
// and has others that are named like scopes.
func (g generator) roles(scopes []string) (own, roles []string, grants config.Grants) {
	grants = config.Grants{"absent": {admin}}
	own = []string{}
	for _, s := range scopes {
		if g.oneIn(3) {
			own = append(own, s)
			continue
		}
		role := pick(g, "users", "staff", "staff", "agents:run", "a b")
		grants[role] = append(grants[role], s)
	}
	roles = slices.DeleteFunc(slices.Sorted(maps.Keys(grants)), func(role string) bool {
		return role == "absent" || role == "a b"
	})
	return own, append(roles, pick(g, admin, "agents:run", "sessions:read", "Absent", "absent users", "a", "")), grants
}

// audiences puts an audience into the claims, and asks for one, in half of the cases each. It returns what the token is
// accepted for, in the oracle's words. ok is false if it is not accepted at all.
func (g generator) audiences(c *config.Config, payload map[string]any) (accepted string, ok bool) {
	c.PublicURL, c.Doors.MCP.Audience = "https://os.example.com/prod", []string{"https://old.example.com/mcp"}
	door := []string{"https://os.example.com/prod/mcp", "https://old.example.com/mcp"}
	has := []string{}
	for _, aud := range append(door, "api", "https://os.example.com/prod", "https://os.example.com/prod/mcp/", "mcp") {
		if g.oneIn(4) {
			has = append(has, aud)
		}
	}
	switch {
	case len(has) == 1 && g.oneIn(2):
		payload["aud"] = has[0]
	case len(has) > 0:
		payload["aud"] = has
	}
	required := g.oneIn(2)
	if required && g.oneIn(2) {
		c.Auth.VerifyAudience, c.Auth.Audience = true, []string{"other", "api"}
	} else if required {
		c.Auth.Keys[0].Audience = []string{"api", "other"}
	}
	meant := slices.ContainsFunc(has, func(aud string) bool { return slices.Contains(door, aud) })
	switch ours := !required || slices.Contains(has, "api"); {
	case ours && meant:
		return "both", true
	case ours:
		return "", true
	case meant:
		return "mcp", true
	}
	return "", false
}

// request returns a request, mostly for a declared agent.
func (g generator) request(declared []string) (method, path string) {
	r := g.route()
	path = r.Path(func(param string) string {
		switch n := g.IntN(8); {
		case n == 0:
			return g.oddID()
		case n < 6 && param == "agent_id" && len(declared) > 0:
			return pick(g, declared...)
		case n < 4 && param == "run_id": // equals the last segment of another route
			return "runs"
		}
		return g.plainID()
	})
	switch g.IntN(32) {
	case 0, 1:
		path += pick(g, "/", "//")
	case 2:
		path = pick(g, "/"+path, strings.ToUpper(path), path+"/x", path+";x", strings.Replace(path, "/", "//", 1),
			path+"/..", path+"%2F", path+"\x00")
	}
	if g.oneIn(16) {
		return pick(g, "GET", "POST", "DELETE"), path
	}
	return r.Method, path
}
