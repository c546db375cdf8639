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

// stream asks for a stream, yields its text and returns its end; nil without an
// error says that the listener left.
func (m *Model) stream(ctx context.Context, r model.Request, yield func(model.Part) bool) (*model.End, error) {
	c, err := m.options.conversation(r)
	if err != nil {
		return nil, err
	}
	out, err := m.client.ConverseStream(ctx, &bedrockruntime.ConverseStreamInput{
		ModelId: &m.options.ID, System: c.system, Messages: c.messages, ToolConfig: c.tools, InferenceConfig: c.setup,
	}, ownProtocol)
	if err != nil {
		return nil, m.options.callError(err)
	}
	events := out.GetStream()
	defer func() { _ = events.Close() }() // its error is that of Err
	a := &answer{tools: c.names}
	any := false
	for event := range events.Events() {
		any = true
		listening, err := a.event(event, yield)
		if err != nil || !listening {
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
	if raw, ok := middleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response); ok && !any && lacksStream(raw) {
		return nil, fault.Public(fault.Upstream, upstream.NoStream, fmt.Errorf("bedrock: content type %q", raw.Header.Get("Content-Type")))
	}
	return nil, m.options.brokeOff(err)
}

func lacksStream(raw *smithyhttp.Response) bool {
	return !strings.HasPrefix(raw.Header.Get("Content-Type"), "application/vnd.amazon.eventstream")
}

// event takes one event in; listening is false when the listener left.
func (a *answer) event(event types.ConverseStreamOutput, yield func(model.Part) bool) (listening bool, err error) {
	switch e := event.(type) {
	case *types.ConverseStreamOutputMemberContentBlockStart:
		if start, ok := e.Value.Start.(*types.ContentBlockStartMemberToolUse); ok {
			err = a.startCall(value(e.Value.ContentBlockIndex), start.Value.ToolUseId, start.Value.Name)
		}
	case *types.ConverseStreamOutputMemberContentBlockDelta:
		switch d := e.Value.Delta.(type) {
		case *types.ContentBlockDeltaMemberText:
			a.spoken = a.spoken || d.Value != ""
			return yield(model.Part{Text: d.Value}), nil
		case *types.ContentBlockDeltaMemberToolUse:
			err = a.addArguments(value(e.Value.ContentBlockIndex), value(d.Value.Input))
		}
	case *types.ConverseStreamOutputMemberMessageStop:
		a.stop = e.Value.StopReason
	case *types.ConverseStreamOutputMemberMetadata:
		if a.usage = e.Value.Usage; a.usage == nil {
			a.usage = &types.TokenUsage{}
		}
	}
	return true, err
}

// drain waits a moment for the end of the body, because HTTP/1.1 re-uses only a
// connection that was read to its end. A vendor who keeps it open instead loses it.
func drain(events <-chan types.ConverseStreamOutput) {
	patience := time.NewTimer(100 * time.Millisecond)
	defer patience.Stop()
	for {
		select {
		case _, more := <-events:
			if !more {
				return
			}
		case <-patience.C:
			return
		}
	}
}

// brokeOff says why a stream ended before its stop reason. err is nil after a clean
// end.
func (o Options) brokeOff(err error) error {
	if err == nil {
		return fault.Public(fault.Upstream, upstream.CutShort, errors.New("bedrock: no stop reason"))
	}
	if said, ok := errors.AsType[smithy.APIError](err); ok {
		return o.vendorError(said, 0, nil)
	}
	return readError(err)
}
