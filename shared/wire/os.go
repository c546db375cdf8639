// Package wire is AgentOS's contract as Go types: the JSON bodies, member by
// member in the recorded order, and the framing of server-sent events.
// It decides nothing and knows neither HTTP nor storage.
//
// Where a field's Go type doesn't say what the member holds, the tag holds does, for
// the OpenAPI document: alternatives divided by |, each the name of a struct of this
// package, object, null or any; [] behind one makes it a list.
package wire

// Index answers GET /.
type Index struct {
	Name   string `json:"name"`
	Health string `json:"health"`
	Info   string `json:"info"`
	Docs   string `json:"docs"`
}

// Health answers GET /health.
type Health struct {
	Status         string    `json:"status"`
	InstantiatedAt MicroTime `json:"instantiated_at"`
}

// Info answers GET /info. AgnoVersion is the AgentOS version whose contract is
// kept; clients refuse an answer without it.
type Info struct {
	OSID          string `json:"os_id"`
	Name          string `json:"name,omitempty"`
	OSVersion     string `json:"os_version"`
	AgnoVersion   string `json:"agno_version"`
	AgentCount    int    `json:"agent_count"`
	TeamCount     int    `json:"team_count"`
	WorkflowCount int    `json:"workflow_count"`
	MCP           MCP    `json:"mcp"`
	AuthMode      string `json:"auth_mode"`
	UserIsolation bool   `json:"user_isolation"`
	ConfigDigest  string `json:"config_digest"`
}

// MCP says that no MCP endpoint is served.
type MCP struct {
	Enabled         bool    `json:"enabled"`
	Path            *string `json:"path"`
	OAuth           *string `json:"oauth"`
	ToolRunEndpoint bool    `json:"tool_run_endpoint"`
}

// Agent is an agent in GET /agents.
type Agent struct {
	ID            string       `json:"id"`
	Name          string       `json:"name"`
	DBID          string       `json:"db_id"`
	Filesystem    bool         `json:"filesystem"`
	Description   string       `json:"description,omitempty"`
	IsFactory     bool         `json:"is_factory"`
	Model         AgentModel   `json:"model"`
	Sessions      AgentSession `json:"sessions"`
	Reasoning     Reasoning    `json:"reasoning"`
	SystemMessage *SystemFlags `json:"system_message,omitempty"`
	IsComponent   bool         `json:"is_component"`
	Sandboxed     bool         `json:"sandboxed"`
}

// AgentModel names an agent's model.
type AgentModel struct {
	Name     string `json:"name"`
	Model    string `json:"model"`
	Provider string `json:"provider"`
}

// AgentSession says how the agent keeps its conversations.
type AgentSession struct {
	SessionTable        string `json:"session_table"`
	AddHistoryToContext bool   `json:"add_history_to_context,omitempty"`
}

// Reasoning is always off.
type Reasoning struct {
	Reasoning bool `json:"reasoning"`
}

// SystemFlags says what goes into the system message. The instructions
// themselves are nobody's business but the operator's.
type SystemFlags struct {
	Markdown bool `json:"markdown"`
}

// Config answers GET /config.
type Config struct {
	OSID            string         `json:"os_id"`
	Name            string         `json:"name,omitempty"`
	Description     string         `json:"description,omitempty"`
	AvailableModels []ModelRef     `json:"available_models"`
	Databases       []string       `json:"databases"`
	Session         DBs            `json:"session"`
	Agents          []AgentSummary `json:"agents"`
	Teams           []any          `json:"teams"`
	Workflows       []any          `json:"workflows"`
	Interfaces      []any          `json:"interfaces"`
}

// ModelRef names a model.
type ModelRef struct {
	ID       string `json:"id"`
	Provider string `json:"provider"`
}

// DBs lists where a domain is stored.
type DBs struct {
	DBs []DB `json:"dbs"`
}

// DB is one store.
type DB struct {
	DBID         string       `json:"db_id"`
	DomainConfig DomainConfig `json:"domain_config"`
	Tables       []string     `json:"tables"`
}

// DomainConfig names a store for people.
type DomainConfig struct {
	DisplayName string `json:"display_name"`
}

// AgentSummary is an agent in GET /config.
type AgentSummary struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	DBID        string   `json:"db_id"`
	Model       ModelRef `json:"model"`
	Sandboxed   bool     `json:"sandboxed"`
}
