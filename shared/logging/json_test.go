package logging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/logging"
)

// both returns the line of a record by the handler of this package, and by slog's.
func both(t *testing.T, r slog.Record) (ours, slogs string) {
	t.Helper()
	var out, want bytes.Buffer
	if err := logging.NewJSON(&out).Handler().Handle(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := slog.NewJSONHandler(&want, nil).Handle(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return out.String(), want.String()
}

func FuzzLines(f *testing.F) {
	for _, text := range []string{
		"", "plain", `a "quote" and a \`, "a\nb\tc\r\b\f\x00\x7f", "é\u2028\u0085", "\xff", "<&>",
	} {
		for _, number := range []float64{0, 0.123, 1e-7, 1e21, -12.5, math.Copysign(0, -1), math.MaxFloat64} {
			f.Add(text, text, number, int64(-1), int64(0))
		}
	}
	f.Add("text", "key", 1.0, int64(1), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, text, key string, number float64, whole, nanos int64) {
		if math.IsNaN(number) || math.IsInf(number, 0) {
			return // slog writes an error, which has an address
		}
		// An attribute that has to be left to slog comes at any place.
		for _, last := range []slog.Attr{
			slog.Bool("last", true), slog.Any("list", []string{text, "b"}), slog.Any("list", []string{}),
			slog.Any("list", []string(nil)), slog.Duration("d", time.Second),
			slog.Time("at", time.Unix(whole%1e9, nanos)), slog.Any("err", errors.New(text)),
			slog.Any("raw", json.RawMessage(`{"a":1}`)), slog.Group("g", slog.Int("n", 1)), {},
			slog.Uint64("u", uint64(whole)), slog.Any("none", nil), //nolint:gosec // any number will do
		} {
			at := time.Unix(whole%1e12, nanos).UTC()
			r := slog.NewRecord(at, slog.Level(whole%10), text, 0)
			r.AddAttrs(slog.String("a", text), slog.String(key, "x"), slog.Float64("f", number))
			r.AddAttrs(slog.Int64("n", whole), last)
			if ours, want := both(t, r); ours != want {
				t.Errorf("wrote\n%swant\n%s", ours, want)
			}
		}
	})
}

func TestALineHasTheLoggersAttributesAndGroups(t *testing.T) {
	t.Parallel()
	var out, want bytes.Buffer
	write := func(log *slog.Logger) {
		r := slog.NewRecord(time.Unix(1, 0), slog.LevelWarn, "text", 0)
		r.AddAttrs(slog.Int("n", 1))
		_ = log.With("a", "b").WithGroup("g").Handler().Handle(t.Context(), r)
	}
	write(logging.NewJSON(&out))
	write(slog.New(slog.NewJSONHandler(&want, nil)))
	if out.String() != want.String() {
		t.Errorf("wrote %s, want %s", &out, &want)
	}
}

// A line of a decision, as most requests write one.
func aLine() []slog.Attr {
	return []slog.Attr{
		slog.String("request_id", "R"), slog.Bool("allow", true),
		slog.Any("scopes", []string{"agents:read", "agents:run"}),
		slog.String("route", "GET /agents"), slog.Any("need", []string{"agents:read"}), slog.Float64("ms", 0.123),
		slog.Int("us", 12),
	}
}

func TestALineAllocatesLittle(t *testing.T) { //nolint:paralleltest // it counts allocations
	log, attrs := logging.NewJSON(discard{}), aLine()
	got := testing.AllocsPerRun(100, func() { logging.Write(t.Context(), log, slog.LevelInfo, "decision", attrs...) })
	if got > 2 { // one is for the attributes after the fifth one, the other is room for the race detector
		t.Errorf("%g allocations for a line, want at most 2", got)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkLine(b *testing.B) {
	for name, log := range map[string]*slog.Logger{
		"ours": logging.NewJSON(discard{}), "slog": slog.New(slog.NewJSONHandler(discard{}, nil)),
	} {
		attrs := aLine()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				logging.Write(b.Context(), log, slog.LevelInfo, "decision", attrs...)
			}
		})
	}
}
