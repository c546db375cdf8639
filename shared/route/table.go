// Package route holds the one table of what Keyway serves: method, path, who may
// call it, which function answers. Handlers, authorizer, gateway and documents
// all read this table; nothing else knows a path.
// It does not know callers, policies or handlers.
package route

import "github.com/keyway-agents/keyway/shared/scope"

// Name identifies a route to the handler that serves it.
type Name string

// The routes, by what a caller wants of them.
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

// Function is one deployed unit: the Lambda function that serves a route.
type Function string

// The functions, one per endpoint family.
const (
	Agents   Function = "agents"
	Runs     Function = "runs"
	Sessions Function = "sessions"
	Memories Function = "memories"
	Settings Function = "config"
)

// Route is one line of the table.
type Route struct {
	Name     Name
	Method   string
	Pattern  string // "/agents/{agent_id}/runs": a parameter is one whole segment
	Function Function
	Public   bool         // no token asked for
	Needs    []scope.Need // all are needed; without one (and not Public) New refuses the route
	Lists    string       // the family that the answer is filtered by: who may read one of it may list

	segments      []string
	family, param string // what Resource answers
	before, after string // what Glob writes around the id
}

// Table is the served surface, in order of matching.
var Table = New([]Route{
	{Name: Index, Method: "GET", Pattern: "/", Function: Settings, Public: true},
	{Name: Health, Method: "GET", Pattern: "/health", Function: Settings, Public: true},
	{Name: Info, Method: "GET", Pattern: "/info", Function: Settings, Public: true},
	{Name: OpenAPI, Method: "GET", Pattern: "/openapi.json", Function: Settings, Public: true},
	{Name: Docs, Method: "GET", Pattern: "/docs", Function: Settings, Public: true},
	{Name: Config, Method: "GET", Pattern: "/config", Function: Settings, Needs: needs("config:read")},

	{Name: ListAgents, Method: "GET", Pattern: "/agents", Function: Agents, Needs: needs("agents:read"), Lists: "agents"},
	{Name: GetAgent, Method: "GET", Pattern: "/agents/{agent_id}", Function: Agents, Needs: needs("agents:read")},
	{Name: ListTeams, Method: "GET", Pattern: "/teams", Function: Agents, Needs: needs("teams:read"), Lists: "teams"},
	{Name: ListWorkflows, Method: "GET", Pattern: "/workflows", Function: Agents, Needs: needs("workflows:read"), Lists: "workflows"},

	{Name: CreateRun, Method: "POST", Pattern: "/agents/{agent_id}/runs", Function: Runs, Needs: needs("agents:run")},
	{Name: ListRuns, Method: "GET", Pattern: "/agents/{agent_id}/runs", Function: Runs, Needs: needs("agents:read", "agents:run")},
	{Name: GetRun, Method: "GET", Pattern: "/agents/{agent_id}/runs/{run_id}", Function: Runs, Needs: needs("agents:read", "agents:run")},
	{Name: CancelRun, Method: "POST", Pattern: "/agents/{agent_id}/runs/{run_id}/cancel", Function: Runs, Needs: needs("agents:run")},
	{Name: ContinueRun, Method: "POST", Pattern: "/agents/{agent_id}/runs/{run_id}/continue", Function: Runs, Needs: needs("agents:run")},
	{Name: ResumeRun, Method: "POST", Pattern: "/agents/{agent_id}/runs/{run_id}/resume", Function: Runs, Needs: needs("agents:run")},

	{Name: ListSessions, Method: "GET", Pattern: "/sessions", Function: Sessions, Needs: needs("sessions:read")},
	{Name: CreateSession, Method: "POST", Pattern: "/sessions", Function: Sessions, Needs: needs("sessions:write")},
	{Name: DeleteSessions, Method: "DELETE", Pattern: "/sessions", Function: Sessions, Needs: needs("sessions:delete")},
	{Name: GetSession, Method: "GET", Pattern: "/sessions/{session_id}", Function: Sessions, Needs: needs("sessions:read")},
	{Name: ChangeSession, Method: "PATCH", Pattern: "/sessions/{session_id}", Function: Sessions, Needs: needs("sessions:write")},
	{Name: DeleteSession, Method: "DELETE", Pattern: "/sessions/{session_id}", Function: Sessions, Needs: needs("sessions:delete")},
	{Name: RenameSession, Method: "POST", Pattern: "/sessions/{session_id}/rename", Function: Sessions, Needs: needs("sessions:write")},
	{Name: SessionRuns, Method: "GET", Pattern: "/sessions/{session_id}/runs", Function: Sessions, Needs: needs("sessions:read")},
	{Name: SessionPreviews, Method: "GET", Pattern: "/sessions/{session_id}/run-previews", Function: Sessions, Needs: needs("sessions:read")},
	{Name: SessionRun, Method: "GET", Pattern: "/sessions/{session_id}/runs/{run_id}", Function: Sessions, Needs: needs("sessions:read")},

	{Name: ListMemories, Method: "GET", Pattern: "/memories", Function: Memories, Needs: needs("memories:read")},
	{Name: CreateMemory, Method: "POST", Pattern: "/memories", Function: Memories, Needs: needs("memories:write")},
	{Name: DeleteMemories, Method: "DELETE", Pattern: "/memories", Function: Memories, Needs: needs("memories:delete")},
	{Name: GetMemory, Method: "GET", Pattern: "/memories/{memory_id}", Function: Memories, Needs: needs("memories:read")},
	{Name: ChangeMemory, Method: "PATCH", Pattern: "/memories/{memory_id}", Function: Memories, Needs: needs("memories:write")},
	{Name: DeleteMemory, Method: "DELETE", Pattern: "/memories/{memory_id}", Function: Memories, Needs: needs("memories:delete")},
	{Name: MemoryTopics, Method: "GET", Pattern: "/memory_topics", Function: Memories, Needs: needs("memories:read")},
	{Name: MemoryStats, Method: "GET", Pattern: "/user_memory_stats", Function: Memories, Needs: needs("memories:read")},
	{Name: MergeMemories, Method: "POST", Pattern: "/optimize-memories", Function: Runs, Needs: needs("memories:write")}, // it asks a model
})

func needs(texts ...string) []scope.Need {
	out := make([]scope.Need, len(texts))
	for i, text := range texts {
		n, ok := scope.Parse(text)
		if !ok {
			panic("route: no such scope: " + text)
		}
		out[i] = n
	}
	return out
}
