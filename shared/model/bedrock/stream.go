package bedrock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// stream requests a streamed answer, yields its text and returns its End. A nil End
// without an error means that the consumer stopped reading.
//
// The events messageStop and metadata (the usage) come last, in this order. stream
// waits for both, but a stream that ends or loses its connection between them is
// complete.
func (m *Model) stream(ctx context.Context, r model.Request, yield func(model.Part) bool) (*model.End, error) {
	c, err := m.options.conversation(r)
	if err != nil {
		return nil, err
	}
	out, err := m.client.ConverseStream(ctx, &bedrockruntime.ConverseStreamInput{
		ModelId: &m.options.ID, System: c.system, Messages: c.messages, ToolConfig: c.tools, InferenceConfig: c.inference,
	}, limitProtocol)
	if err != nil {
		return nil, m.options.callError(err)
	}
	events := out.GetStream()
	defer func() { _ = events.Close() }() // it returns the error of Err
	a := &answer{tools: c.names}
	any := false
	for event := range events.Events() {
		any = true
		reading, err := a.addEvent(event, yield)
		if err != nil || !reading {
			return nil, err
		}
		if a.stop != "" && a.usage != nil {
			drain(events.Events())
			return a.end()
		}
	}
	err = events.Err()
	if a.stop != "" && (err == nil || errors.As(err, new(lostError))) {
		return a.end()
	}
	raw, ok := middleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response)
	if ok && !any && !isEventStream(raw) {
		cause := fmt.Errorf("bedrock: content type %q", raw.Header.Get("Content-Type"))
		return nil, fault.Public(fault.Upstream, upstream.NoStream, cause)
	}
	return nil, m.options.streamError(err)
}

// isEventStream reports whether a response is in AWS's binary format for streams
// (https://smithy.io/2.0/aws/amazon-eventstream.html).
func isEventStream(raw *smithyhttp.Response) bool {
	return strings.HasPrefix(raw.Header.Get("Content-Type"), "application/vnd.amazon.eventstream")
}

// addEvent adds an event to the answer and yields its text or reasoning. reading is false
// when the consumer stopped reading. Other events and content blocks are ignored.
func (a *answer) addEvent(event types.ConverseStreamOutput, yield func(model.Part) bool) (reading bool, err error) {
	switch e := event.(type) {
	case *types.ConverseStreamOutputMemberContentBlockStart:
		if start, ok := e.Value.Start.(*types.ContentBlockStartMemberToolUse); ok {
			err = a.startCall(value(e.Value.ContentBlockIndex), start.Value.ToolUseId, start.Value.Name)
		}
	case *types.ConverseStreamOutputMemberContentBlockDelta:
		return a.addDelta(value(e.Value.ContentBlockIndex), e.Value.Delta, yield)
	case *types.ConverseStreamOutputMemberMessageStop:
		a.stop = e.Value.StopReason
	case *types.ConverseStreamOutputMemberMetadata:
		if a.usage = e.Value.Usage; a.usage == nil {
			a.usage = &types.TokenUsage{}
		}
	}
	return true, err
}

// addDelta adds a piece of a block and yields its text or reasoning.
func (a *answer) addDelta(
	index int32, delta types.ContentBlockDelta, yield func(model.Part) bool,
) (reading bool, err error) {
	switch d := delta.(type) {
	case *types.ContentBlockDeltaMemberText:
		if err := a.add(index, blockText, d.Value); err != nil {
			return false, err
		}
		return yield(model.Part{Text: d.Value}), nil
	case *types.ContentBlockDeltaMemberToolUse:
		err = a.add(index, blockCall, value(d.Value.Input))
	case *types.ContentBlockDeltaMemberReasoningContent:
		switch r := d.Value.(type) {
		case *types.ReasoningContentBlockDeltaMemberText:
			if err := a.add(index, blockReasoning, r.Value); err != nil || r.Value == "" {
				return err == nil, err
			}
			return yield(model.Part{Reasoning: r.Value}), nil
		case *types.ReasoningContentBlockDeltaMemberSignature:
			err = a.sign(index, r.Value, nil)
		case *types.ReasoningContentBlockDeltaMemberRedactedContent:
			err = a.sign(index, "", r.Value)
		}
	}
	return err == nil, err
}

// drain waits up to 100 ms for the end of the body, because net/http reuses an HTTP/1.1
// connection only if the body was read to its end. If the provider keeps the body open
// longer, the connection is closed. upstream.Drain can't be used: the SDK reads the
// body itself, in its own goroutine.
func drain(events <-chan types.ConverseStreamOutput) {
	limit := time.NewTimer(100 * time.Millisecond)
	defer limit.Stop()
	for {
		select {
		case _, more := <-events:
			if !more {
				return
			}
		case <-limit.C:
			return
		}
	}
}

// streamError returns the error for a stream that ended before its stop reason. err is
// nil after a clean end.
func (o Options) streamError(err error) error {
	if err == nil {
		return fault.Public(fault.Upstream, upstream.CutShort, errors.New("bedrock: no stop reason"))
	}
	if exception, ok := errors.AsType[smithy.APIError](err); ok {
		return o.apiError(exception, 0, nil, upstream.Report{})
	}
	return readError(err)
}
