package openai

import (
	"encoding/json"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Response is a run as OpenAI's Responses API and the Open Responses specification describe it. Members that are null
// or have one value are those of parameters that have no effect; clients require that they are there.
type Response struct {
	ID                 string          `json:"id"`
	Object             string          `json:"object"` // "response"
	CreatedAt          int64           `json:"created_at"`
	CompletedAt        *int64          `json:"completed_at"`
	Status             string          `json:"status"`
	Background         bool            `json:"background"`
	Error              *ResponseError  `json:"error"`
	IncompleteDetails  *Incomplete     `json:"incomplete_details"`
	Model              string          `json:"model"` // the agent
	Output             []Item          `json:"output"`
	Conversation       Conversation    `json:"conversation"`
	PreviousResponseID *string         `json:"previous_response_id"`
	Metadata           json.RawMessage `json:"metadata" holds:"object"`
	Usage              *ResponseUsage  `json:"usage"`
	Store              bool            `json:"store"` // true
	Instructions       *string         `json:"instructions"`
	Tools              []Item          `json:"tools"`
	ToolChoice         string          `json:"tool_choice"`
	ParallelToolCalls  bool            `json:"parallel_tool_calls"`
	MaxToolCalls       *int            `json:"max_tool_calls"`
	MaxOutputTokens    *int            `json:"max_output_tokens"`
	Temperature        float64         `json:"temperature"`
	TopP               float64         `json:"top_p"`
	TopLogprobs        int             `json:"top_logprobs"`
	FrequencyPenalty   float64         `json:"frequency_penalty"`
	PresencePenalty    float64         `json:"presence_penalty"`
	Reasoning          Reasoning       `json:"reasoning"`
	Text               Text            `json:"text"`
	Truncation         string          `json:"truncation"`
	ServiceTier        string          `json:"service_tier"`
	SafetyIdentifier   *string         `json:"safety_identifier"`
	PromptCacheKey     *string         `json:"prompt_cache_key"`
}

// ResponseError says why a response failed. AI SDK requires the type.
type ResponseError struct {
	Type    string  `json:"type"`
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Param   *string `json:"param"` // null
}

func newError(code, text string) ResponseError {
	return ResponseError{Type: fault.FinalType, Code: code, Message: text}
}

// Incomplete says why a response is incomplete.
type Incomplete struct {
	Reason string `json:"reason"` // "paused"
}

// Item is a message of the agent, with a status, a role and content, or thoughts of its model, with a summary.
type Item struct {
	ID      string    `json:"id"`
	Type    string    `json:"type"` // "message" or "reasoning"
	Status  string    `json:"status,omitempty"`
	Role    string    `json:"role,omitempty"`
	Content []Part    `json:"content,omitzero"`
	Summary []Summary `json:"summary,omitzero"`
}

// Summary is what the model's provider shows of its thoughts.
type Summary struct {
	Type string `json:"type"` // "summary_text"
	Text string `json:"text"`
}

// Part is the text of a message.
type Part struct {
	Type        string   `json:"type"` // "output_text"
	Text        string   `json:"text"`
	Annotations []string `json:"annotations"` // none
	Logprobs    []string `json:"logprobs"`    // none
}

// Conversation names the session of the run.
type Conversation struct {
	ID string `json:"id"`
}

// ResponseUsage are the tokens of all model calls of a run. Keyway doesn't store the details.
type ResponseUsage struct {
	InputTokens         int           `json:"input_tokens"`
	InputTokensDetails  InputDetails  `json:"input_tokens_details"`
	OutputTokens        int           `json:"output_tokens"`
	OutputTokensDetails OutputDetails `json:"output_tokens_details"`
	TotalTokens         int           `json:"total_tokens"`
}

// InputDetails are always 0.
type InputDetails struct {
	CachedTokens int `json:"cached_tokens"`
}

// OutputDetails are always 0.
type OutputDetails struct {
	ReasoningTokens int `json:"reasoning_tokens"`
}

// Reasoning is always null.
type Reasoning struct {
	Effort  *string `json:"effort"`
	Summary *string `json:"summary"`
}

// Text is the format of the answer.
type Text struct {
	Format Format `json:"format"`
}

// Format is always text.
type Format struct {
	Type string `json:"type"` // "text"
}

// Deleted is the answer to DELETE /v1/responses/{response_id}.
type Deleted struct {
	ID      string `json:"id"`
	Object  string `json:"object"` // "response"
	Deleted bool   `json:"deleted"`
}

// The statuses of a response.
const (
	queued     = "queued"
	inProgress = "in_progress"
	completed  = "completed"
	incomplete = "incomplete"
	failed     = "failed"
	aborted    = "cancelled"
)

// statuses are those of responses by those of runs.
var statuses = map[string]string{
	wire.StatusPending: queued, wire.StatusRunning: inProgress, wire.StatusPaused: incomplete,
	wire.StatusCompleted: completed, wire.StatusError: failed, wire.StatusCancelled: aborted,
}

// Of is what a response says about the request that started its run, besides the run itself.
type Of struct {
	// Background is whether the request asked for it.
	Background bool
	// Previous is the run that previous_response_id named, or "".
	Previous string
	// Metadata is the object metadata of the request, or nil.
	Metadata json.RawMessage
}

// NewResponse returns the response of a run, whether it has ended or not.
func NewResponse(r wire.Run, used wire.Metrics, of Of) Response {
	out := of.response(r.RunID, r.SessionID, r.AgentID, r.CreatedAt)
	text := ""
	if r.Content != nil {
		text = *r.Content
	}
	switch out.Status = statuses[r.Status]; out.Status {
	case completed:
		out.Output = itemsOf(r, completed, text)
	case incomplete:
		out.Output = itemsOf(r, incomplete, withNotice(text, Waits(r.AgentID, r.RunID)))
		out.IncompleteDetails = &Incomplete{paused}
	case failed:
		out.Error = new(newError("run_failed", text))
	case aborted:
		out.Error = new(newError("run_cancelled", cancelled))
		if text != "" {
			out.Output = itemsOf(r, incomplete, text)
		}
	}
	if wire.Ended(r.Status) {
		out.Usage = usageOf(used)
	}
	if out.Status == completed {
		out.CompletedAt = new(r.CreatedAt + int64(used.Duration))
	}
	return out
}

// paused is the reason of an incomplete response.
const paused = "paused"

// response returns a response in progress without output.
func (o Of) response(run, session, agent string, created int64) Response {
	out := Response{
		ID: ResponseID(run), Object: "response", CreatedAt: created, Status: inProgress, Background: o.Background,
		Model: agent, Output: []Item{}, Conversation: Conversation{session}, Metadata: o.Metadata, Store: true,
		Tools: []Item{}, ToolChoice: "auto", Temperature: 1, TopP: 1, Text: Text{Format{"text"}}, Truncation: "disabled",
		ServiceTier: "default",
	}
	if len(out.Metadata) == 0 {
		out.Metadata = json.RawMessage("{}")
	}
	if o.Previous != "" {
		out.PreviousResponseID = new(ResponseID(o.Previous))
	}
	return out
}

// itemsOf returns the thoughts of a run, if it has any, and its only message.
func itemsOf(r wire.Run, status, text string) (all []Item) {
	if thoughts := thoughtsOf(r); thoughts != nil {
		all = append(all, newThoughts(thoughtsID(r.RunID), *thoughts))
	}
	return append(all, newMessage(messageID(r.RunID), status, text))
}

// thoughtsOf returns the thoughts of the model, or nil.
func thoughtsOf(r wire.Run) *string {
	if r.ReasoningContent == nil || *r.ReasoningContent == "" {
		return nil
	}
	return r.ReasoningContent
}

func newThoughts(id, text string) Item {
	return Item{ID: id, Type: reasoning, Summary: []Summary{{summaryText, text}}}
}

const (
	reasoning   = "reasoning"
	summaryText = "summary_text"
)

func newMessage(id, status, text string) Item {
	return Item{ID: id, Type: "message", Status: status, Role: assistant, Content: []Part{newPart(text)}}
}

func newPart(text string) Part {
	return Part{Type: "output_text", Text: text, Annotations: []string{}, Logprobs: []string{}}
}

func usageOf(used wire.Metrics) *ResponseUsage {
	return &ResponseUsage{
		InputTokens: used.InputTokens, OutputTokens: used.OutputTokens, TotalTokens: used.TotalTokens,
	}
}
