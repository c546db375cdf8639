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
	ListSessions  Name = "list_sessions"
	GetSession    Name = "get_session"
	SessionRuns   Name = "session_runs"
	SessionRun    Name = "session_run"
	DeleteSession Name = "delete_session"
)

// Function is one deployed unit: the Lambda function that serves a route.
type Function string

// The functions, one per endpoint family.
const (
	Agents   Function = "agents"
	Runs     Function = "runs"
	Sessions Function = "sessions"
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

	segments []string
}

// Table is the served surface, in order of matching.
var Table = New([]Route{
	{Name: Index, Method: "GET", Pattern: "/", Function: Settings, Public: true},
	{Name: Health, Method: "GET", Pattern: "/health", Function: Settings, Public: true},
	{Name: Info, Method: "GET", Pattern: "/info", Function: Settings, Public: true},
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

	{Name: ListSessions, Method: "GET", Pattern: "/sessions", Function: Sessions, Needs: needs("sessions:read")},
	{Name: GetSession, Method: "GET", Pattern: "/sessions/{session_id}", Function: Sessions, Needs: needs("sessions:read")},
	{Name: DeleteSession, Method: "DELETE", Pattern: "/sessions/{session_id}", Function: Sessions, Needs: needs("sessions:delete")},
	{Name: SessionRuns, Method: "GET", Pattern: "/sessions/{session_id}/runs", Function: Sessions, Needs: needs("sessions:read")},
	{Name: SessionRun, Method: "GET", Pattern: "/sessions/{session_id}/runs/{run_id}", Function: Sessions, Needs: needs("sessions:read")},
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
