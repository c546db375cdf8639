package wire

// ActiveRun is a run that has not ended, for administrators. AgentOS has no such type.
type ActiveRun struct {
	RunID     string `json:"run_id"`
	SessionID string `json:"session_id"`
	AgentID   string `json:"agent_id"`
	UserID    string `json:"user_id"`
	Status    string `json:"status"`
	CreatedAt Time   `json:"created_at"`
	Attempt   int    `json:"attempt"`
}

// CancelledRuns is the answer to a request to cancel all runs of a user, or of everybody.
type CancelledRuns struct {
	// Cancelled is the number of runs that are to be cancelled or have been.
	Cancelled int `json:"cancelled"`
	// More means that the same request must be sent again for the rest.
	More bool `json:"more"`
}
