package wire

// Memory is a fact about a user (AgentOS's UserMemorySchema): every member is
// present.
type Memory struct {
	MemoryID  string   `json:"memory_id"`
	Memory    string   `json:"memory"`
	Topics    []string `json:"topics"`
	AgentID   *string  `json:"agent_id"`
	TeamID    *string  `json:"team_id"`
	UserID    string   `json:"user_id"`
	UpdatedAt Time     `json:"updated_at"`
}

// MemoryStats counts one user's memories.
type MemoryStats struct {
	UserID              string `json:"user_id"`
	TotalMemories       int    `json:"total_memories"`
	LastMemoryUpdatedAt Time   `json:"last_memory_updated_at"`
}
