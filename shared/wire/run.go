package wire

import "encoding/json"

// The statuses of a run. PENDING is claimed by no process yet, PAUSED waits for a person's
// decision, and COMPLETED, ERROR and CANCELLED are final.
const (
	StatusPending   = "PENDING"
	StatusRunning   = "RUNNING"
	StatusPaused    = "PAUSED"
	StatusCompleted = "COMPLETED"
	StatusError     = "ERROR"
	StatusCancelled = "CANCELLED"
)

// The roles of messages that are not part of a session's chat history.
const (
	RoleSystem = "system"
	RoleTool   = "tool"
)

// Run is a run in the answers of its agent's routes (AgentOS's RunOutput). Absent members
// are left out. Members that are stored as JSON are written as they were stored.
type Run struct {
	RunID             string          `json:"run_id"`
	AgentID           string          `json:"agent_id"`
	AgentName         string          `json:"agent_name"`
	SessionID         string          `json:"session_id"`
	UserID            string          `json:"user_id,omitempty"`
	Content           *string         `json:"content,omitempty"` // the answer; nil before there is any
	ContentType       string          `json:"content_type"`      // "str"
	ReasoningContent  *string         `json:"reasoning_content,omitempty"`
	ModelProviderData json.RawMessage `json:"model_provider_data,omitempty" holds:"object"`
	Model             string          `json:"model"`
	ModelProvider     string          `json:"model_provider"`
	SessionState      json.RawMessage `json:"session_state,omitempty" holds:"object"`
	CreatedAt         int64           `json:"created_at"` // seconds
	Status            string          `json:"status"`
	CancellationStage string          `json:"cancellation_stage,omitempty"`
	Metrics           json.RawMessage `json:"metrics" holds:"Metrics"`
	Events            json.RawMessage `json:"events,omitempty" holds:"object[]"`
	Messages          json.RawMessage `json:"messages,omitempty" holds:"Message[]"`
	Metadata          json.RawMessage `json:"metadata,omitempty" holds:"object"`
	Tools             json.RawMessage `json:"tools,omitempty" holds:"ToolExecution[]"`
	Requirements      json.RawMessage `json:"requirements,omitempty" holds:"Requirement[]"`
	Input             RunInput        `json:"input"`
}

// Ended reports whether a run with this status has ended or is paused. Then no further
// event follows without another request.
func Ended(status string) bool { return status != StatusRunning && status != StatusPending }

// RunInput is what the caller sent to start the run.
type RunInput struct {
	InputContent string          `json:"input_content"`
	Files        json.RawMessage `json:"files,omitempty" holds:"File[]"`
}

// Message is one message of the conversation with the model. Role is "system", "user",
// "assistant" or "tool". FromHistory marks messages of earlier runs of the session.
type Message struct {
	ID                string          `json:"id"`
	Content           string          `json:"content,omitempty"`
	ReasoningContent  string          `json:"reasoning_content,omitempty"`
	FromHistory       bool            `json:"from_history"`
	StopAfterToolCall bool            `json:"stop_after_tool_call"`
	Role              string          `json:"role"`
	Files             []File          `json:"files,omitempty"`
	ToolCallID        string          `json:"tool_call_id,omitempty"`
	ToolName          string          `json:"tool_name,omitempty"`
	ToolArgs          json.RawMessage `json:"tool_args,omitempty" holds:"object"`
	ToolCallError     *bool           `json:"tool_call_error,omitempty"`
	ToolCalls         []ToolCall      `json:"tool_calls,omitempty"`
	ProviderData      json.RawMessage `json:"provider_data,omitempty" holds:"object"`
	Metrics           *MessageMetrics `json:"metrics,omitempty"`
	CreatedAt         int64           `json:"created_at"`
}

// ToolCall is a model's request to call a tool, in OpenAI's shape.
type ToolCall struct {
	ID       string       `json:"id"`
	Function ToolFunction `json:"function"`
	Type     string       `json:"type"`
}

// ToolFunction names the tool. Arguments is the JSON text as the model wrote it, which may
// be invalid.
type ToolFunction struct {
	Arguments string `json:"arguments"`
	Name      string `json:"name"`
}

// Metrics are the tokens and the time that a run used. Times are in seconds.
type Metrics struct {
	InputTokens      int             `json:"input_tokens,omitempty"`
	OutputTokens     int             `json:"output_tokens,omitempty"`
	TotalTokens      int             `json:"total_tokens,omitempty"`
	Cost             float64         `json:"cost,omitempty"` // in US dollars
	TimeToFirstToken float64         `json:"time_to_first_token,omitempty"`
	Duration         float64         `json:"duration,omitempty"`
	Details          *MetricsDetails `json:"details,omitempty"`
}

// MetricsDetails divides the tokens by model.
type MetricsDetails struct {
	Model []ModelMetrics `json:"model"`
}

// ModelMetrics are the tokens of one model.
type ModelMetrics struct {
	InputTokens  int    `json:"input_tokens"`
	OutputTokens int    `json:"output_tokens"`
	TotalTokens  int    `json:"total_tokens"`
	ID           string `json:"id"`
	Provider     string `json:"provider"`
}

// MessageMetrics are the tokens and the time of one answer of the model. Times are in
// seconds.
type MessageMetrics struct {
	InputTokens      int     `json:"input_tokens,omitempty"`
	OutputTokens     int     `json:"output_tokens,omitempty"`
	TotalTokens      int     `json:"total_tokens,omitempty"`
	Duration         float64 `json:"duration"`
	TimeToFirstToken float64 `json:"time_to_first_token,omitempty"`
}

// StoredRun is a run in lists of runs (AgentOS's RunSchema). The list of an agent's runs
// and the route of a single run write it Whole; the list of a session's runs leaves absent
// members out. Members for features that Keyway doesn't have are null or empty.
type StoredRun struct {
	RunID                        string          `json:"run_id"`
	ParentRunID                  string          `json:"parent_run_id"`
	AgentID                      string          `json:"agent_id"`
	UserID                       string          `json:"user_id,omitempty"`
	Status                       string          `json:"status"`
	CancellationStage            *string         `json:"cancellation_stage,omitempty"`
	RunInput                     string          `json:"run_input"`
	Content                      *string         `json:"content,omitempty"`
	RunResponseFormat            string          `json:"run_response_format"`
	ReasoningContent             string          `json:"reasoning_content"`
	ReasoningSteps               []any           `json:"reasoning_steps"`
	Metrics                      json.RawMessage `json:"metrics,omitempty" holds:"Metrics"`
	Metadata                     json.RawMessage `json:"metadata,omitempty" holds:"object"`
	Messages                     json.RawMessage `json:"messages,omitempty" holds:"Message[]"`
	Tools                        json.RawMessage `json:"tools,omitempty" holds:"ToolExecution[]"`
	Events                       json.RawMessage `json:"events,omitempty" holds:"object[]"`
	CreatedAt                    Time            `json:"created_at"`
	References                   []any           `json:"references"`
	Citations                    json.RawMessage `json:"citations,omitempty" holds:"any"`
	ReasoningMessages            []any           `json:"reasoning_messages"`
	SessionState                 json.RawMessage `json:"session_state,omitempty" holds:"object"`
	Images                       []any           `json:"images"`
	Videos                       []any           `json:"videos"`
	Audio                        []any           `json:"audio"`
	Files                        []any           `json:"files"`
	ResponseAudio                json.RawMessage `json:"response_audio,omitempty" holds:"any"`
	InputMedia                   InputMedia      `json:"input_media"`
	Followups                    []string        `json:"followups,omitempty"`
	ForkedFromRunID              *string         `json:"forked_from_run_id,omitempty"`
	ForkedFromMessageIndex       *int            `json:"forked_from_message_index,omitempty"`
	ForkedFromSessionID          *string         `json:"forked_from_session_id,omitempty"`
	RegeneratedFrom              *string         `json:"regenerated_from,omitempty"`
	LastCheckpointAtMessageIndex *int            `json:"last_checkpoint_at_message_index,omitempty"`
}

// RunPreview is a run in a list that clients request often, without its messages.
type RunPreview struct {
	RunID          string  `json:"run_id"`
	ParentRunID    string  `json:"parent_run_id"`
	AgentID        string  `json:"agent_id"`
	UserID         string  `json:"user_id,omitempty"`
	Status         string  `json:"status"`
	RunInput       string  `json:"run_input"`
	ContentPreview *string `json:"content_preview,omitempty"`
	CreatedAt      Time    `json:"created_at"`
}

// InputMedia lists the media of a run's input. Keyway accepts files with text only, so
// that the first three are empty.
type InputMedia struct {
	Images []any `json:"images"`
	Videos []any `json:"videos"`
	Audios []any `json:"audios"`
	Files  any   `json:"files" holds:"File[]"`
}
