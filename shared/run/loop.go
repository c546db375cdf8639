package run

import (
	"context"
	"fmt"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/trace"
	"github.com/keyway-agents/keyway/shared/wire"
)

// execute executes a leg from its position to the end of the run, its pause or its hand-over. It is the only way
// into a run: started, continued and claimed runs differ only in where they begin.
func (l *leg) execute(ctx context.Context, at position) {
	ctx = l.traceIn(ctx)
	defer func() {
		usd := float64(Cost(l.agent.price, l.Usage)) / 1e6
		trace.EndLeg(l.span, l.how.status, l.how.kind, l.Usage.Input, l.Usage.Output, usd)
	}()
	defer l.recordPanic()
	l.finish(ctx, l.converse(ctx, at))
}

// maxSteps bounds the model calls of one leg. A model that requests tools without end is stopped here, if neither the
// agent's timeout nor its tool_call_limit stops it earlier.
const maxSteps = 100

// converse is the run loop. It calls the model and the requested tools in turn, with a checkpoint after each step,
// until an answer requests no tool or a tool needs a person (errPaused).
func (l *leg) converse(ctx context.Context, at position) error {
	messages, tools, err := l.prepare(ctx, at)
	if err != nil {
		return err
	}
	// An earlier leg may have stored an answer whose calls were not executed.
	pending := l.PendingCalls
	for range maxSteps {
		if len(pending) == 0 {
			if err := l.mayContinue(ctx); err != nil {
				return err
			}
			answer, err := l.callModel(ctx, messages, tools.specs)
			if err != nil {
				return err
			}
			if pending = answer.ToolCalls; len(pending) == 0 {
				return nil
			}
			messages = append(messages, *answer)
			if err := l.save(ctx, pending); err != nil {
				return err
			}
		}
		results, err := l.round(ctx, tools, pending)
		if err != nil {
			return err
		}
		messages, pending = append(messages, results...), nil
	}
	return fault.Public(fault.Upstream, fmt.Sprintf("The model asked for tools %d times in a row", maxSteps), errModel)
}

// prepare emits the event with which the leg begins, and returns the conversation from which the next step continues,
// and the tools.
func (l *leg) prepare(ctx context.Context, at position) (messages []model.Message, tools toolbox, err error) {
	switch at {
	case atStart:
		l.emitStarted(wire.EventRunStarted)
	case atAnswers: // AgentOS's RunContinued has the members of a ContentCompleted.
		l.emit(wire.ContentCompleted{Head: l.headFor(wire.EventRunContinued), EventIndex: l.index})
	}
	if err := l.mayContinue(ctx); err != nil { // before tools are connected, or called because of an answer
		return nil, toolbox{}, err
	}
	if l.first != nil {
		if messages, err = l.first.messages, l.first.err; err == nil {
			<-l.first.listed
		}
	} else {
		messages, err = l.conversation(at)
	}
	if err != nil {
		return nil, toolbox{}, err
	}
	if l.first != nil && l.first.tools != nil {
		return messages, *l.first.tools, nil
	}
	if tools, err = l.loadTools(ctx); err != nil || at != atAnswers {
		return messages, tools, err
	}
	results, err := l.applyAnswers(ctx, tools)
	return append(messages, results...), tools, err
}

// round is one round of tool calls, with its checkpoint.
func (l *leg) round(ctx context.Context, tools toolbox, pending []model.ToolCall) ([]model.Message, error) {
	if err := l.mayContinue(ctx); err != nil {
		return nil, err
	}
	results, paused, err := l.callTools(ctx, tools, pending)
	if err == nil && paused {
		err = errPaused
	}
	if err == nil {
		err = l.save(ctx, nil)
	}
	return results, err
}
