package run

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/strictjson"
	"github.com/keyway-agents/keyway/shared/trace"
	"github.com/keyway-agents/keyway/shared/wire"
)

// callModel calls the model once, emits the parts of its answer as they arrive, and adds the answer to the run's
// messages. An answer that breaks off is recorded too, so that the stored run shows what the client has seen, but it
// is never treated as complete: a stream without an end is an error.
func (l *leg) callModel(
	ctx context.Context, messages []model.Message, tools []model.ToolSpec,
) (answer model.Message, err error) {
	l.emitStarted(wire.EventModelRequestStarted)
	l.ProviderData = nil
	var text, reasoning strings.Builder
	var first time.Duration
	var end *model.End
	ctx, span := trace.Chat(ctx, l.tracer, l.traced())
	defer func() {
		used := model.Usage{}
		if end != nil {
			used = end.Usage
		}
		trace.EndChat(span, used.Input, used.Output, len(answer.ToolCalls), err != nil, first)
	}()
	sent := l.now()
	// Nobody receives parts if the run is not streamed; see docs/adr/0006.
	request := model.Request{Messages: messages, Tools: tools, Whole: l.events == nil}
	for part, partErr := range l.agent.Model.Stream(ctx, request) {
		if err = partErr; err != nil {
			break
		}
		part.ProviderData = storable(strictjson.MakeStorable(part.ProviderData))
		if part.ProviderData != nil {
			l.ProviderData = part.ProviderData
		}
		if end = part.End; end != nil {
			break
		}
		if first == 0 && !part.Opening { // An empty part counts as the first token, as in AgentOS.
			first = l.now().Sub(sent)
		}
		text.WriteString(part.Text)
		reasoning.WriteString(part.Reasoning)
		l.emitPart(part)
	}
	l.TimeToFirstToken = cmp.Or(l.TimeToFirstToken, first)
	if err == nil && end == nil {
		err = fault.Public(fault.Upstream, "The model's answer ended before it was complete", nil)
	}
	answer = model.Message{
		Role: model.Assistant, Content: text.String(), Reasoning: reasoning.String(), ProviderData: l.ProviderData,
	}
	l.Content += answer.Content
	if err != nil {
		if ctx.Err() == nil { // Otherwise the run was stopped, and the model did not fail.
			l.log.Warn("a model call failed", "run_id", l.row.RunID, "agent", l.agent.ID, "model", l.about.ID,
				"cause", fault.Cause(err))
		}
		if answer.Content+answer.Reasoning != "" {
			l.appendMessage(answer, nil)
		}
		return answer, fmt.Errorf("%w: %w", errModel, err)
	}
	// An answer with tool calls only has no part; then the whole answer counts as the first token.
	l.TimeToFirstToken = cmp.Or(l.TimeToFirstToken, l.now().Sub(sent))
	answer.ToolCalls, answer.Opaque = slices.Clone(end.ToolCalls), end.Opaque // The model may use its list again.
	for i := range answer.ToolCalls {
		answer.ToolCalls[i].ID = l.newCallID()
	}
	l.appendMessage(answer, &wire.MessageMetrics{
		InputTokens: end.Usage.Input, OutputTokens: end.Usage.Output, TotalTokens: end.Usage.Total,
		Duration: l.now().Sub(sent).Seconds(), TimeToFirstToken: first.Seconds(),
	})
	l.addUsage(end.Usage, first)
	return answer, nil
}

// newCallID returns a new id for a tool call. The ids that providers send are not used: some send none, or the same id
// twice, and people's decisions and the results of tools are found by the id. The form fits every provider: OpenAI
// accepts at most 40 characters.
func (l *leg) newCallID() string {
	id := l.newID()
	return "call_" + hex.EncodeToString(id[:])
}

// emitPart emits one part of an answer. An opening part has no text: some providers send the id of an answer before its
// text, and AgentOS emits an event for it. A part with thoughts alone has no text either.
func (l *leg) emitPart(part model.Part) {
	head := l.headFor(wire.EventRunContent)
	if part.Opening || part.Text == "" && part.Reasoning != "" {
		l.emit(wire.ContentOpened{
			Head: head, ContentType: "str", ReasoningContent: part.Reasoning, ModelProviderData: part.ProviderData,
			EventIndex: l.index,
		})
		return
	}
	l.emit(wire.Content{
		Head: head, Content: part.Text, ContentType: "str", ReasoningContent: part.Reasoning,
		ModelProviderData: part.ProviderData, EventIndex: l.index,
	})
}

// addUsage adds the usage of one model call to that of the run and emits ModelRequestCompleted. The details of the
// usage (reasoning and cache tokens) are sent with the event but not stored.
func (l *leg) addUsage(u model.Usage, first time.Duration) {
	l.Usage.Input += u.Input
	l.Usage.Output += u.Output
	l.Usage.Total += u.Total
	l.emit(wire.ModelCompleted{
		Head:  l.headFor(wire.EventModelRequestCompleted),
		Model: l.about.ID, ModelProvider: l.about.Provider,
		InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Total, TimeToFirstToken: first.Seconds(),
		ReasoningTokens: u.Reasoning, CacheReadTokens: u.CacheRead, CacheWriteTokens: u.CacheWrite,
		EventIndex: l.index,
	})
}
