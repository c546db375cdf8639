package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// MediaType is the content type of an event stream, as AgentOS writes it.
const MediaType = "text/event-stream; charset=utf-8"

// KeepAlive is a comment that tells a waiting client, and what stands between,
// that the stream lives.
const KeepAlive = ": keep-alive\n\n"

// GoesOn is the comment at the end of a stream whose run has not ended: it is out of
// time, or another process carries the run.
const GoesOn = ": the run goes on; its resume route has what follows\n\n"

// MicroTime is a moment with microseconds, as in GET /health.
type MicroTime struct{ time.Time }

// MarshalJSON writes "2026-11-21T22:48:06.044242Z".
func (t MicroTime) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000000Z"`), nil
}

// ISOTime is a moment as Python writes it: "2026-11-21T23:07:00.632410+00:00".
type ISOTime struct{ time.Time }

const isoLayout = `"2006-01-02T15:04:05.000000+00:00"`

// MarshalJSON writes it.
func (t ISOTime) MarshalJSON() ([]byte, error) { return t.UTC().AppendFormat(nil, isoLayout), nil }

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *ISOTime) UnmarshalJSON(data []byte) (err error) {
	t.Time, err = time.Parse(isoLayout, string(data))
	return err
}

// Encoder frames events: "event: NAME", "data: one line of JSON", an empty line.
// One Encoder serves one stream; it keeps its buffer.
type Encoder struct {
	w    io.Writer
	buf  bytes.Buffer
	json *json.Encoder // into buf
}

// NewEncoder writes frames to w, each with a single Write.
func NewEncoder(w io.Writer) *Encoder {
	e := &Encoder{w: w}
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	return e
}

// Encode writes one event.
func (e *Encoder) Encode(event Event) error {
	e.buf.Reset()
	e.buf.WriteString("event: ")
	e.buf.WriteString(event.Name())
	e.buf.WriteString("\ndata: ")
	if err := e.json.Encode(event); err != nil { // ends with a newline of its own
		return fmt.Errorf("event %s: %w", event.Name(), err)
	}
	e.buf.WriteByte('\n')
	_, err := e.w.Write(e.buf.Bytes())
	return err
}

// Marshal is json.Marshal without the escaping of <, > and &, which AgentOS does
// not do either.
func Marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	err := encode(&buf, v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

func encode(buf *bytes.Buffer, v any) error {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
