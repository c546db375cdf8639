package route

import (
	"strings"

	"github.com/keyway-agents/keyway/shared/scope"
)

// The routes, named by what a caller wants.
const (
	Index         Name = "index"
	Health        Name = "health"
	HealthHead    Name = "health_head"
	Ready         Name = "ready"
	ReadyHead     Name = "ready_head"
	Info          Name = "info"
	OpenAPI       Name = "openapi"
	Docs          Name = "docs"
	Console       Name = "console"
	ConsoleFile   Name = "console_file"
	Config        Name = "config"
	WhoAmI        Name = "whoami"
	Can           Name = "can"
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

	// AGUIRun is AG-UI's only route: it starts, continues and repeats runs.
	AGUIRun Name = "agui.run"
	// AISDKRun is the same for pages that use AI SDK, and opens and closes with that door.
	AISDKRun Name = "agui.ai_sdk"
	// AISDKResume is how such a page finds an answer again that is in progress.
	AISDKResume Name = "agui.ai_sdk_stream"

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

	Metrics        Name = "metrics"
	RefreshMetrics Name = "refresh_metrics"
	RefreshStatus  Name = "refresh_status"

	ListRevocations Name = "list_revocations"
	Revoke          Name = "revoke"
	UndoRevocation  Name = "undo_revocation"

	ListActiveRuns   Name = "list_active_runs"
	CancelActiveRuns Name = "cancel_active_runs"

	ExportUserData Name = "export_user_data"
	EraseUserData  Name = "erase_user_data"

	Usage Name = "usage"

	Models      Name = "openai.models"
	Model       Name = "openai.model"
	Completions Name = "openai.chat_completions"
	// MCPCall is POST /mcp, by which clients of the Model Context Protocol do everything.
	MCPCall Name = "mcp.call"
	// MCPResource and MCPResourceRoot describe the door to OAuth clients (RFC 9728). Clients ask for the second one if no
	// challenge has named the first.
	MCPResource     Name = "mcp.resource"
	MCPResourceRoot Name = "mcp.resource_root"

	Responses      Name = "openai.responses"
	Response       Name = "openai.response"
	DeleteResponse Name = "openai.delete_response"
	CancelResponse Name = "openai.cancel_response"

	Decisions Name = "decisions"
	Diff      Name = "diff"
	DevToken  Name = "dev_token"
	DevSignIn Name = "dev_sign_in"
)

// The functions, one for each family of endpoints.
const (
	Agents   Function = "agents"
	Runs     Function = "runs"
	Sessions Function = "sessions"
	Memories Function = "memories"
	Settings Function = "config"
	// LocalServer stands for the routes that only keyway serve has, and DevServer for those that it has with --dev only.
	// They are no functions, and the template doesn't name them.
	LocalServer Function = "local"
	DevServer   Function = "dev"
)

// OnAWS reports whether it is a Lambda function.
func (f Function) OnAWS() bool { return f != LocalServer && f != DevServer }

// The doors. The name of a route of a door begins with the door and a dot.
const (
	MCP    Door = "mcp"
	OpenAI Door = "openai"
	AGUI   Door = "agui"
)

// Table is everything that Keyway serves, with all doors. The needs are AgentOS 3.1.10's where it has the route. No
// two routes match one request, so that their order decides only the order in documents and in the header Allow.
var Table = New(routes([]row{
	{Index, Settings, "GET /", public, ""},
	{Health, Settings, "GET /health", public, ""},
	{HealthHead, Settings, "HEAD /health", public, ""},
	{Info, Settings, "GET /info", public, ""},
	{OpenAPI, Settings, "GET /openapi.json", public, ""},
	{Docs, Settings, "GET /docs", public, ""},
	{Console, Settings, "GET /console", public, ""},
	{ConsoleFile, Settings, "GET /console/{file}", public, ""},
	{Config, Settings, "GET /config", guarded, "config:read"},
	// AgentOS has no such routes. They speak of the caller's own token only.
	{WhoAmI, Settings, "GET /whoami", anyToken, ""},
	{Can, Settings, "POST /can", anyToken, ""},

	{ListAgents, Agents, "GET /agents", filtered, "agents:read"},
	{GetAgent, Agents, "GET /agents/{agent_id}", guarded, "agents:read"},
	{ListTeams, Agents, "GET /teams", filtered, "teams:read"},
	{ListWorkflows, Agents, "GET /workflows", filtered, "workflows:read"},

	{CreateRun, Runs, "POST /agents/{agent_id}/runs", guarded, "agents:run"},
	{ListRuns, Runs, "GET /agents/{agent_id}/runs", guarded, "agents:read agents:run"},
	{GetRun, Runs, "GET /agents/{agent_id}/runs/{run_id}", guarded, "agents:read agents:run"},
	{CancelRun, Runs, "POST /agents/{agent_id}/runs/{run_id}/cancel", guarded, "agents:run"},
	{ContinueRun, Runs, "POST /agents/{agent_id}/runs/{run_id}/continue", guarded, "agents:run"},
	{ResumeRun, Runs, "POST /agents/{agent_id}/runs/{run_id}/resume", guarded, "agents:run"},

	{AGUIRun, Runs, "POST /agents/{agent_id}/agui", asRun, "agents:run"},
	{AISDKRun, Runs, "POST /agents/{agent_id}/ai-sdk", asRun, "agents:run"},
	{AISDKResume, Runs, "GET /agents/{agent_id}/ai-sdk/{session_id}/stream", asRun, "agents:run"},

	// The function for sessions serves these two, because the one for settings has no database.
	{Ready, Sessions, "GET /readyz", public, ""},
	{ReadyHead, Sessions, "HEAD /readyz", public, ""},
	{ListSessions, Sessions, "GET /sessions", guarded, "sessions:read"},
	{CreateSession, Sessions, "POST /sessions", guarded, "sessions:write"},
	{DeleteSessions, Sessions, "DELETE /sessions", guarded, "sessions:delete"},
	{GetSession, Sessions, "GET /sessions/{session_id}", guarded, "sessions:read"},
	{ChangeSession, Sessions, "PATCH /sessions/{session_id}", guarded, "sessions:write"},
	{DeleteSession, Sessions, "DELETE /sessions/{session_id}", guarded, "sessions:delete"},
	{RenameSession, Sessions, "POST /sessions/{session_id}/rename", guarded, "sessions:write"},
	{SessionRuns, Sessions, "GET /sessions/{session_id}/runs", guarded, "sessions:read"},
	{SessionPreviews, Sessions, "GET /sessions/{session_id}/run-previews", guarded, "sessions:read"},
	{SessionRun, Sessions, "GET /sessions/{session_id}/runs/{run_id}", guarded, "sessions:read"},

	{ListMemories, Memories, "GET /memories", guarded, "memories:read"},
	{CreateMemory, Memories, "POST /memories", guarded, "memories:write"},
	{DeleteMemories, Memories, "DELETE /memories", guarded, "memories:delete"},
	{GetMemory, Memories, "GET /memories/{memory_id}", guarded, "memories:read"},
	{ChangeMemory, Memories, "PATCH /memories/{memory_id}", guarded, "memories:write"},
	{DeleteMemory, Memories, "DELETE /memories/{memory_id}", guarded, "memories:delete"},
	{MemoryTopics, Memories, "GET /memory_topics", guarded, "memories:read"},
	{MemoryStats, Memories, "GET /user_memory_stats", guarded, "memories:read"},
	// The function for runs serves it, because only that one links the models.
	{MergeMemories, Runs, "POST /optimize-memories", guarded, "memories:write"},

	{Metrics, Sessions, "GET /metrics", guarded, "metrics:read"},
	{RefreshMetrics, Sessions, "POST /metrics/refresh", guarded, "metrics:write"},
	{RefreshStatus, Sessions, "GET /metrics/refresh/status", guarded, "metrics:read"},

	// AgentOS has no such routes.
	{ListRevocations, Sessions, "GET /revocations", admin, ""},
	{Revoke, Sessions, "POST /revocations", admin, ""},
	{UndoRevocation, Sessions, "DELETE /revocations", admin, ""},
	{ListActiveRuns, Runs, "GET /active-runs", admin, ""},
	{CancelActiveRuns, Runs, "DELETE /active-runs", admin, ""},
	{ExportUserData, Runs, "GET /user-data", admin, ""},
	{EraseUserData, Runs, "DELETE /user-data", admin, ""},
	{Usage, Sessions, "GET /usage", admin, ""},

	// OpenAI's API; see package door/openai.
	{Models, Runs, "GET /v1/models", asRun, "agents:run"},
	{Model, Runs, "GET /v1/models/{agent_id}", asRun, "agents:run"},
	{Completions, Runs, "POST /v1/chat/completions", asRun, "agents:run"},
	{Responses, Runs, "POST /v1/responses", asRun, "agents:run"},
	{Response, Runs, "GET /v1/responses/{response_id}", asRun, "agents:run"},
	{DeleteResponse, Runs, "DELETE /v1/responses/{response_id}", asRun, "agents:run"},
	{CancelResponse, Runs, "POST /v1/responses/{response_id}/cancel", asRun, "agents:run"},
	{MCPResource, Settings, "GET /.well-known/oauth-protected-resource/mcp", public, ""},
	{MCPResourceRoot, Settings, "GET /.well-known/oauth-protected-resource", public, ""},
	{MCPCall, Runs, "POST /mcp", addressed, ""},

	// The console uses these on the local server.
	{Decisions, LocalServer, "GET /decisions", admin, ""},
	{Diff, LocalServer, "POST /diff", admin, ""},
	{DevToken, DevServer, "POST /dev/token", admin, ""},
	{DevSignIn, DevServer, "POST /dev/sign-in", public, ""},
}))

// row is one line of Table in a form that the compiler stores as data. Routes written out
// would need kilobytes of code, which runs at each start of a function.
type row struct {
	name     Name
	function Function
	request  string // method and pattern
	access   access
	scopes   string // separated by spaces; a caller needs all of them
}

// access is who is allowed to use a route. The zero value needs scopes.
type access int

const (
	guarded   access = iota // a caller with all of the scopes
	filtered                // the same, and the answer lists the resources that the scope is about
	public                  // everybody
	admin                   // a caller with the administrator's scope, which keyway.yaml names
	anyToken                // a caller with a valid token, whatever its scopes
	addressed               // a caller whose token's audience names the door of the route, whatever its scopes
	asRun                   // a caller that is allowed to run the agent of the path, or any agent; see Route.As
)

// routes returns the rows as routes. It panics on a scope that is none.
func routes(rows []row) []Route {
	out := make([]Route, len(rows))
	for i, line := range rows {
		r := &out[i]
		r.Name, r.Function = line.name, line.function
		r.Public, r.Admin, r.AnyToken = line.access == public, line.access == admin, line.access == anyToken
		r.Addressed = line.access == addressed
		if line.access == asRun {
			r.As = CreateRun
		}
		if door, _, found := strings.Cut(string(line.name), "."); found {
			r.Door = Door(door)
		}
		r.Method, r.Pattern, _ = strings.Cut(line.request, " ")
		for _, text := range strings.Fields(line.scopes) {
			n, ok := scope.Parse(text)
			if !ok {
				panic("route: no such scope: " + text)
			}
			r.Needs = append(r.Needs, n)
		}
		if line.access == filtered {
			r.Lists = r.Needs[0].Resource
		}
	}
	return out
}
