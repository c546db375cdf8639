package wire

import "encoding/json"

// ToolExecution is one call of a tool, from the model's request to its result. Every
// member is present. A member for a feature that Keyway doesn't have is null.
type ToolExecution struct {
	ToolCallID                string          `json:"tool_call_id"`
	ToolName                  string          `json:"tool_name"`
	ToolArgs                  json.RawMessage `json:"tool_args" holds:"object"`
	ToolCallError             *bool           `json:"tool_call_error"`
	Result                    *string         `json:"result"`
	Metrics                   *ToolMetrics    `json:"metrics"`
	ChildRunID                *string         `json:"child_run_id"`
	StopAfterToolCall         bool            `json:"stop_after_tool_call"`
	CreatedAt                 int64           `json:"created_at"` // seconds
	RequiresConfirmation      *bool           `json:"requires_confirmation"`
	Confirmed                 *bool           `json:"confirmed"`
	ConfirmationNote          *string         `json:"confirmation_note"`
	RequiresUserInput         *bool           `json:"requires_user_input"`
	UserInputSchema           []UserInput     `json:"user_input_schema" holds:"UserInput[]|null"`
	UserFeedbackSchema        json.RawMessage `json:"user_feedback_schema" holds:"any"`
	Answered                  *bool           `json:"answered"`
	ExternalExecutionRequired *bool           `json:"external_execution_required"`
	ExternalExecutionSilent   *bool           `json:"external_execution_silent"`
	ApprovalType              *string         `json:"approval_type"`
	ApprovalID                *string         `json:"approval_id"`
	ParentToolCallID          *string         `json:"parent_tool_call_id"`
}

// ToolMetrics are the start and the end of a call in seconds since 1970, and its duration in
// seconds.
type ToolMetrics struct {
	StartTime float64 `json:"start_time"`
	EndTime   float64 `json:"end_time"`
	Duration  float64 `json:"duration"`
}

// UserInput is one argument of a tool call that a person provides. Value is null until
// then.
type UserInput struct {
	Name        string          `json:"name"`
	FieldType   string          `json:"field_type"` // Python's name of the type
	Description *string         `json:"description"`
	Value       json.RawMessage `json:"value" holds:"any"`
}

// Requirement is one tool call that a paused run waits for. UserInputSchema is absent if a
// decision alone is enough.
type Requirement struct {
	ID              string        `json:"id"`
	CreatedAt       ISOTime       `json:"created_at"`
	ToolExecution   ToolExecution `json:"tool_execution"`
	UserInputSchema []UserInput   `json:"user_input_schema,omitempty"`
}

// File is an uploaded file in a run. Content is its text.
type File struct {
	ID       string `json:"id"`
	MimeType string `json:"mime_type"`
	Filename string `json:"filename"`
	Format   string `json:"format"` // the name's extension
	Content  string `json:"content"`
}

// Accepted is the answer to a request whose run continues in the background.
type Accepted struct {
	RunID     string `json:"run_id"`
	SessionID string `json:"session_id"`
	Status    string `json:"status"`
}
