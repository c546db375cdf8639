package bedrock

import (
	"encoding/json"
	"errors"
	"io"
)

// The types in this file are what Keyway uses of the Converse API
// (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html). A union has one member that is
// set.

// converseRequest is the body of Converse and of ConverseStream.
type converseRequest struct {
	System    []contentBlock   `json:"system,omitempty"`
	Messages  []turn           `json:"messages,omitempty"`
	Tools     *toolConfig      `json:"toolConfig,omitempty"`
	Inference *inferenceConfig `json:"inferenceConfig,omitempty"`
}

type inferenceConfig struct {
	Temperature float32 `json:"temperature"`
}

// turn is a message of the API. Its role is "user" or "assistant".
type turn struct {
	Role    string         `json:"role"`
	Content []contentBlock `json:"content"`
}

// contentBlock is a union.
type contentBlock struct {
	Text      *string         `json:"text,omitempty"`
	Use       *toolUse        `json:"toolUse,omitempty"`
	Result    *toolResult     `json:"toolResult,omitempty"`
	Reasoning *reasoningBlock `json:"reasoningContent,omitempty"`
}

type toolUse struct {
	ID    string          `json:"toolUseId"`
	Name  string          `json:"name"`
	Input json.RawMessage `json:"input"`
}

type toolResult struct {
	ID      string        `json:"toolUseId"`
	Content []resultBlock `json:"content"`
}

// resultBlock is a union.
type resultBlock struct {
	Text *string         `json:"text,omitempty"`
	JSON json.RawMessage `json:"json,omitempty"`
}

// reasoningBlock is a union.
type reasoningBlock struct {
	Shown  *reasoningText `json:"reasoningText,omitempty"`
	Hidden []byte         `json:"redactedContent,omitempty"`
}

type reasoningText struct {
	Text      string `json:"text"`
	Signature string `json:"signature"`
}

type toolConfig struct {
	Tools []offeredTool `json:"tools"`
}

type offeredTool struct {
	Spec toolSpec `json:"toolSpec"`
}

type toolSpec struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Schema      toolSchema `json:"inputSchema"`
}

type toolSchema struct {
	JSON json.RawMessage `json:"json"`
}

// converseAnswer is the body of an answer in one piece.
type converseAnswer struct {
	Output struct {
		Message *turn `json:"message"`
	} `json:"output"`
	StopReason string      `json:"stopReason"`
	Usage      *tokenUsage `json:"usage"`
}

type tokenUsage struct {
	Input      int32 `json:"inputTokens"`
	Output     int32 `json:"outputTokens"`
	Total      int32 `json:"totalTokens"`
	CacheRead  int32 `json:"cacheReadInputTokens"`
	CacheWrite int32 `json:"cacheWriteInputTokens"`
}

// The names of the events that are read. The body of each has its members of streamEvent.
const (
	eventStart    = "contentBlockStart"
	eventDelta    = "contentBlockDelta"
	eventStop     = "messageStop"
	eventMetadata = "metadata"
)

type streamEvent struct {
	Index int32 `json:"contentBlockIndex"`
	Start struct {
		Use *toolUse `json:"toolUse"` // without input
	} `json:"start"`
	Delta      delta       `json:"delta"`
	StopReason string      `json:"stopReason"`
	Usage      *tokenUsage `json:"usage"`
}

// delta is a union.
type delta struct {
	Text *string `json:"text"`
	Use  *struct {
		Input string `json:"input"`
	} `json:"toolUse"`
	Reasoning *struct {
		Text      string `json:"text"`
		Signature string `json:"signature"`
		Hidden    []byte `json:"redactedContent"`
	} `json:"reasoningContent"`
}

// limitedBody reads at most left bytes and fails with errTooLong after them. It wraps
// the error of a lost connection in lostError, to distinguish it from a clean end within an
// event.
type limitedBody struct {
	body io.Reader
	left int
}

var errTooLong = errors.New("bedrock: the event or answer is too long")

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.body.Read(p[:min(len(p), b.left)])
	b.left -= n
	if err != nil && err != io.EOF { //nolint:errorlint // a wrapped EOF is a lost connection
		err = lostError{err}
	}
	return n, err
}

// lostError marks the error of a connection that broke before the end of the body.
type lostError struct{ cause error }

func (e lostError) Error() string { return "bedrock: the connection is lost: " + e.cause.Error() }
func (e lostError) Unwrap() error { return e.cause }
