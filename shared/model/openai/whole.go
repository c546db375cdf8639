package openai

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/keyway-agents/keyway/shared/model"
)

// completion is the part of a chat.completion object, an answer in one piece, that this
// package uses (https://platform.openai.com/docs/api-reference/chat/object).
type completion struct {
	identifiers
	Choices [1]struct {
		Message struct {
			Content   *string     `json:"content"`
			Refusal   *string     `json:"refusal"`
			ToolCalls []toolDelta `json:"tool_calls"`
		} `json:"message"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Usage *usage          `json:"usage"`
	Error json.RawMessage `json:"error"`
}

// callWhole requests an answer in one piece. The API refuses stream_options in such a
// request.
func (c *Chat) callWhole(ctx context.Context, r model.Request) (*http.Response, error) {
	var resp *http.Response
	p := c.params(r)
	p.StreamOptions = sdk.ChatCompletionStreamOptionsParam{}
	_, err := c.service.New(ctx, p, option.WithResponseBodyInto(&resp), option.WithHTTPClient(c.wholeClient))
	return resp, err
}

// readWhole yields the answer's text and returns its End. It treats the answer as one
// large chunk, so that both forms of an answer follow the same rules.
func (a *answer) readWhole(body io.Reader, yield func(model.Part) bool) (*model.End, error) {
	var c completion
	data, err := a.options.provider().ReadWhole(body, &c)
	if err != nil {
		return nil, err
	}
	a.data, _ = json.Marshal(c.identifiers) // two strings always encode
	choice := &c.Choices[0]
	var one chunk
	one.Choices[0].Delta.Content, one.Choices[0].Delta.Refusal = choice.Message.Content, choice.Message.Refusal
	one.Choices[0].FinishReason, one.Usage, one.Error = choice.FinishReason, c.Usage, c.Error
	for i, call := range choice.Message.ToolCalls { // calls have no index in this form
		call.Index = i
		one.Choices[0].Delta.ToolCalls = append(one.Choices[0].Delta.ToolCalls, call)
	}
	if err := a.add(&one); err != nil {
		return nil, err
	}
	if a.finish == "" {
		return nil, a.options.provider().NoAnswerError(data, "a completion without finish_reason")
	}
	if p, ok := a.text(&one); ok && !yield(p) {
		return nil, nil
	}
	return a.end(), nil
}
