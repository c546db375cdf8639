package wire

import "encoding/json"

// DayMetrics are the metrics of one day of UTC (AgentOS's DayAggregatedMetrics). Keyway has no teams and no workflows.
type DayMetrics struct {
	ID                    string          `json:"id"`
	AgentRunsCount        int             `json:"agent_runs_count"`
	AgentSessionsCount    int             `json:"agent_sessions_count"`
	TeamRunsCount         int             `json:"team_runs_count"`
	TeamSessionsCount     int             `json:"team_sessions_count"`
	WorkflowRunsCount     int             `json:"workflow_runs_count"`
	WorkflowSessionsCount int             `json:"workflow_sessions_count"`
	UsersCount            int             `json:"users_count"`
	TokenMetrics          TokenMetrics    `json:"token_metrics"`
	ModelMetrics          json.RawMessage `json:"model_metrics" holds:"ModelCount[]"`
	Date                  Time            `json:"date"`
	CreatedAt             Time            `json:"created_at"`
	UpdatedAt             Time            `json:"updated_at"`
}

// TokenMetrics are the tokens of a day.
type TokenMetrics struct {
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
	TotalTokens  int64 `json:"total_tokens"`
}

// ModelCount is how many runs of a day had a model.
type ModelCount struct {
	ModelID       string `json:"model_id"`
	ModelProvider string `json:"model_provider"`
	Count         int    `json:"count"`
}

// MetricsList is the answer to GET /metrics.
type MetricsList struct {
	Metrics   []DayMetrics `json:"metrics"`
	UpdatedAt *Time        `json:"updated_at"`
}

// RefreshAccepted is the answer to a request to refresh the metrics in the background.
type RefreshAccepted struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// RefreshStatus is the state of the last refresh of the metrics.
type RefreshStatus struct {
	Status     string  `json:"status"`
	StartedAt  *Time   `json:"started_at"`
	FinishedAt *Time   `json:"finished_at"`
	Error      *string `json:"error"`
}

// DayUsage is what the runs of one agent, user and model that ended on one day of UTC have used. Cost is in US dollars,
// and null if the model had no price. AgentOS has no such type.
type DayUsage struct {
	Day           string   `json:"day"`
	AgentID       string   `json:"agent_id"`
	UserID        string   `json:"user_id"`
	Model         string   `json:"model"`
	ModelProvider string   `json:"model_provider"`
	Runs          int      `json:"runs"`
	InputTokens   int64    `json:"input_tokens"`
	OutputTokens  int64    `json:"output_tokens"`
	Cost          *float64 `json:"cost"`
}
