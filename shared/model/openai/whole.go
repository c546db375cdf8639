package openai

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// completion is what we need of a chat.completion, an answer in one piece.
type completion struct {
	marks
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

// callWhole asks for an answer in one piece. Nothing comes before it is complete,
// so that only ctx bounds the wait for its header.
func (c *Chat) callWhole(ctx context.Context, r model.Request) (*http.Response, error) {
	var resp *http.Response
	p := c.params(r)
	p.StreamOptions = sdk.ChatCompletionStreamOptionsParam{} // of streams only
	_, err := c.service.New(ctx, p, option.WithResponseBodyInto(&resp), option.WithHTTPClient(c.patient))
	return resp, err
}

// readWhole yields the answer's text and returns its end.
func (a *answer) readWhole(body io.Reader, yield func(model.Part) bool) (*model.End, error) {
	var c completion
	if err := upstream.ReadWhole(body, &c); err != nil {
		return nil, err
	}
	a.data, _ = json.Marshal(c.marks) // two strings always encode
	choice := &c.Choices[0]
	var one chunk
	one.Choices[0].Delta.Content, one.Choices[0].Delta.Refusal = choice.Message.Content, choice.Message.Refusal
	one.Choices[0].FinishReason, one.Usage, one.Error = choice.FinishReason, c.Usage, c.Error
	for i, call := range choice.Message.ToolCalls { // they have no index here
		call.Index = i
		one.Choices[0].Delta.ToolCalls = append(one.Choices[0].Delta.ToolCalls, call)
	}
	if err := a.add(&one); err != nil {
		return nil, err
	}
	if a.finish == "" {
		return nil, fault.Public(fault.Upstream, upstream.NoAnswer, errors.New("openai: a completion without finish_reason"))
	}
	if p, ok := a.text(&one); ok && !yield(p) {
		return nil, nil
	}
	return a.whole(), nil
}
