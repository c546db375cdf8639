package bedrock

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/smithy-go/eventstream"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/names"
	"github.com/keyway-agents/keyway/shared/model/upstream"
)

// stream reads a streamed answer, yields its text and returns its End. A nil End
// without an error means that the consumer stopped reading.
//
// The events messageStop and metadata (the usage) come last, in this order. stream
// waits for both, but a stream that ends or loses its connection between them is
// complete. cancel ends the request if the body does not end after them.
func (m *Model) stream(
	resp *http.Response, tools *names.Map, cancel func(), yield func(model.Part) bool,
) (*model.End, error) {
	a := &answer{tools: tools}
	events := eventReader{body: limitedBody{body: resp.Body}}
	any := false
	var err error
	for {
		var name string
		var event streamEvent
		if name, err = events.next(&event); err != nil {
			break
		}
		any = true
		reading, err := a.addEvent(name, &event, yield)
		if err != nil || !reading {
			return nil, err
		}
		if a.stop != "" && a.usage != nil {
			upstream.Drain(resp.Body, cancel)
			return a.end()
		}
	}
	clean := err == io.EOF //nolint:errorlint // a wrapped EOF is a lost connection
	if a.stop != "" && (clean || errors.As(err, new(lostError))) {
		return a.end()
	}
	if !any && !isEventStream(resp) {
		cause := fmt.Errorf("bedrock: content type %q", resp.Header.Get("Content-Type"))
		return nil, fault.Public(fault.Upstream, upstream.NoStream, cause)
	}
	if clean {
		return nil, fault.Public(fault.Upstream, upstream.CutShort, errors.New("bedrock: no stop reason"))
	}
	if named, ok := errors.AsType[exception](err); ok {
		return nil, m.options.apiError(named, 0, nil, upstream.Report{})
	}
	return nil, readError(err)
}

// eventReader reads the events of a stream.
type eventReader struct {
	body limitedBody
	// payload is reused for each event.
	payload []byte
}

// maxKept is the size up to which the memory of an event is kept for the next one.
const maxKept = 64 << 10

// next reads an event and returns its name. The event stays empty if its name is
// unknown. The error is io.EOF itself after a clean end, also within an event, and an exception
// if the API sent one.
func (r *eventReader) next(event *streamEvent) (name string, err error) {
	r.body.left = upstream.MaxEvent
	message, err := eventstream.NewDecoder().Decode(&r.body, r.payload)
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // a wrapped EOF is a lost connection
		return "", io.EOF
	} else if err != nil {
		return "", fmt.Errorf("bedrock: event: %w", err)
	}
	if cap(message.Payload) <= maxKept {
		r.payload = message.Payload[:0]
	}
	switch kind := header(&message, eventstream.MessageTypeHeader); kind {
	case eventstream.EventMessageType:
		name = header(&message, eventstream.EventTypeHeader)
		switch name {
		case eventStart, eventDelta, eventStop, eventMetadata, "messageStart", "contentBlockStop":
			if err := json.Unmarshal(message.Payload, event); err != nil {
				return "", fmt.Errorf("bedrock: event %s: %w", name, err)
			}
		}
		return name, nil
	case eventstream.ExceptionMessageType:
		name := header(&message, eventstream.ExceptionTypeHeader)
		e, err := readException(name, message.Payload)
		if err != nil {
			return "", fmt.Errorf("bedrock: exception %s: %w", name, err)
		}
		if streamExceptions[name] {
			e.code = strings.ToUpper(name[:1]) + name[1:] // its name in a response
		}
		return "", e
	case eventstream.ErrorMessageType:
		code := header(&message, eventstream.ErrorCodeHeader)
		return "", exception{cmp.Or(code, unknown), header(&message, eventstream.ErrorMessageHeader)}
	default:
		return "", fmt.Errorf("bedrock: message of type %q", kind)
	}
}

// streamExceptions are the members of the union of events that are exceptions. A member's name begins with a small
// letter.
var streamExceptions = map[string]bool{
	"internalServerException": true, "modelStreamErrorException": true, "validationException": true,
	"throttlingException": true, "serviceUnavailableException": true,
}

// header returns a header of a message; "" if it has none.
func header(m *eventstream.Message, name string) string {
	if v := m.Headers.Get(name); v != nil {
		return v.String()
	}
	return ""
}

// isEventStream reports whether a response is in AWS's binary format for streams
// (https://smithy.io/2.0/aws/amazon-eventstream.html).
func isEventStream(r *http.Response) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/vnd.amazon.eventstream")
}

// addEvent adds an event to the answer and yields its text or reasoning. reading is false
// when the consumer stopped reading. Other events and content blocks are ignored.
func (a *answer) addEvent(name string, e *streamEvent, yield func(model.Part) bool) (reading bool, err error) {
	switch name {
	case eventStart:
		if use := e.Start.Use; use != nil {
			err = a.startCall(e.Index, use.ID, use.Name)
		}
	case eventDelta:
		return a.addDelta(e.Index, &e.Delta, yield)
	case eventStop:
		a.stop = e.StopReason
	case eventMetadata:
		if a.usage = e.Usage; a.usage == nil {
			a.usage = &tokenUsage{}
		}
	}
	return err == nil, err
}

// addDelta adds a piece of a block and yields its text or reasoning.
func (a *answer) addDelta(index int32, d *delta, yield func(model.Part) bool) (reading bool, err error) {
	switch {
	case d.Text != nil:
		if err := a.add(index, blockText, *d.Text); err != nil {
			return false, err
		}
		return yield(model.Part{Text: *d.Text}), nil
	case d.Use != nil:
		err = a.add(index, blockCall, d.Use.Input)
	case d.Reasoning != nil && d.Reasoning.Text != "":
		if err := a.add(index, blockReasoning, d.Reasoning.Text); err != nil {
			return false, err
		}
		return yield(model.Part{Reasoning: d.Reasoning.Text}), nil
	case d.Reasoning != nil:
		err = a.sign(index, d.Reasoning.Signature, d.Reasoning.Hidden)
	}
	return err == nil, err
}
