// Package config turns the canonical JSON of keyway.yaml and the environment
// into a checked description of one OS, or into every fault at once.
// It knows no YAML (see yamlfile), reads no file and opens no connection.
package config

import (
	"net/netip"
	"time"
)

// PublishedSecret is the HMAC secret printed in the Agno documents: anybody can
// sign with it. Parse only warns; see Forgeable.
const PublishedSecret = "your-secret-key-at-least-256-bits-long"

// Config describes one OS. Its struct tags are the one place where a field's
// name, default, bounds and meaning are written: the decoder, docs/config.md and
// docs/keyway.schema.json all read them. It prints itself with secrets masked.
//
// Tags: json (name), doc (meaning), required, default, absent (what absence
// means when it is not a fixed value), example, enum, pattern, and min and max:
// of a number, a duration, a text's bytes or a list's length.
type Config struct {
	ID          string   `json:"id" required:"true" min:"1" max:"255" example:"my-agent-os" doc:"Names this OS (AgentOS's os_id), its tokens' default audience and the owner of its database schema."`
	Name        string   `json:"name" doc:"Shown to people."`
	Description string   `json:"description" doc:"Shown to people."`
	Auth        Auth     `json:"auth" doc:"Whose tokens are believed, and what their scopes open."`
	CORS        CORS     `json:"cors" doc:"Which web pages may call this OS."`
	Database    Database `json:"database" doc:"Where sessions, runs and memories are kept."`
	Egress      Egress   `json:"egress" doc:"What tools may reach."`
	Agents      []Agent  `json:"agents" required:"true" min:"1" example:"[{id: assistant, model: openai:gpt-4o}]" doc:"The agents of this OS. A program of your own may declare agents in Go, beside these or instead of them."`

	// Digest is the SHA-256, in hex, of the file's canonical form: the same for
	// YAML and JSON, whatever the variables hold.
	Digest string `json:"-"`
	// Unset maps the path of each value that was left out to the variable it
	// waits for: a model's api_key, a key beside others whose variable is empty, and
	// with Options.Dev almost any value.
	Unset map[string]string `json:"-"`
	// Warnings are legal but unwise settings.
	Warnings []Fault `json:"-"`
}

// Auth says which tokens are believed and how they are read.
type Auth struct {
	Algorithms     []string       `json:"algorithms" default:"HS256" min:"1" enum:"HS256,HS384,HS512,RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512,EdDSA" doc:"Signature algorithms that are accepted. HMAC (HS…) and public-key algorithms are never mixed."`
	Keys           []Key          `json:"keys" absent:"required, except with --dev" doc:"Verification keys, in rotation order. Beside others, one that is a variable set to nothing is left out: see keys.md."`
	VerifyAudience bool           `json:"verify_audience" default:"false" doc:"Whether a token's aud must hold one of audience."`
	Audience       []string       `json:"audience" min:"1" absent:"[id]" doc:"Audiences that are accepted."`
	Issuer         string         `json:"issuer" absent:"any issuer" example:"https://issuer.example.com" doc:"The iss that every token must carry."`
	RequireExp     bool           `json:"require_exp" default:"true" doc:"Whether a token without exp is refused. AgentOS 3.1.10 accepts it, and so does false."`
	Leeway         time.Duration  `json:"leeway" default:"10s" min:"0s" max:"10m" doc:"How far the clock of the issuer may be off."`
	Claims         Claims         `json:"claims" doc:"Which claims are read."`
	AdminScope     string         `json:"admin_scope" default:"agent_os:admin" pattern:"^\\S+$" doc:"The scope that opens everything. With another one set, agent_os:admin is an ordinary scope."`
	UserIsolation  bool           `json:"user_isolation" default:"true" doc:"Whether callers see their own sessions, runs and memories only. AgentOS 3.1.10 starts with false."`
	ScopeMappings  []ScopeMapping `json:"scope_mappings" example:"{\"GET /agents\": [app:read]}" doc:"Replaces the scopes that a route needs: \"METHOD /path\" to a list, all of which are needed. A * stands for any text, slashes included. The most specific pattern wins: exact, then the longest literal prefix, then file order."`
}

// Key is one source of verification keys: exactly one of Literal, JWKSFile,
// JWKSURL and Secret is set.
type Key struct {
	Literal      Secret `json:"-"` // HMAC secret or PEM public key
	FromVariable bool   `json:"-"` // Literal came from ${VAR}

	JWKSFile string   `json:"jwks_file" example:"keys.json" doc:"A JWKS file; a relative path starts at the directory of keyway.yaml."`
	JWKSURL  string   `json:"jwks_url" example:"https://issuer.example.com/.well-known/jwks.json" doc:"A JWKS address, fetched and followed: see keys.md. https only; with --dev also http on loopback."`
	Secret   string   `json:"secret" pattern:"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+$" example:"arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf" doc:"An AWS Secrets Manager secret, fetched and followed: see keys.md. Its text is an HMAC secret, a PEM public key or a JWKS."`
	Issuer   string   `json:"issuer" absent:"any issuer" doc:"The only iss these keys speak for. Required of each jwks_url when there are several."`
	Audience []string `json:"audience" min:"1" absent:"any" doc:"Audiences that tokens of these keys must name one of, whatever verify_audience says."`
}

// Claims names the claims that are read.
type Claims struct {
	Scopes  string `json:"scopes" default:"scopes" min:"1" doc:"Holds the scopes: a list of strings, or one string that is one scope."`
	Subject string `json:"subject" default:"sub" min:"1" doc:"Holds the caller's identity, the owner of sessions and memories."`
	Session string `json:"session" default:"session_id" min:"1" doc:"Holds the session a token is bound to, if any."`
}

// ScopeMapping replaces the need of the routes it matches. They keep the order
// of the file, which decides between equally specific patterns.
type ScopeMapping struct {
	Method  string   // upper case
	Pattern string   // a path; * stands for any text, slashes included
	Scopes  []string // all are needed; never empty
}

// CORS says which web pages may call.
type CORS struct {
	// Origins is nil when the file says nothing, and empty when it says "none".
	Origins []string `json:"origins" absent:"AgentOS's list locally, none in the cloud" example:"[http://localhost:3000]" doc:"Origins as scheme://host[:port]; never \"*\"."`
}

// secretPattern is the form of a secret's ARN.
const secretPattern = `^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+$`

// Database says where data is kept. URL is empty when neither the file nor
// $DATABASE_URL names one, and starts with postgresql:// otherwise.
type Database struct {
	URL    URL    `json:"url" absent:"$DATABASE_URL, else the embedded PostgreSQL" example:"${DATABASE_URL}" doc:"A PostgreSQL address. The forms of the Python world, such as postgresql+psycopg://, are accepted."`
	Schema string `json:"schema" default:"keyway" pattern:"^[a-z_][a-z0-9_]{0,62}$" doc:"The schema that holds the tables. It belongs to one OS."`

	// Secret is $DATABASE_SECRET, the ARN of the secret that holds the address; empty
	// when URL is known.
	Secret string `json:"-"`
	// IAM is $DATABASE_IAM: each connection's password is a token of AWS's.
	IAM bool `json:"-"`
	// Role is $DATABASE_ROLE, whom a migration lets read and write rows; empty: nobody else.
	Role string `json:"-"`
}

// Egress says what model-chosen addresses may reach besides public ones.
type Egress struct {
	Allow []netip.Prefix `json:"allow" example:"[10.0.0.0/8]" doc:"Private addresses and networks that a model or a redirect may choose. Public ones are always reachable, and so is what this file names itself."`
}

// Agent is one declared agent.
type Agent struct {
	ID                   string        `json:"id" required:"true" pattern:"^[A-Za-z0-9._-]{1,64}$" example:"web-search-agent" doc:"Names the agent in paths and scopes; unique."`
	Name                 string        `json:"name" absent:"the id" doc:"Shown to people."`
	Description          string        `json:"description" doc:"Shown to people."`
	Model                Model         `json:"model" required:"true" example:"openai:gpt-4o" doc:"The language model."`
	Instructions         string        `json:"instructions" doc:"What the model is told before every run."`
	Tools                []Tool        `json:"tools" doc:"What the model may call."`
	AddHistoryToContext  bool          `json:"add_history_to_context" default:"false" doc:"Whether the model sees the session's earlier runs."`
	NumHistoryRuns       int           `json:"num_history_runs" default:"3" min:"1" doc:"How many of them."`
	UpdateMemoryOnRun    bool          `json:"update_memory_on_run" default:"false" doc:"Whether a run may write memories of its user."`
	AddDatetimeToContext bool          `json:"add_datetime_to_context" default:"false" doc:"Whether the model is told the time."`
	Markdown             bool          `json:"markdown" default:"false" doc:"Whether the model is asked for Markdown."`
	ToolCallLimit        int           `json:"tool_call_limit" min:"1" absent:"no limit" doc:"Tool calls allowed in one run."`
	Timeout              time.Duration `json:"timeout" default:"10m" min:"1ms" max:"24h" doc:"How long one run may take."`
	Limits               Limits        `json:"limits" doc:"Bounds on what the agent may spend."`
}

// Model names one model of one provider.
type Model struct {
	Provider    string   `json:"provider" required:"true" enum:"openai,openai-responses,anthropic,bedrock,demo" example:"openai" doc:"Who serves the model. openai is the chat API, openai-responses the Responses API, anthropic Claude by Anthropic's Messages API, bedrock Amazon Bedrock, with AWS_REGION and the AWS credentials of the environment. demo works offline and says so in every answer."`
	ID          string   `json:"id" required:"true" min:"1" example:"gpt-4o" doc:"The provider's name of the model."`
	BaseURL     URL      `json:"base_url" absent:"the provider's own, or its usual variable" example:"http://localhost:11434/v1" doc:"Another address that speaks the provider's API."`
	APIKey      Secret   `json:"api_key" absent:"the provider's usual variable" example:"${OPENAI_API_KEY}" doc:"The provider's key; bedrock takes none. Its variable may be unset; with --dev the demo model answers then."`
	Temperature *float64 `json:"temperature" min:"0" max:"2" absent:"the provider's default" doc:"Sampling temperature."`
}

// Tool is a built-in tool (Name) or an MCP server (MCP), never both.
type Tool struct {
	Name string `json:"-"`
	MCP  *MCP   `json:"mcp" required:"true" example:"{url: https://docs.agno.com/mcp}" doc:"An MCP server (streamable HTTP) whose tools the model may call."`
}

// MCP is one MCP server.
type MCP struct {
	URL     URL               `json:"url" required:"true" min:"1" example:"https://docs.agno.com/mcp" doc:"Its address."`
	Headers map[string]Secret `json:"headers" example:"{Authorization: \"Bearer ${TOKEN}\"}" doc:"Sent to that address only, never across a redirect."`
	Allow   []string          `json:"allow" min:"1" absent:"all of them" doc:"The names of the tools that are offered."`
}

// Limits bound an agent; 0 is no limit.
type Limits struct {
	ConcurrentRuns int `json:"concurrent_runs" min:"1" absent:"no limit" doc:"Runs at the same time."`
	TokensPerRun   int `json:"tokens_per_run" min:"1" absent:"no limit" doc:"Model tokens, in and out, in one run."`
}
