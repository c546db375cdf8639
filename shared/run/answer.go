package run

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"iter"
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
) (answer *model.Message, err error) {
	l.emitStarted(wire.EventModelRequestStarted)
	l.ProviderData = nil
	var c call
	if l.first != nil {
		c, l.first = l.first.answered(), nil
	}
	if c.parts == nil {
		c = l.ask(ctx, messages, tools, l.agent.Model.Stream)
	}
	r := &received{sent: c.sent}
	defer func() { endChat(c.span, r, answer, err) }()
	err = l.receive(c.parts, r)
	return l.record(ctx, r, err)
}

// ask sends a request to the model with send.
func (l *leg) ask(
	ctx context.Context, messages []model.Message, tools []model.ToolSpec,
	send func(context.Context, model.Request) iter.Seq2[model.Part, error],
) (c call) {
	ctx, c.span = trace.Chat(ctx, l.tracer, l.traced())
	c.sent = l.now()
	// Nobody receives parts if the run is not streamed; see docs/adr/0006.
	c.parts = send(ctx, model.Request{Messages: messages, Tools: tools, Whole: !l.row.Streamed})
	return c
}

// askFirst sends the first model call of a run whose start is about to be committed. It waits for nothing.
func (l *leg) askFirst(ctx context.Context, asker model.Asker) {
	f := &firstCall{listed: make(chan struct{}), done: make(chan struct{})}
	ctx, f.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	ctx = l.traceIn(ctx)
	l.first = f
	if f.messages, f.err = l.conversation(atStart); f.err == nil {
		go l.askIn(ctx, f, asker)
	}
}

// askIn is the goroutine of a first call. It only reads the leg.
func (l *leg) askIn(ctx context.Context, f *firstCall, asker model.Asker) {
	defer func() {
		f.panicked = recover()
		close(f.done)
	}()
	func() {
		defer close(f.listed)
		if l.mayContinue(ctx) != nil {
			return
		}
		if tools, err := l.loadTools(ctx); err == nil {
			f.tools = &tools
		}
	}()
	if f.tools != nil {
		f.call = l.ask(ctx, f.messages, f.tools.specs, asker.Ask)
	}
}

// received is what has arrived of an answer. It is not on the stack of the loop that waits for the model: that
// stack is a large part of the memory of an open stream.
type received struct {
	text, reasoning strings.Builder
	end             *model.End
	sent            time.Time
	first           time.Duration // from sent to the first token
}

// endChat ends the span of a call of the model.
func endChat(span trace.Span, r *received, answer *model.Message, err error) {
	used, calls := model.Usage{}, 0
	if r.end != nil {
		used = r.end.Usage
	}
	if answer != nil {
		calls = len(answer.ToolCalls)
	}
	trace.EndChat(span, used.Input, used.Output, calls, err != nil, r.first)
}

// receive emits the parts of an answer as they arrive.
func (l *leg) receive(parts iter.Seq2[model.Part, error], r *received) error {
	for part, err := range parts {
		if err != nil {
			return err
		}
		if !l.add(r, &part) {
			return nil
		}
	}
	return fault.Public(fault.Upstream, "The model's answer ended before it was complete", nil)
}

// add adds a part to the answer and emits it. It returns false after the last one.
func (l *leg) add(r *received, part *model.Part) (more bool) {
	if part.ProviderData != nil {
		part.ProviderData = storable(strictjson.MakeStorable(part.ProviderData))
		l.ProviderData = part.ProviderData
	}
	if r.end = part.End; r.end != nil {
		return false
	}
	if r.first == 0 && !part.Opening { // An empty part counts as the first token, as in AgentOS.
		r.first = l.now().Sub(r.sent)
	}
	r.text.WriteString(part.Text)
	r.reasoning.WriteString(part.Reasoning)
	l.emitPart(part)
	return true
}

// record adds an answer to the messages of the run. err is why it broke off; nil means that it is complete.
func (l *leg) record(ctx context.Context, r *received, err error) (*model.Message, error) {
	l.TimeToFirstToken = cmp.Or(l.TimeToFirstToken, r.first)
	answer := &model.Message{
		Role: model.Assistant, Content: r.text.String(), Reasoning: r.reasoning.String(), ProviderData: l.ProviderData,
	}
	l.Content += answer.Content
	if err != nil {
		if ctx.Err() == nil { // Otherwise the run was stopped, and the model did not fail.
			l.log.Warn("a model call failed", "run_id", l.row.RunID, "agent", l.agent.ID, "model", l.about.ID,
				"cause", fault.Cause(err))
		}
		if answer.Content+answer.Reasoning != "" {
			l.appendMessage(*answer, nil)
		}
		return answer, fmt.Errorf("%w: %w", errModel, err)
	}
	// An answer with tool calls only has no part; then the whole answer counts as the first token.
	l.TimeToFirstToken = cmp.Or(l.TimeToFirstToken, l.now().Sub(r.sent))
	answer.ToolCalls, answer.Opaque = slices.Clone(r.end.ToolCalls), r.end.Opaque // The model may use its list again.
	for i := range answer.ToolCalls {
		answer.ToolCalls[i].ID = l.newCallID()
	}
	l.appendMessage(*answer, &wire.MessageMetrics{
		InputTokens: r.end.Usage.Input, OutputTokens: r.end.Usage.Output, TotalTokens: r.end.Usage.Total,
		Duration: l.now().Sub(r.sent).Seconds(), TimeToFirstToken: r.first.Seconds(),
	})
	l.addUsage(r.end.Usage, r.first)
	return answer, nil
}

// newCallID returns a new id for a tool call. The ids that providers send are not used: some send none, or the same id
// twice, and people's decisions and the results of tools are found by the id. The form fits every provider: OpenAI
// accepts at most 40 characters.
func (l *leg) newCallID() string {
	id := l.newID()
	return "call_" + hex.EncodeToString(id[:])
}

// emitPart emits one part of an answer. An opening part has no text: some providers send the id of an answer before
// its text, and AgentOS emits an event for it. A part with thoughts alone has no text either.
func (l *leg) emitPart(part *model.Part) {
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
