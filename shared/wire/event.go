package wire

import "encoding/json"

// Event is one server-sent event. Its name is in the "event:" line of the frame and again
// in the JSON, as in AgentOS.
type Event interface {
	// Name returns the name, which must not contain a line end.
	Name() string
}

// Head are the members that every event of a run begins with.
type Head struct {
	CreatedAt   int64  `json:"created_at"` // seconds
	Event       string `json:"event"`
	AgentID     string `json:"agent_id"`
	AgentName   string `json:"agent_name"`
	RunID       string `json:"run_id"`
	SessionID   string `json:"session_id"`
	NestedDepth int    `json:"nested_depth"`
}

// Name returns the event's name.
func (h Head) Name() string { return h.Event }

// The names of the events that Keyway sends.
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

// Last reports whether the event of this name is the last one that its request caused.
func Last(name string) bool {
	switch name {
	case EventRunPaused, EventRunCompleted, EventRunError, EventRunCancelled:
		return true
	}
	return false
}

// Started begins a run (RunStarted) or one model call (ModelRequestStarted). EventIndex, here
// and in the other events, counts the events of a run from 0; a client that resumes a
// stream sends the last one that it received.
type Started struct {
	Head
	Model         string `json:"model"`
	ModelProvider string `json:"model_provider"`
	EventIndex    int    `json:"event_index"`
}

// Content is one piece of the model's answer (RunContent).
type Content struct {
	Head
	Content           string          `json:"content"`
	WorkflowAgent     bool            `json:"workflow_agent"`
	ContentType       string          `json:"content_type"`
	ReasoningContent  string          `json:"reasoning_content"`
	ModelProviderData json.RawMessage `json:"model_provider_data,omitempty" holds:"object"`
	EventIndex        int             `json:"event_index"`
}

// ContentOpened is a RunContent before the first piece of an answer, without content. It is
// sent if the provider sends the data of the answer, such as its id, before any text.
type ContentOpened struct {
	Head
	WorkflowAgent     bool            `json:"workflow_agent"`
	ContentType       string          `json:"content_type"`
	ReasoningContent  string          `json:"reasoning_content"`
	ModelProviderData json.RawMessage `json:"model_provider_data,omitempty" holds:"object"`
	EventIndex        int             `json:"event_index"`
}

// ModelCompleted ends one model call (ModelRequestCompleted) with the tokens that it used.
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

// ToolStarted is sent when a tool is called (ToolCallStarted).
type ToolStarted struct {
	Head
	EventIndex int           `json:"event_index"`
	Tool       ToolExecution `json:"tool"`
}

// ToolCompleted is sent when the call has ended (ToolCallCompleted), with a result or an
// error.
type ToolCompleted struct {
	Head
	Content    string        `json:"content"` // a sentence for a person
	EventIndex int           `json:"event_index"`
	Tool       ToolExecution `json:"tool"`
}

// ToolFailed is sent in addition if the call failed (ToolCallError).
type ToolFailed struct {
	Head
	Error      string        `json:"error"`
	EventIndex int           `json:"event_index"`
	Tool       ToolExecution `json:"tool"`
}

// Paused is the last event before a run waits for a person's decision (RunPaused).
type Paused struct {
	Head
	Content      string          `json:"content"`
	EventIndex   int             `json:"event_index"`
	Tools        []ToolExecution `json:"tools"`
	Requirements []Requirement   `json:"requirements"`
}

// ContentCompleted is sent when no more content follows (RunContentCompleted), and when a
// paused run continues (RunContinued).
type ContentCompleted struct {
	Head
	EventIndex int `json:"event_index"`
}

// Completed is the last event of a run that succeeded (RunCompleted).
type Completed struct {
	Head
	Content           string          `json:"content"`
	ContentType       string          `json:"content_type"`
	ReasoningContent  *string         `json:"reasoning_content,omitempty"`
	ModelProviderData json.RawMessage `json:"model_provider_data,omitempty" holds:"object"`
	SessionState      json.RawMessage `json:"session_state" holds:"object"`
	EventIndex        int             `json:"event_index"`
	Metrics           Metrics         `json:"metrics"`
}

// Failed is the last event of a run that failed (RunError).
type Failed struct {
	Head
	Content    string `json:"content"` // the reason
	ErrorType  string `json:"error_type"`
	EventIndex int    `json:"event_index"`
}

// Cancelled is the last event of a cancelled run (RunCancelled).
type Cancelled struct {
	Head
	Content    string `json:"content"` // the answer until then
	Reason     string `json:"reason"`
	EventIndex int    `json:"event_index"`
}

// Meta is an event about the stream, not about the run. The resume route sends it first.
type Meta struct {
	// Event is "replay" for all events of an ended run, "catch_up" for the events that the
	// client has not received yet, "subscribed" when the events that follow are new ones, or
	// "error".
	Event string `json:"event"`
	RunID string `json:"run_id,omitempty"`
	// Status is the status of the run.
	Status string `json:"status,omitempty"`
	// TotalEvents is how many events follow, in "replay".
	TotalEvents *int `json:"total_events,omitempty"`
	// TotalBuffered is how many events the run has in all, in "replay".
	TotalBuffered *int `json:"total_buffered,omitempty"`
	// LastEventIndexRequested is the last event that the client has received, in "replay".
	LastEventIndexRequested *int `json:"last_event_index_requested,omitempty"`
	// MissedEvents is how many events follow at once, in "catch_up".
	MissedEvents *int `json:"missed_events,omitempty"`
	// CurrentEventCount is how many events the run has until now, in "catch_up" and
	// "subscribed".
	CurrentEventCount *int `json:"current_event_count,omitempty"`
	// Message is a sentence for a person.
	Message string `json:"message,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Name returns the event's name.
func (m Meta) Name() string { return m.Event }
