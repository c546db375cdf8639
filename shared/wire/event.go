package wire

import "encoding/json"

// Event is one server-sent event of a run. Its name stands in the frame's
// event: line and again in the JSON, as AgentOS sends it.
type Event interface {
	Name() string
}

// Head is what every event of a run begins with.
type Head struct {
	CreatedAt   int64  `json:"created_at"` // seconds
	Event       string `json:"event"`
	AgentID     string `json:"agent_id"`
	AgentName   string `json:"agent_name"`
	RunID       string `json:"run_id"`
	SessionID   string `json:"session_id"`
	NestedDepth int    `json:"nested_depth"`
}

// Name is the event's name.
func (h Head) Name() string { return h.Event }

// Names of the events that Keyway sends.
const (
	EventRunStarted            = "RunStarted"
	EventModelRequestStarted   = "ModelRequestStarted"
	EventRunContent            = "RunContent"
	EventModelRequestCompleted = "ModelRequestCompleted"
	EventRunContentCompleted   = "RunContentCompleted"
	EventToolCallStarted       = "ToolCallStarted"
	EventToolCallCompleted     = "ToolCallCompleted"
	EventToolCallError         = "ToolCallError"
	EventRunPaused             = "RunPaused"
	EventRunContinued          = "RunContinued"
	EventRunCompleted          = "RunCompleted"
	EventRunError              = "RunError"
	EventRunCancelled          = "RunCancelled"
)

// Started opens a run (RunStarted) or one call of its model (ModelRequestStarted).
type Started struct {
	Head
	Model         string `json:"model"`
	ModelProvider string `json:"model_provider"`
	EventIndex    int    `json:"event_index"`
}

// Content is a piece of the answer.
type Content struct {
	Head
	Content           string          `json:"content"`
	WorkflowAgent     bool            `json:"workflow_agent"`
	ContentType       string          `json:"content_type"`
	ReasoningContent  string          `json:"reasoning_content"`
	ModelProviderData json.RawMessage `json:"model_provider_data,omitempty" holds:"object"`
	EventIndex        int             `json:"event_index"`
}

// ContentOpened is the RunContent that comes before an answer's first piece when
// the vendor names the answer first: its marks, and no content.
type ContentOpened struct {
	Head
	WorkflowAgent     bool            `json:"workflow_agent"`
	ContentType       string          `json:"content_type"`
	ReasoningContent  string          `json:"reasoning_content"`
	ModelProviderData json.RawMessage `json:"model_provider_data,omitempty" holds:"object"`
	EventIndex        int             `json:"event_index"`
}

// ModelCompleted closes one call of the model with what it cost.
type ModelCompleted struct {
	Head
	Model            string  `json:"model"`
	ModelProvider    string  `json:"model_provider"`
	InputTokens      int     `json:"input_tokens"`
	OutputTokens     int     `json:"output_tokens"`
	TotalTokens      int     `json:"total_tokens"`
	TimeToFirstToken float64 `json:"time_to_first_token,omitempty"` // seconds
	ReasoningTokens  int     `json:"reasoning_tokens"`
	CacheReadTokens  int     `json:"cache_read_tokens"`
	CacheWriteTokens int     `json:"cache_write_tokens"`
	EventIndex       int     `json:"event_index"`
}

// ToolStarted says that a tool was called.
type ToolStarted struct {
	Head
	EventIndex int           `json:"event_index"`
	Tool       ToolExecution `json:"tool"`
}

// ToolCompleted says what came of it, also when that was an error.
type ToolCompleted struct {
	Head
	Content    string        `json:"content"` // for people
	EventIndex int           `json:"event_index"`
	Tool       ToolExecution `json:"tool"`
}

// ToolFailed says so of a call that failed.
type ToolFailed struct {
	Head
	Error      string        `json:"error"`
	EventIndex int           `json:"event_index"`
	Tool       ToolExecution `json:"tool"`
}

// Paused is the last event of a run that waits for a person.
type Paused struct {
	Head
	Content      string          `json:"content"`
	EventIndex   int             `json:"event_index"`
	Tools        []ToolExecution `json:"tools"`
	Requirements []Requirement   `json:"requirements"`
}

// ContentCompleted says that no more content follows (RunContentCompleted), or that
// a paused run goes on (RunContinued).
type ContentCompleted struct {
	Head
	EventIndex int `json:"event_index"`
}

// Completed is the last event of a run that succeeded.
type Completed struct {
	Head
	Content           string          `json:"content"`
	ContentType       string          `json:"content_type"`
	ModelProviderData json.RawMessage `json:"model_provider_data,omitempty" holds:"object"`
	SessionState      json.RawMessage `json:"session_state" holds:"object"`
	EventIndex        int             `json:"event_index"`
	Metrics           Metrics         `json:"metrics"`
}

// Failed is the last event of a run that did not (RunError).
type Failed struct {
	Head
	Content    string `json:"content"` // the reason
	ErrorType  string `json:"error_type"`
	EventIndex int    `json:"event_index"`
}

// Cancelled is the last event of a cancelled run.
type Cancelled struct {
	Head
	Content    string `json:"content"` // what was said until then
	Reason     string `json:"reason"`
	EventIndex int    `json:"event_index"`
}

// Meta is an event about a stream rather than of its run: what resume sends first.
type Meta struct {
	Event                   string `json:"event"` // "replay", "catch_up", "subscribed", "error"
	RunID                   string `json:"run_id,omitempty"`
	Status                  string `json:"status,omitempty"`
	TotalEvents             *int   `json:"total_events,omitempty"`
	TotalBuffered           *int   `json:"total_buffered,omitempty"`
	LastEventIndexRequested *int   `json:"last_event_index_requested,omitempty"`
	MissedEvents            *int   `json:"missed_events,omitempty"`
	CurrentEventCount       *int   `json:"current_event_count,omitempty"`
	Message                 string `json:"message,omitempty"`
	Error                   string `json:"error,omitempty"`
}

// Name is the event's name.
func (m Meta) Name() string { return m.Event }
