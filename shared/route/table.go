package route

import (
	"strings"

	"github.com/keyway-agents/keyway/shared/scope"
)

// The routes, named by what a caller wants.
const (
	Index         Name = "index"
	Health        Name = "health"
	Info          Name = "info"
	OpenAPI       Name = "openapi"
	Docs          Name = "docs"
	Config        Name = "config"
	ListAgents    Name = "list_agents"
	GetAgent      Name = "get_agent"
	ListTeams     Name = "list_teams"
	ListWorkflows Name = "list_workflows"
	CreateRun     Name = "create_run"
	ListRuns      Name = "list_runs"
	GetRun        Name = "get_run"
	CancelRun     Name = "cancel_run"
	ContinueRun   Name = "continue_run"
	ResumeRun     Name = "resume_run"

	ListSessions    Name = "list_sessions"
	CreateSession   Name = "create_session"
	DeleteSessions  Name = "delete_sessions"
	GetSession      Name = "get_session"
	ChangeSession   Name = "change_session"
	RenameSession   Name = "rename_session"
	DeleteSession   Name = "delete_session"
	SessionRuns     Name = "session_runs"
	SessionPreviews Name = "session_previews"
	SessionRun      Name = "session_run"

	ListMemories   Name = "list_memories"
	CreateMemory   Name = "create_memory"
	DeleteMemories Name = "delete_memories"
	GetMemory      Name = "get_memory"
	ChangeMemory   Name = "change_memory"
	DeleteMemory   Name = "delete_memory"
	MemoryTopics   Name = "memory_topics"
	MemoryStats    Name = "memory_stats"
	MergeMemories  Name = "optimize_memories"
)

// The functions, one for each family of endpoints.
const (
	Agents   Function = "agents"
	Runs     Function = "runs"
	Sessions Function = "sessions"
	Memories Function = "memories"
	Settings Function = "config"
)

// Table is everything that Keyway serves. The needs are AgentOS 3.1.10's. No two
// routes match one request, so that their order decides only the order in documents
// and in the header Allow.
var Table = New([]Route{
	public(Index, Settings, "GET /"),
	public(Health, Settings, "GET /health"),
	public(Info, Settings, "GET /info"),
	public(OpenAPI, Settings, "GET /openapi.json"),
	public(Docs, Settings, "GET /docs"),
	guarded(Config, Settings, "GET /config", "config:read"),

	filtered(ListAgents, Agents, "GET /agents", "agents:read"),
	guarded(GetAgent, Agents, "GET /agents/{agent_id}", "agents:read"),
	filtered(ListTeams, Agents, "GET /teams", "teams:read"),
	filtered(ListWorkflows, Agents, "GET /workflows", "workflows:read"),

	guarded(CreateRun, Runs, "POST /agents/{agent_id}/runs", "agents:run"),
	guarded(ListRuns, Runs, "GET /agents/{agent_id}/runs", "agents:read", "agents:run"),
	guarded(GetRun, Runs, "GET /agents/{agent_id}/runs/{run_id}", "agents:read", "agents:run"),
	guarded(CancelRun, Runs, "POST /agents/{agent_id}/runs/{run_id}/cancel", "agents:run"),
	guarded(ContinueRun, Runs, "POST /agents/{agent_id}/runs/{run_id}/continue", "agents:run"),
	guarded(ResumeRun, Runs, "POST /agents/{agent_id}/runs/{run_id}/resume", "agents:run"),

	guarded(ListSessions, Sessions, "GET /sessions", "sessions:read"),
	guarded(CreateSession, Sessions, "POST /sessions", "sessions:write"),
	guarded(DeleteSessions, Sessions, "DELETE /sessions", "sessions:delete"),
	guarded(GetSession, Sessions, "GET /sessions/{session_id}", "sessions:read"),
	guarded(ChangeSession, Sessions, "PATCH /sessions/{session_id}", "sessions:write"),
	guarded(DeleteSession, Sessions, "DELETE /sessions/{session_id}", "sessions:delete"),
	guarded(RenameSession, Sessions, "POST /sessions/{session_id}/rename", "sessions:write"),
	guarded(SessionRuns, Sessions, "GET /sessions/{session_id}/runs", "sessions:read"),
	guarded(SessionPreviews, Sessions, "GET /sessions/{session_id}/run-previews", "sessions:read"),
	guarded(SessionRun, Sessions, "GET /sessions/{session_id}/runs/{run_id}", "sessions:read"),

	guarded(ListMemories, Memories, "GET /memories", "memories:read"),
	guarded(CreateMemory, Memories, "POST /memories", "memories:write"),
	guarded(DeleteMemories, Memories, "DELETE /memories", "memories:delete"),
	guarded(GetMemory, Memories, "GET /memories/{memory_id}", "memories:read"),
	guarded(ChangeMemory, Memories, "PATCH /memories/{memory_id}", "memories:write"),
	guarded(DeleteMemory, Memories, "DELETE /memories/{memory_id}", "memories:delete"),
	guarded(MemoryTopics, Memories, "GET /memory_topics", "memories:read"),
	guarded(MemoryStats, Memories, "GET /user_memory_stats", "memories:read"),
	// The function for runs serves it, because only that one links the models.
	guarded(MergeMemories, Runs, "POST /optimize-memories", "memories:write"),
})

// public returns a route that needs no token. request is the method and the pattern.
func public(name Name, function Function, request string) Route {
	r := guarded(name, function, request)
	r.Public = true
	return r
}

// guarded returns a route that needs all of the scopes. Without any, New panics.
func guarded(name Name, function Function, request string, scopes ...string) Route {
	method, pattern, _ := strings.Cut(request, " ")
	r := Route{Name: name, Function: function, Method: method, Pattern: pattern}
	for _, text := range scopes {
		n, ok := scope.Parse(text)
		if !ok {
			panic("route: no such scope: " + text)
		}
		r.Needs = append(r.Needs, n)
	}
	return r
}

// filtered returns a route whose answer lists the resources that the scope is about.
func filtered(name Name, function Function, request, scope string) Route {
	r := guarded(name, function, request, scope)
	r.Lists = r.Needs[0].Resource
	return r
}
