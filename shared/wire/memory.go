package wire

// Memory is a fact about a user (AgentOS's UserMemorySchema). Every member is present.
type Memory struct {
	MemoryID  string   `json:"memory_id"`
	Memory    string   `json:"memory"`
	Topics    []string `json:"topics"`
	AgentID   *string  `json:"agent_id"`
	TeamID    *string  `json:"team_id"`
	UserID    string   `json:"user_id"`
	UpdatedAt Time     `json:"updated_at"`
}

// MemoryStats are the number of a user's memories and the time of the last change.
type MemoryStats struct {
	UserID              string `json:"user_id"`
	TotalMemories       int    `json:"total_memories"`
	LastMemoryUpdatedAt Time   `json:"last_memory_updated_at"`
}

// MergedMemories is the answer after a model has merged several memories into fewer ones.
type MergedMemories struct {
	// Memories are those that the user has now.
	Memories            []Memory `json:"memories"`
	MemoriesBefore      int      `json:"memories_before"`
	MemoriesAfter       int      `json:"memories_after"`
	TokensBefore        int      `json:"tokens_before"`
	TokensAfter         int      `json:"tokens_after"`
	TokensSaved         int      `json:"tokens_saved"`         // never below 0
	ReductionPercentage float64  `json:"reduction_percentage"` // 0 to 100
}
