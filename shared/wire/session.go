package wire

import "encoding/json"

// Page is one page of a list.
type Page[T any] struct {
	Data []T      `json:"data"`
	Meta PageMeta `json:"meta"`
}

// PageMeta says which page of how many.
type PageMeta struct {
	Page         int     `json:"page"`
	Limit        int     `json:"limit"`
	TotalPages   int     `json:"total_pages"`
	TotalCount   int     `json:"total_count"`
	SearchTimeMS float64 `json:"search_time_ms"`
}

// PageOf says so of a list of total elements. SearchTimeMS is 0, as AgentOS's is.
func PageOf(page, limit, total int) PageMeta {
	return PageMeta{Page: page, Limit: limit, TotalPages: (total + limit - 1) / limit, TotalCount: total}
}

// Session is a session in a list.
type Session struct {
	SessionID    string          `json:"session_id"`
	SessionName  string          `json:"session_name"`
	SessionState json.RawMessage `json:"session_state,omitempty" holds:"object"`
	CreatedAt    Time            `json:"created_at"`
	UpdatedAt    Time            `json:"updated_at"`
	SessionType  string          `json:"session_type"`
	UserID       string          `json:"user_id,omitempty"`
	AgentID      string          `json:"agent_id,omitempty"`
	TeamID       string          `json:"team_id,omitempty"`
	WorkflowID   string          `json:"workflow_id,omitempty"`
	Summary      json.RawMessage `json:"session_summary,omitempty" holds:"object"`
	Metrics      *SessionMetrics `json:"metrics,omitempty"`
	TotalTokens  int             `json:"total_tokens,omitempty"`
	Metadata     json.RawMessage `json:"metadata,omitempty" holds:"object"`
}

// SessionDetail is one session with its conversation. Routes that change it show
// it Whole.
type SessionDetail struct {
	UserID         string          `json:"user_id,omitempty"`
	AgentSessionID string          `json:"agent_session_id"`
	SessionID      string          `json:"session_id"`
	SessionName    string          `json:"session_name"`
	Summary        json.RawMessage `json:"session_summary,omitempty" holds:"object"`
	SessionState   json.RawMessage `json:"session_state,omitempty" holds:"object"`
	AgentID        string          `json:"agent_id,omitempty"`
	TotalTokens    int             `json:"total_tokens,omitempty"`
	AgentData      *AgentData      `json:"agent_data,omitempty"`
	Metrics        any             `json:"metrics,omitempty" holds:"SessionMetrics|object"` // {} while there are none
	Metadata       json.RawMessage `json:"metadata,omitempty" holds:"object"`
	ChatHistory    json.RawMessage `json:"chat_history" holds:"Message[]"`
	CreatedAt      Time            `json:"created_at"`
	UpdatedAt      Time            `json:"updated_at"`
}

// TeamSessionDetail is a session seen as a team's.
type TeamSessionDetail struct {
	SessionID    string          `json:"session_id"`
	SessionName  string          `json:"session_name"`
	UserID       string          `json:"user_id,omitempty"`
	TeamID       string          `json:"team_id,omitempty"`
	Summary      json.RawMessage `json:"session_summary,omitempty" holds:"object"`
	SessionState json.RawMessage `json:"session_state,omitempty" holds:"object"`
	Metrics      any             `json:"metrics,omitempty" holds:"SessionMetrics|object"`
	TeamData     json.RawMessage `json:"team_data,omitempty" holds:"object"`
	Metadata     json.RawMessage `json:"metadata,omitempty" holds:"object"`
	ChatHistory  json.RawMessage `json:"chat_history" holds:"Message[]"`
	CreatedAt    Time            `json:"created_at"`
	UpdatedAt    Time            `json:"updated_at"`
	TotalTokens  int             `json:"total_tokens,omitempty"`
}

// WorkflowSessionDetail is a session seen as a workflow's.
type WorkflowSessionDetail struct {
	UserID       string          `json:"user_id,omitempty"`
	WorkflowID   string          `json:"workflow_id,omitempty"`
	WorkflowName string          `json:"workflow_name,omitempty"`
	SessionID    string          `json:"session_id"`
	SessionName  string          `json:"session_name"`
	SessionData  json.RawMessage `json:"session_data" holds:"object"`
	SessionState json.RawMessage `json:"session_state,omitempty" holds:"object"`
	WorkflowData json.RawMessage `json:"workflow_data" holds:"object"`
	Metadata     json.RawMessage `json:"metadata" holds:"object"`
	CreatedAt    Time            `json:"created_at"`
	UpdatedAt    Time            `json:"updated_at"`
}

// AgentData names the agent that a session belongs to.
type AgentData struct {
	Name    string         `json:"name"`
	Model   AgentDataModel `json:"model"`
	AgentID string         `json:"agent_id"`
}

// AgentDataModel names that agent's model.
type AgentDataModel struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Provider string `json:"provider"`
}

// SessionMetrics is what the runs of a session cost together.
type SessionMetrics struct {
	Details      SessionMetricsDetails `json:"details"`
	InputTokens  int                   `json:"input_tokens"`
	TotalTokens  int                   `json:"total_tokens"`
	OutputTokens int                   `json:"output_tokens"`
}

// SessionMetricsDetails splits the cost by model.
type SessionMetricsDetails struct {
	Model []SessionModelMetrics `json:"model"`
}

// SessionModelMetrics is the share of one model.
type SessionModelMetrics struct {
	ID           string `json:"id"`
	Provider     string `json:"provider"`
	InputTokens  int    `json:"input_tokens"`
	TotalTokens  int    `json:"total_tokens"`
	OutputTokens int    `json:"output_tokens"`
}
