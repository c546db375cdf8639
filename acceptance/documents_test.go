package acceptance

import (
	"io"
	"maps"
	"strings"
	"testing"
)

// Each test here is one document of AgentOS. The quoted comments are the document's
// promises about each token.

func TestDocumentPerAgentPermissions(t *testing.T) {
	t.Parallel()
	r := start(t, "per-agent-permissions", echoModel(t))
	const web, finance = "web-search-agent", "finance-agent"

	// "Web user can run web-search-agent"
	r.Run("web_user", web, "message", "Search for AI news").
		Want(t, "web user runs its agent", 200, "event: RunCompleted", "you said ", "Search for AI news")
	// "Web user cannot run finance-agent (403 Forbidden)"
	r.Run("web_user", finance, "message", "Analyze stock").Want(t, "web user runs the other", 403,
		"Insufficient permissions. Required scope(s): agents:run", `"missing":["agents:finance-agent:run"]`)
	// "Finance user can only run finance-agent"
	r.Run("finance_user", finance, "message", "Analyze market trends").
		Want(t, "finance user runs its agent", 200, "event: RunCompleted")
	r.Run("finance_user", web, "message", "x").Want(t, "finance user runs the other", 403)
	// "Power user (can run both)"
	r.Run("power_user", web, "message", "x").Want(t, "power user runs one", 200, "event: RunCompleted")
	r.Run("power_user", finance, "message", "x").Want(t, "power user runs the other", 200, "event: RunCompleted")
	// All three have agents:read.
	for _, sub := range []string{"web_user", "finance_user", "power_user"} {
		if got := r.Get(sub, "/agents").IDs(t); got != web+" "+finance {
			t.Errorf("%s lists %q", sub, got)
		}
	}
	// The document's model is OpenAIResponses.
	tools := map[string]int{}
	for _, m := range r.Model.Requests() {
		if m.Path != "/v1/responses" || m.Body["model"] != "gpt-5.2" {
			t.Errorf("%s is asked for %v", m.Path, m.Body["model"])
		}
		tools[toolNames(m)]++
	}
	// "tools=[HackerNewsTools()]" of one agent, none of the other.
	if want := map[string]int{"get_top_hackernews_stories get_user_details": 2, "": 2}; !maps.Equal(tools, want) {
		t.Errorf("the tools offered, by number of runs, are %v, want %v", tools, want)
	}
	// Rejected runs never reached the model.
	if n := len(r.Model.Requests()); n != 4 {
		t.Errorf("the model was called %d times for 4 allowed runs", n)
	}
}

func TestDocumentAdvancedScopes(t *testing.T) {
	t.Parallel()
	r := start(t, "advanced-scopes", echoModel(t))
	all := []string{"web-search-agent", "analyst-agent", "admin-agent"}
	for _, row := range []struct {
		sub, lists, runs, reads         string
		config, sessions, write, delete int
	}{
		// "ADMIN - Full access to everything"
		{"admin_user", strings.Join(all, " "), strings.Join(all, " "), strings.Join(all, " "), 200, 200, 201, 204},
		// "POWER USER - Global access to all agents"
		{"power_user", strings.Join(all, " "), strings.Join(all, " "), strings.Join(all, " "), 200, 200, 201, 403},
		// "LIMITED USER - Only specific agents": "sees only 2 agents (not admin-agent)"
		{"limited_user", "web-search-agent analyst-agent", "web-search-agent analyst-agent",
			"web-search-agent analyst-agent", 403, 403, 403, 403},
		// "READ-ONLY USER - Can view but not run"
		{"readonly_user", strings.Join(all, " "), "", strings.Join(all, " "), 200, 403, 403, 403},
		// "WILDCARD USER - Can run any agent", "including admin-agent"
		{"wildcard_user", strings.Join(all, " "), strings.Join(all, " "), strings.Join(all, " "), 403, 403, 403, 403},
	} {
		if got := r.Get(row.sub, "/agents").IDs(t); got != row.lists {
			t.Errorf("%s lists %q, want %q", row.sub, got, row.lists)
		}
		for _, agent := range all {
			status := map[bool]int{true: 200, false: 403}
			r.Get(row.sub, "/agents/"+agent).Want(t, row.sub+" reads "+agent, status[strings.Contains(row.reads, agent)])
			r.Run(row.sub, agent, "message", "test").Want(t, row.sub+" runs "+agent, status[strings.Contains(row.runs, agent)])
		}
		r.Get(row.sub, "/config").Want(t, row.sub+" reads the config", row.config)
		r.Get(row.sub, "/sessions").Want(t, row.sub+" lists sessions", row.sessions)
		r.Call(row.sub, "POST", "/sessions", nil).Want(t, row.sub+" makes a session", row.write)
		r.Call(row.sub, "DELETE", "/sessions/nope", nil).Want(t, row.sub+" deletes a session", row.delete)
	}
	// "tools=[DuckDuckGoTools()]" of one agent, none of the others.
	searching := 0
	for _, m := range r.Model.Requests() {
		if toolNames(m) == "web_search search_news" {
			searching++
		} else if got := toolNames(m); got != "" {
			t.Errorf("the model is offered the tools %q", got)
		}
	}
	if searching != 4 { // one per user, except the read-only user
		t.Errorf("%d runs could search the web, want 4", searching)
	}
}

func TestDocumentCustomScopeMappings(t *testing.T) {
	t.Parallel()
	r := start(t, "custom-scope-mappings", echoModel(t))
	const basic, power, admin, super = "user_123", "user_456", "admin_789", "superadmin"

	// "Basic user can read agents"
	if got := r.Get(basic, "/agents").IDs(t); got != "research-agent" {
		t.Errorf("the basic user lists %q", got)
	}
	r.Get(basic, "/agents/research-agent").Want(t, "basic reads the agent", 200)
	// "Basic user cannot run agents (missing app:run and app:execute)"
	r.Run(basic, "research-agent", "message", "test").Want(t, "basic runs", 403,
		"Required scope(s): app:run, app:execute", `"missing":["app:run","app:execute"]`)
	// "Power user can run agents"
	r.Run(power, "research-agent", "message", "Search for news").
		Want(t, "power runs", 200, "event: RunCompleted", "Search for news")
	// "Only admin can view sessions"
	r.Get(admin, "/sessions").Want(t, "admin lists the sessions of all users", 200, `"user_id":"user_456"`)
	r.Get(basic, "/sessions").Want(t, "basic lists sessions", 403, "Required scope(s): app:admin")
	r.Get(power, "/sessions").Want(t, "power lists sessions", 403, "Required scope(s): app:admin")
	// The runs of an agent show sessions too, so they need the same scope.
	for sub, status := range map[string]int{basic: 403, power: 403, admin: 404} {
		r.Get(sub, "/agents/research-agent/runs?session_id=nope").Want(t, sub+" reads runs", status)
	}
	// "Config endpoint - system admins only"
	r.Get(admin, "/config").Want(t, "admin reads the config", 200)
	r.Get(power, "/config").Want(t, "power reads the config", 403)
	// "GET /sessions/*" needs both of its scopes.
	r.Get(admin, "/sessions/nope").Want(t, "admin reads a session", 403, `"missing":["sessions:read"]`)
	// "Memory endpoints with custom scopes". None of these callers has those scopes.
	r.Get(admin, "/memories").Want(t, "admin lists memories", 403, `"missing":["memory:admin"]`)
	memory := func() io.Reader { return strings.NewReader(`{"memory":"Likes tea"}`) }
	r.Call(admin, "POST", "/memories", memory()).Want(t, "admin writes a memory", 403, `"missing":["memory:write"]`)
	r.Call(super, "POST", "/memories", memory(), "Content-Type", "application/json").
		Want(t, "superadmin writes a memory", 200, "Likes tea")
	r.Get(super, "/memories").Want(t, "superadmin lists memories", 200, "Likes tea")
	// "Super admin - bypasses all checks". It sees the sessions of all users.
	r.Run(super, "research-agent", "message", "x").Want(t, "superadmin runs", 200, "event: RunCompleted")
	r.Get(super, "/sessions").Want(t, "superadmin lists sessions", 200, `"user_id":"user_456"`)
	r.Get(super, "/config").Want(t, "superadmin reads the config", 200)
	// "tools=[DuckDuckGoTools()]"
	for _, m := range r.Model.Requests() {
		if got := toolNames(m); got != "web_search search_news" {
			t.Errorf("the model is offered the tools %q", got)
		}
	}
}
