// Package config decides whether a keyway.yaml is valid and what it means: Parse turns its JSON form
// and the environment variables that it names into a Config, with every default filled in, or into
// the list of all errors. Besides the fields and their rules it knows three things of its
// surroundings: the names of the built-in tools, the environment variables of the database, and the
// parameters of the CloudFormation template that set variables (for remedies). It does not parse YAML
// (see package yamlfile), does not read any file and does not open any connection.
package config

import (
	"net/netip"
	"time"

	"github.com/keyway-agents/keyway/shared/bound"
)

// PublishedSecret is the HMAC secret printed in the Agno documents. Anyone can sign tokens with it.
// Parse accepts it with a warning; see Config.Forgeable.
const PublishedSecret = "your-secret-key-at-least-256-bits-long"

// Config describes one OS. Its fields are the only place where a setting's name, default, bounds and
// meaning are written: Parse reads the struct tags, and package configdoc makes docs/config.md and
// docs/keyway.schema.json from the tags and the comments of the fields. A comment of a field is
// therefore written for operators.
//
// The tags are json (the name; "-" is not in the file), required, default, absent (what an absent
// field means if there is no fixed default), example, enum, pattern, and min and max: the bounds of a
// number, of a duration, of a text's length in bytes or of a list's length.
//
// A Config prints itself with its secrets masked, as text and as JSON.
type Config struct {
	// The name of this OS (AgentOS's os_id). It is also the default audience of tokens, and marks the
	// database schema as belonging to this OS.
	ID string `json:"id" required:"true" min:"1" max:"255" example:"my-agent-os"`
	// Display name.
	Name string `json:"name"`
	// Display text.
	Description string `json:"description"`
	// Token verification and authorization.
	Auth Auth `json:"auth"`
	// The web pages that can call this OS from a browser.
	CORS CORS `json:"cors"`
	// The protocols beside AgentOS's by which callers reach the same agents, runs and sessions: see doors.md.
	Doors Doors `json:"doors"`
	// The address by which callers reach this OS, with the stage or base path if there is one, and without a slash at the
	// end. Answers that must name an address take it from here, never from a header of the request.
	PublicURL string `json:"public_url" pattern:"^https?://[A-Za-z0-9.:\\[\\]-]+(/[A-Za-z0-9._~%-]+)*$" absent:"with keyway serve, the address that it listens on" example:"https://agents.example.com"`
	// Storage of sessions, runs and memories.
	Database Database `json:"database"`
	// For how long data is kept. Everything is kept by default.
	Retention Retention `json:"retention"`
	// A webhook that gets a report when a run pauses or ends.
	Notify Notify `json:"notify"`
	// Private addresses that tools can reach.
	Egress Egress `json:"egress"`
	// What all runs of this OS may use together; tokens_per_run is each run's.
	Limits Limits `json:"limits"`
	// What the tokens of models cost, by the id of the model, as gpt-4o or openai:gpt-4o; the latter wins if both are
	// there. usd_per_day needs the price of each model that it limits. The provider demo costs nothing.
	Prices Prices `json:"prices" example:"{\"openai:gpt-4o\": {input: 2.5, output: 10}}"`
	// The most that a request can contain. See limits.md, also for the bounds that are fixed.
	Bounds Bounds `json:"bounds"`
	// The agents of this OS. Your own program can declare agents in Go, in addition to these or instead
	// of them.
	Agents []Agent `json:"agents" required:"true" min:"1" example:"[{id: assistant, model: openai:gpt-4o}]"`

	// Digest is the SHA-256 of the file's canonical form, in hex. It is the same for YAML and JSON and
	// does not depend on the values of variables.
	Digest string `json:"-"`
	// Unset maps the path of each value that was left out to the name of its unset variable. These are
	// a model's api_key, an entry of auth.keys beside others whose variable is empty, values of the
	// parts in Options.Without, and with Options.Dev almost any value.
	Unset map[string]string `json:"-"`
	// Warnings are about valid settings that are likely a mistake.
	Warnings []Fault `json:"-"`
	// Notes are about valid settings whose effect an operator may not expect. Only keyway config check prints them.
	Notes []Fault `json:"-"`
	// KeyPaths are the paths of auth.keys in the file, such as "auth.keys[1]". They differ from the indices of the list
	// after an entry that was left out.
	KeyPaths []string `json:"-"`

	// expanded are the variables of the file with their values; see AsWritten. Nil in a Config that Parse did not
	// make. It is a pointer because package fmt doesn't print what a pointer inside a struct points to.
	expanded *expansions `json:"-"`
}

// Doors are the protocols beside AgentOS's.
type Doors struct {
	// The Model Context Protocol at POST /mcp. Closed on AWS by default.
	MCP MCPDoor `json:"mcp"`
	// OpenAI's API below /v1: models, chat completions and responses. Closed on AWS by default.
	OpenAI Door `json:"openai"`
	// AG-UI at POST /agents/{agent_id}/agui.
	AGUI Door `json:"agui"`
}

// MCPDoor is the door for MCP.
type MCPDoor struct {
	// Whether the door is open. A closed door has no routes.
	Enabled *bool `json:"enabled" absent:"true; false on AWS"`
	// Audiences beside public_url + /mcp: the aud claim of a token must have one of them at this door, whatever other
	// audiences it needs elsewhere. Tokens without one are refused there.
	Audience []string `json:"audience" example:"[\"https://old.example.com/mcp\"]"`
}

// Door is one protocol.
type Door struct {
	// Whether the door is open. A closed door has no routes.
	Enabled *bool `json:"enabled" absent:"true; false on AWS for mcp and openai"`
}

// Auth configures which tokens are accepted and how they are read.
type Auth struct {
	// The signature algorithms that are accepted. HMAC algorithms (HS…) and public-key algorithms
	// cannot be mixed. EdDSA and Ed25519 (RFC 9864) are two names of one algorithm.
	Algorithms []string `json:"algorithms" default:"HS256" min:"1" enum:"HS256,HS384,HS512,RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512,EdDSA,Ed25519"`
	// Verification keys, in rotation order. If there are several, an entry that is only a variable set
	// to an empty value is left out: see keys.md.
	Keys []Key `json:"keys" absent:"required, except with --dev"`
	// Whether the aud claim of a token must contain one of audience.
	VerifyAudience bool `json:"verify_audience" default:"false"`
	// The audiences that are accepted.
	Audience []string `json:"audience" min:"1" absent:"[id]"`
	// The iss claim that every token must have.
	Issuer string `json:"issuer" absent:"any issuer" example:"https://issuer.example.com"`
	// The issuer whose users own their data under the bare subject, or none; the data of others is stored under issuer
	// and subject. The database records it when it is first used, and a later value must agree with that: see
	// operating.md.
	HomeIssuer string `json:"home_issuer" absent:"the recorded issuer, at first the only one" example:"https://issuer.example.com"`
	// Whether a token without an exp claim is rejected. Set false for the behavior of AgentOS 3.1.10,
	// which accepts such tokens.
	RequireExp bool `json:"require_exp" default:"true"`
	// The tolerated difference between the clocks of the issuer and this server.
	Leeway time.Duration `json:"leeway" default:"10s" min:"0s" max:"10m"`
	// The claims that are read.
	Claims Claims `json:"claims"`
	// What a role or group grants: its name to a list of scopes. The values of the claims in claims.roles count only
	// through these names, so nobody becomes an administrator by the name of a group.
	Grants Grants `json:"grants" example:"{web-users: [\"agents:web-search-agent:run\"]}"`
	// What each caller with a role or group may use: its name to limits. Of several roles the largest value counts. The
	// name * stands for every caller, and counts where none of the caller's roles sets a limit: see budgets.md.
	Limits RoleLimits `json:"limits" absent:"no limit for a caller" example:"{\"*\": {concurrent_runs: 5}, staff: {concurrent_runs: 20}}"`
	// The scope that allows everything. If it is set to another one, agent_os:admin is an ordinary
	// scope.
	AdminScope string `json:"admin_scope" default:"agent_os:admin" pattern:"^\\S+$"`
	// Whether callers see only their own sessions, runs and memories. The default of AgentOS 3.1.10 is
	// false.
	UserIsolation bool `json:"user_isolation" default:"true"`
	// Replaces the scopes that a route needs: "METHOD /path" to a list of scopes, all of which are
	// needed. A scope is resource:action or resource:id:action. A * in a path matches any text, slashes included.
	// The most specific pattern wins: an exact path, then the longest literal prefix, then the order in the file.
	ScopeMappings []ScopeMapping `json:"scope_mappings" example:"{\"GET /agents\": [app:read]}"`
}

// Key is one source of verification keys. Exactly one of Literal, JWKSFile, JWKSURL, Discovery and
// Secret is set.
type Key struct {
	// An HMAC secret of at least 32 bytes, or a PEM public key: what the text form has, for an entry with other fields
	// beside it.
	Literal Secret `json:"key" example:"${JWT_VERIFICATION_KEY}"`
	// FromVariable reports whether Literal came from a variable, and not from the file itself.
	FromVariable bool `json:"-"`

	// A JWKS file. A relative path starts at the directory of keyway.yaml.
	JWKSFile string `json:"jwks_file" example:"keys.json"`
	// The address of a JWKS, which is fetched and refreshed: see keys.md. It must be https, except with http: true; with
	// --dev, http on a loopback address is accepted too.
	JWKSURL string `json:"jwks_url" example:"https://issuer.example.com/.well-known/jwks.json"`
	// The ARN of an AWS Secrets Manager secret, which is fetched and refreshed: see keys.md. Its text is
	// an HMAC secret, a PEM public key or a JWKS.
	Secret string `json:"secret" pattern:"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+$" example:"arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf"`
	// The address of an issuer, or of its metadata document (OpenID Connect Discovery, RFC 8414), which names the address
	// of its keys. Both are fetched and refreshed: see keys.md. The issuer in the document must be the one asked for.
	Discovery string `json:"discovery" example:"https://issuer.example.com"`
	// The only iss claim that tokens of these keys can have. A list holds spellings of one issuer, which has one set of
	// users: tenants are entries of their own. Required of each jwks_url if there are several.
	Issuer Texts `json:"issuer" min:"1" absent:"any issuer, or that of discovery"`
	// Audiences: a token of these keys must name one of them, whatever the value of verify_audience.
	Audience []string `json:"audience" min:"1" absent:"any"`
	// Clients: at least one of the claims azp, client_id and cid must be present, and each that is present must be one of
	// these. For issuers whose tokens have no audience.
	Clients []string `json:"clients" min:"1" absent:"any" example:"[my-web-app]"`
	// The claims that are read from tokens of these keys. Each replaces the one of auth.claims.
	Claims KeyClaims `json:"claims"`
	// Only the values of claims.scopes that begin with this text count, and without it. Values of claims.roles have no
	// prefix.
	Prefix string `json:"prefix" example:"my-agent-os/"`
	// What a role or group of this issuer grants. It replaces auth.grants.
	Grants Grants `json:"grants" absent:"auth.grants"`
	// What callers of this issuer may use, by role or group. It replaces auth.limits.
	Limits RoleLimits `json:"limits" absent:"auth.limits"`
	// The kinds of tokens that are accepted besides access tokens: ID tokens, and tokens that are bound to a key (cnf)
	// and sent without its proof. Both are refused otherwise.
	Accept []string `json:"accept" enum:"id_token,bound"`
	// The certificate of the CA that signed the certificate of jwks_url and discovery: a file or PEM text. Only this
	// CA is trusted for them. A relative path starts at the directory of keyway.yaml. keyway build copies the file.
	CA string `json:"ca" absent:"the CAs of the system" example:"ca.pem"`
	// Whether jwks_url and discovery can be http, at a private or loopback address only. For a service name inside a
	// compose network or a cluster, or a sidecar.
	HTTP bool `json:"http" absent:"false"`
}

// Claims are the claims that are read.
type Claims struct {
	// The claims with the scopes. What they contain is added up. With an empty list no claim holds scopes, and only roles
	// grant something.
	Scopes Sources `json:"scopes" default:"scopes"`
	// The claims with roles or groups. A value grants what grants says of it, and nothing else.
	Roles Sources `json:"roles" min:"1" example:"{path: [realm_access, roles]}"`
	// The claim with the caller's identity, the owner of sessions and memories.
	Subject ClaimSource `json:"subject" default:"sub" min:"1"`
	// The claim with the session that a token is bound to, if any. The token then reaches no other session and no run of
	// another one.
	Session ClaimSource `json:"session" default:"session_id" min:"1"`
	// The claim with limits of the caller: an object with the names of limits. It can only lower what the file allows.
	Limits ClaimSource `json:"limits" absent:"no claim is read" example:"lim"`
}

// ClaimSource is a place in the claims of a token. Exactly one of Claim and Path is set.
type ClaimSource struct {
	// The name of a claim. Dots and slashes are part of the name.
	Claim string `json:"claim" example:"scope"`
	// Whether a text holds several values, with spaces between them. An element of a list is never split.
	Split *bool `json:"split" absent:"true for the claims scope and scp (RFC 8693, RFC 9068), else false"`
	// The names that lead to a value inside an object.
	Path []string `json:"path" min:"1" example:"[realm_access, roles]"`
}

// KeyClaims are the claims that are read from the tokens of one source.
type KeyClaims struct {
	// The claims with the scopes. With an empty list no claim holds scopes.
	Scopes Sources `json:"scopes" absent:"auth.claims.scopes"`
	// The claims with roles or groups.
	Roles Sources `json:"roles" min:"1" absent:"auth.claims.roles"`
	// The claim with the caller's identity.
	Subject ClaimSource `json:"subject" absent:"auth.claims.subject"`
	// The claim with the session that a token is bound to, if any.
	Session ClaimSource `json:"session" absent:"auth.claims.session"`
	// The claim with limits of the caller.
	Limits ClaimSource `json:"limits" absent:"auth.claims.limits"`
}

// ScopeMapping replaces the scopes that the matching routes need. Mappings keep the order of the
// file, which decides between two equally specific patterns.
type ScopeMapping struct {
	// Method is in upper case.
	Method string
	// Pattern is a path. A * matches any text, slashes included.
	Pattern string
	// Scopes are all needed. There is at least one.
	Scopes []string
}

// CORS configures which web pages can call this OS from a browser.
type CORS struct {
	// Origins as scheme://host[:port]; "*" is not accepted. An empty list allows none.
	Origins []string `json:"origins" absent:"AgentOS's list with --dev, otherwise none" example:"[http://localhost:3000]"`
}

// secretPattern is the form of the ARN of a Secrets Manager secret. The tag of Key.Secret repeats it.
const secretPattern = `^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+$`

// Database configures where data is stored.
type Database struct {
	// The PostgreSQL address. The forms of SQLAlchemy, such as postgresql+psycopg://, are accepted.
	URL URL `json:"url" absent:"$DATABASE_URL, else the embedded PostgreSQL" example:"${DATABASE_URL}"`
	// The schema with the tables. A schema belongs to one OS.
	Schema string `json:"schema" default:"keyway" pattern:"^[a-z_][a-z0-9_]{0,62}$"`

	// Secret is $DATABASE_SECRET: the ARN of the secret that contains the address. Empty if URL is set.
	Secret string `json:"-"`
	// IAM is $DATABASE_IAM: whether the password of each connection is an RDS authentication token of
	// AWS IAM.
	IAM bool `json:"-"`
	// Role is $DATABASE_ROLE: the role that a migration grants reading and writing of rows. If empty,
	// only the owner of the schema has access.
	Role string `json:"-"`
}

// Retention configures after which time data is deleted, for example 30d or 12h. What has not ended is kept: a run
// that waits for a person, and its session.
type Retention struct {
	// How long the events of a streamed run are kept after its end. Without them the run can be read, and its stream
	// can't be replayed.
	Events time.Duration `json:"events" absent:"as long as the run" min:"1h" max:"87600h" example:"30d"`
	// How long a run is kept after its end. Its session is kept, without what the run has added to the conversation.
	Runs time.Duration `json:"runs" absent:"as long as the session" min:"1h" max:"87600h" example:"90d"`
	// How long a session is kept after its last change, with its runs.
	Sessions time.Duration `json:"sessions" absent:"until somebody deletes it" min:"1h" max:"87600h" example:"365d"`
	// How long keyway serve keeps the lines of decisions.jsonl and refusals.jsonl, at least; a line is gone after twice
	// this time. On AWS the parameter LogRetention of the template decides, and this has no effect.
	Decisions time.Duration `json:"decisions" absent:"while newer lines leave room" min:"1h" max:"87600h" example:"90d"`
	// The same for audit.jsonl.
	Audit time.Duration `json:"audit" absent:"until somebody removes them" min:"1h" max:"87600h" example:"3650d"`
}

// Notify configures a webhook of the operator's. It gets the ids, the user and the status of a run, and nothing that
// was said. See operating.md.
type Notify struct {
	// Where a POST request is sent to.
	URL URL `json:"url" absent:"no webhook" example:"https://hooks.example.com/keyway"`
	// The key of the signatures after Standard Webhooks: whsec_ and 24 to 64 random bytes in Base64.
	Secret Secret `json:"secret" absent:"required with url" example:"${WEBHOOK_SECRET}"`
	// What is reported.
	On []string `json:"on" absent:"[paused, completed, error]" min:"1" enum:"paused,completed,error,cancelled"`
}

// Egress configures which private addresses a model can make tools reach.
type Egress struct {
	// Private addresses and networks that a model or a redirect can choose. Public addresses are always
	// reachable, and so are the addresses that this file names itself.
	Allow []netip.Prefix `json:"allow" example:"[10.0.0.0/8]"`
}

// Bounds are the most that a request can contain, in bytes or as a number.
type Bounds struct {
	// The message of a run, in bytes.
	Message int `json:"message" default:"1048576" min:"1024" max:"10485760"`
	// The number of files of a run.
	Files int `json:"files" default:"50" min:"1" max:"500"`
	// One file of a run, in bytes.
	FileSize int `json:"file_size" default:"2097152" min:"1024" max:"10485760"`
	// All files of a run together, in bytes.
	FilesSize int `json:"files_size" default:"4194304" min:"1024" max:"10485760"`
	// The tools of a request to continue a run, with their results, in bytes.
	ToolResults int `json:"tool_results" default:"1048576" min:"1024" max:"10485760"`
	// The state of a session, in bytes. A state that is larger already stays readable and may only become smaller.
	SessionState int `json:"session_state" default:"262144" min:"1024" max:"4194304"`
	// The metadata of a session or a run, in bytes.
	Metadata int `json:"metadata" default:"65536" min:"1024" max:"1048576"`
}

// Limits returns the bounds as package bound names them. A bound of 0, as in a Config that Parse has not made, has its
// default.
func (b Bounds) Limits() bound.Limits {
	l := bound.Limits{}
	for of, n := range map[*bound.Bound]int{
		bound.Message: b.Message, bound.Files: b.Files, bound.FileSize: b.FileSize, bound.FilesSize: b.FilesSize,
		bound.ToolResults: b.ToolResults, bound.SessionState: b.SessionState, bound.Metadata: b.Metadata,
	} {
		if n > 0 {
			l[of.Name] = n
		}
	}
	return l
}

// Agent declares one agent.
type Agent struct {
	// The name of the agent in paths and scopes. Unique.
	ID string `json:"id" required:"true" pattern:"^[A-Za-z0-9._-]{1,64}$" example:"web-search-agent"`
	// Display name.
	Name string `json:"name" absent:"the id"`
	// Display text.
	Description string `json:"description"`
	// The language model.
	Model Model `json:"model" required:"true" example:"openai:gpt-4o"`
	// The system prompt of every run.
	Instructions string `json:"instructions"`
	// The tools that the model can call.
	Tools []Tool `json:"tools"`
	// Whether the model gets the earlier runs of the session.
	AddHistoryToContext bool `json:"add_history_to_context" default:"false"`
	// The number of earlier runs that the model gets.
	NumHistoryRuns int `json:"num_history_runs" default:"3" min:"1"`
	// Whether a run can write memories of its user.
	UpdateMemoryOnRun bool `json:"update_memory_on_run" default:"false"`
	// Whether the model gets the current date and time.
	AddDatetimeToContext bool `json:"add_datetime_to_context" default:"false"`
	// Whether the model is asked for Markdown.
	Markdown bool `json:"markdown" default:"false"`
	// The number of tool calls that one run can make.
	ToolCallLimit int `json:"tool_call_limit" min:"1" absent:"no limit"`
	// The time limit of one run.
	Timeout time.Duration `json:"timeout" default:"10m" min:"1ms" max:"24h"`
	// What all runs of the agent may use together, those of all callers; tokens_per_run is each run's.
	Limits Limits `json:"limits"`
}

// Model names one model of one provider.
type Model struct {
	// The provider's API: openai is OpenAI's Chat Completions API, openai-responses OpenAI's Responses
	// API, anthropic Anthropic's Messages API. bedrock is Amazon Bedrock, which uses AWS_REGION and the
	// AWS credentials of the environment. demo works offline and names itself in every answer.
	Provider string `json:"provider" required:"true" enum:"openai,openai-responses,anthropic,bedrock,demo" example:"openai"`
	// The provider's name of the model.
	ID string `json:"id" required:"true" min:"1" example:"gpt-4o"`
	// The address of another server with the provider's API.
	BaseURL URL `json:"base_url" absent:"the provider's own, or its usual variable" example:"http://localhost:11434/v1"`
	// The API key of the provider; bedrock uses none. keyway config check accepts an unset variable with a
	// warning. Without a key the server does not start, except with --dev: the demo model then answers.
	APIKey Secret `json:"api_key" absent:"the provider's usual variable" example:"${OPENAI_API_KEY}"`
	// Headers for the model's server, such as those that a gateway needs, with the rules for headers of
	// an MCP server. They are sent with each request, to this server only, and replace headers that would
	// be sent anyway: with openai, Authorization replaces api_key. bedrock takes none.
	Headers map[string]Secret `json:"headers" example:"{X-Portkey-Provider: openai}"`
	// The sampling temperature.
	Temperature *float64 `json:"temperature" min:"0" max:"2" absent:"the provider's default"`
}

// Tool is a tool known to the program (Name) or an MCP server (MCP), never both.
type Tool struct {
	// Name is the name of a built-in tool, or of a tool that the operator's own program adds.
	Name string `json:"-"`
	// An MCP server (streamable HTTP) with tools that the model can call.
	MCP *MCP `json:"mcp" required:"true" example:"{url: https://docs.agno.com/mcp}"`
}

// MCP configures one MCP server.
type MCP struct {
	// The address of the server.
	URL URL `json:"url" required:"true" min:"1" example:"https://docs.agno.com/mcp"`
	// Headers that are sent to this address only, never after a redirect: at most 32, each of at most
	// 8,192 bytes. Headers of the protocol itself, such as Content-Type and Host, can't be set.
	Headers map[string]Secret `json:"headers" example:"{Authorization: \"Bearer ${TOKEN}\"}"`
	// The names of the tools that the model can call.
	Allow []string `json:"allow" min:"1" absent:"all of them"`
	// How long one call can take. A server that reports progress gets this time anew with each report, up to 10 minutes
	// in all.
	Timeout time.Duration `json:"timeout" default:"60s" min:"1s" max:"10m"`
}

// Limits are the limits of package limit, to which they convert. 0 is no limit.
type Limits struct {
	// The number of runs that execute at the same time.
	ConcurrentRuns int `json:"concurrent_runs" min:"1" max:"1000000000000" absent:"no limit"`
	// The number of background runs that wait for a worker.
	WaitingRuns int `json:"waiting_runs" min:"1" max:"1000000000000" absent:"no limit"`
	// The number of runs that begin in a minute.
	RunsPerMinute int `json:"runs_per_minute" min:"1" max:"1000000000000" absent:"no limit"`
	// The number of runs that begin in a day of UTC.
	RunsPerDay int `json:"runs_per_day" min:"1" max:"1000000000000" absent:"no limit"`
	// The number of model tokens of one run, input and output together. A run that has used them ends at its next step.
	TokensPerRun int `json:"tokens_per_run" min:"1" max:"1000000000000" absent:"no limit"`
	// The number of model tokens of all runs of a day of UTC.
	TokensPerDay int `json:"tokens_per_day" min:"1" max:"1000000000000" absent:"no limit"`
	// The cost in US dollars of all runs of a day of UTC, by prices.
	USDPerDay float64 `json:"usd_per_day" min:"0.01" max:"1000000000000" absent:"no limit"`
}

// Price is what the tokens of a model cost.
type Price struct {
	// US dollars for 1,000,000 tokens that the model reads.
	Input float64 `json:"input" required:"true" min:"0" max:"1000000" example:"2.5"`
	// US dollars for 1,000,000 tokens that the model writes.
	Output float64 `json:"output" required:"true" min:"0" max:"1000000" example:"10"`
}
