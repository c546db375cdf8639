package wire

import "encoding/json"

// Page is one page of a list. Data must not be nil: AgentOS writes an empty list as [].
type Page[T any] struct {
	Data []T      `json:"data"`
	Meta PageMeta `json:"meta"`
}

// PageMeta describes a page: its number from 1, its size, and the size of the list.
type PageMeta struct {
	Page         int     `json:"page"`
	Limit        int     `json:"limit"`
	TotalPages   int     `json:"total_pages"`
	TotalCount   int     `json:"total_count"`
	SearchTimeMS float64 `json:"search_time_ms"`
}

// PageOf returns the PageMeta of a list with total elements. SearchTimeMS is 0, as in
// AgentOS. The limit must not be 0.
func PageOf(page, limit, total int) PageMeta {
	return PageMeta{Page: page, Limit: limit, TotalPages: (total + limit - 1) / limit, TotalCount: total}
}

// Session is one session in a list, without its conversation. SessionState is what the
// client stores with the session; Keyway doesn't interpret it. SessionType is "agent",
// "team" or "workflow".
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
	// Omitted names the members that are too large for a list. AgentOS's sessions don't have it.
	Omitted []string `json:"omitted,omitempty"`
}

// SessionDetail is one session with its conversation. The routes that change a session
// write it Whole.
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
	Metrics        any             `json:"metrics,omitempty" holds:"SessionMetrics|object"` // {} before the first run
	Metadata       json.RawMessage `json:"metadata,omitempty" holds:"object"`
	ChatHistory    json.RawMessage `json:"chat_history" holds:"Message[]"`
	CreatedAt      Time            `json:"created_at"`
	UpdatedAt      Time            `json:"updated_at"`
}

// TeamSessionDetail is one session in the shape of a team's. Keyway has no teams, but
// AgentOS's clients may ask for any session in this shape.
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

// WorkflowSessionDetail is one session in the shape of a workflow's.
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

// AgentData describes the agent that a session belongs to.
type AgentData struct {
	Name    string         `json:"name"`
	Model   AgentDataModel `json:"model"`
	AgentID string         `json:"agent_id"`
}

// AgentDataModel describes the model of that agent.
type AgentDataModel struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Provider string `json:"provider"`
}

// SessionMetrics are the tokens of all runs of a session.
type SessionMetrics struct {
	Details      SessionMetricsDetails `json:"details"`
	InputTokens  int                   `json:"input_tokens"`
	TotalTokens  int                   `json:"total_tokens"`
	OutputTokens int                   `json:"output_tokens"`
}

// SessionMetricsDetails divides the tokens by model.
type SessionMetricsDetails struct {
	Model []SessionModelMetrics `json:"model"`
}

// SessionModelMetrics are the tokens of one model.
type SessionModelMetrics struct {
	ID           string `json:"id"`
	Provider     string `json:"provider"`
	InputTokens  int    `json:"input_tokens"`
	TotalTokens  int    `json:"total_tokens"`
	OutputTokens int    `json:"output_tokens"`
}
