package wire

// Index is the answer to GET /.
type Index struct {
	Name   string `json:"name"`
	Health string `json:"health"`
	Info   string `json:"info"`
	Docs   string `json:"docs"`
}

// Health is the answer to GET /health.
type Health struct {
	Status         string    `json:"status"`
	InstantiatedAt MicroTime `json:"instantiated_at"`
}

// Ready is the answer to GET /readyz when the database can be used.
type Ready struct {
	Status string `json:"status"`
}

// Info is the answer to GET /info. AgnoVersion is the version of AgentOS whose HTTP API
// this server implements; AgentOS's clients reject an answer without AgnoVersion.
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
}

// MCP describes the door for MCP. Path and OAuth are null if it is closed, and OAuth if no issuer of tokens is named.
// AgentOS has a second endpoint for the calls of tools, which Keyway doesn't have.
type MCP struct {
	Enabled         bool      `json:"enabled"`
	Path            *string   `json:"path"`
	OAuth           *MCPOAuth `json:"oauth"`
	ToolRunEndpoint bool      `json:"tool_run_endpoint"`
}

// MCPOAuth says where clients of the door for MCP get tokens.
type MCPOAuth struct {
	AuthorizationServers []string `json:"authorization_servers"`
	Resource             string   `json:"resource"`
}

// ProtectedResource describes the door for MCP to OAuth clients (RFC 9728 section 2).
type ProtectedResource struct {
	Resource               string   `json:"resource"`
	AuthorizationServers   []string `json:"authorization_servers,omitempty"`
	BearerMethodsSupported []string `json:"bearer_methods_supported"`
	ResourceName           string   `json:"resource_name,omitempty"`
}

// Agent is one agent in the answers to GET /agents and GET /agents/{agent_id}.
type Agent struct {
	ID            string       `json:"id"`
	Name          string       `json:"name"`
	DBID          string       `json:"db_id"`
	Filesystem    bool         `json:"filesystem"`
	Description   string       `json:"description,omitempty"`
	IsFactory     bool         `json:"is_factory"`
	Model         AgentModel   `json:"model"`
	Tools         *AgentTools  `json:"tools,omitempty"`
	Sessions      AgentSession `json:"sessions"`
	Reasoning     Reasoning    `json:"reasoning"`
	SystemMessage *SystemFlags `json:"system_message,omitempty"`
	IsComponent   bool         `json:"is_component"`
	Sandboxed     bool         `json:"sandboxed"`
}

// AgentTools are the tools that keyway.yaml names for an agent.
type AgentTools struct {
	Tools []AgentTool `json:"tools"`
}

// AgentTool is a tool, or an MCP server whose tools are not known before it is asked. AgentOS also has the description
// and the parameters.
type AgentTool struct {
	Name string `json:"name"`
}

// AgentModel is the model of an agent: its id, its name, and the name of its provider, as
// AgentOS writes these.
type AgentModel struct {
	Name     string `json:"name"`
	Model    string `json:"model"`
	Provider string `json:"provider"`
}

// AgentSession describes how the agent stores its conversations.
type AgentSession struct {
	SessionTable        string `json:"session_table"`
	AddHistoryToContext bool   `json:"add_history_to_context,omitempty"`
}

// Reasoning describes AgentOS's reasoning steps. Keyway has none, so that it is false.
type Reasoning struct {
	Reasoning bool `json:"reasoning"`
}

// SystemFlags describes the system message. It doesn't contain the instructions
// themselves: these are the operator's, and callers must not see them.
type SystemFlags struct {
	Markdown bool `json:"markdown"`
}

// Config is the answer to GET /config. ConfigDigest is the SHA-256 of the configuration, in
// hexadecimal digits. It shows an operator which configuration is deployed.
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
	ConfigDigest    string         `json:"config_digest"`
}

// ModelRef is the id of a model and the name of its provider.
type ModelRef struct {
	ID       string `json:"id"`
	Provider string `json:"provider"`
}

// DBs lists the databases of one domain, such as sessions. Keyway has one database.
type DBs struct {
	DBs []DB `json:"dbs"`
}

// DB is one database with the tables of a domain. Tables are AgentOS's names for them, which
// clients show.
type DB struct {
	DBID         string       `json:"db_id"`
	DomainConfig DomainConfig `json:"domain_config"`
	Tables       []string     `json:"tables"`
}

// DomainConfig has the name of a database that a person sees.
type DomainConfig struct {
	DisplayName string `json:"display_name"`
}

// AgentSummary is one agent in the answer to GET /config.
type AgentSummary struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	DBID        string   `json:"db_id"`
	Model       ModelRef `json:"model"`
	Sandboxed   bool     `json:"sandboxed"`
}
