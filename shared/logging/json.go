package logging

import (
	"context"
	"io"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"time"
)

// NewJSON returns a logger that writes one JSON object per line to w, in one Write. The bytes are those of
// slog.NewJSONHandler, which FuzzLines compares.
//
// Each request writes two or three lines, and slog's handler needs as much time for them as a small request for the
// rest: it calls encoding/json for each list and for each number with a fraction. A line whose attributes are plain is
// therefore appended here, and any other one is left to slog.
func NewJSON(w io.Writer) *slog.Logger {
	out := &oneByOne{w: w}
	return slog.New(&jsonHandler{Handler: slog.NewJSONHandler(out, nil), out: out})
}

// jsonHandler is slog's JSON handler, which also writes all lines of a logger with attributes or a group of its own.
type jsonHandler struct {
	slog.Handler
	out *oneByOne
}

// lines has buffers for lines.
var lines = sync.Pool{New: func() any { return new(make([]byte, 0, 1<<10)) }}

// maxKept is the size of the largest buffer that is kept for other lines.
const maxKept = 16 << 10

// Handle implements slog.Handler.
func (h *jsonHandler) Handle(ctx context.Context, r slog.Record) error {
	buffer := lines.Get().(*[]byte) //nolint:forcetypeassert // the pool has nothing else
	line, plain := appendRecord((*buffer)[:0], r)
	defer func() {
		if cap(line) <= maxKept {
			*buffer = line
			lines.Put(buffer)
		}
	}()
	if !plain {
		return h.Handler.Handle(ctx, r)
	}
	_, err := h.out.Write(line)
	return err
}

// appendRecord appends the line of a record. It reports false if the record has something else than plain values.
func appendRecord(line []byte, r slog.Record) (_ []byte, plain bool) {
	if year := r.Time.Year(); r.Time.IsZero() || year < 0 || year > 9999 || !isPlain(r.Message) {
		return line, false
	}
	line = r.Time.Round(0).AppendFormat(append(line, `{"time":"`...), time.RFC3339Nano)
	line = append(append(line, `","level":"`...), r.Level.String()...)
	line = append(append(append(line, `","msg":"`...), r.Message...), '"')
	plain = true
	r.Attrs(func(a slog.Attr) bool {
		line, plain = appendAttr(line, a)
		return plain
	})
	return append(line, "}\n"...), plain
}

// appendAttr appends an attribute with a plain value. It reports false for any other one.
func appendAttr(line []byte, a slog.Attr) (_ []byte, plain bool) {
	if a.Key == "" || !isPlain(a.Key) {
		return line, false
	}
	line = append(append(append(line, `,"`...), a.Key...), `":`...)
	switch a.Value.Kind() { //nolint:exhaustive // slog writes the others
	case slog.KindString:
		return appendPlain(line, a.Value.String())
	case slog.KindInt64:
		return strconv.AppendInt(line, a.Value.Int64(), 10), true
	case slog.KindBool:
		return strconv.AppendBool(line, a.Value.Bool()), true
	case slog.KindFloat64:
		f := a.Value.Float64()
		// encoding/json writes very large and very small numbers with an exponent.
		if size := math.Abs(f); f != 0 && !(size >= 1e-6 && size < 1e21) {
			return line, false
		}
		return strconv.AppendFloat(line, f, 'f', -1, 64), true
	case slog.KindAny:
		if texts, ok := a.Value.Any().([]string); ok && texts != nil {
			return appendTexts(line, texts)
		}
	}
	return line, false
}

func appendTexts(line []byte, texts []string) (_ []byte, plain bool) {
	line = append(line, '[')
	for i, text := range texts {
		if i > 0 {
			line = append(line, ',')
		}
		if line, plain = appendPlain(line, text); !plain {
			return line, false
		}
	}
	return append(line, ']'), true
}

func appendPlain(line []byte, text string) (_ []byte, plain bool) {
	return append(append(append(line, '"'), text...), '"'), isPlain(text)
}

// isPlain reports whether a text is the same in a JSON string: printable ASCII without quotes and backslashes.
func isPlain(text string) bool {
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// oneByOne writes one line after the other: those that jsonHandler has made, and those of slog's handler.
type oneByOne struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (o *oneByOne) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(line)
}

// Write logs a line as slog.Logger.LogAttrs does, without looking up the place in the source that no log here shows.
func Write(ctx context.Context, log *slog.Logger, level slog.Level, text string, attrs ...slog.Attr) {
	if !log.Enabled(ctx, level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, text, 0)
	r.AddAttrs(attrs...)
	_ = log.Handler().Handle(ctx, r) // as slog does: there is nowhere to report it
}
