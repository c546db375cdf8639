package pgvalue_test

import (
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/pgvalue"
)

func TestTextWithNULOrInvalidUTF8IsReplaced(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":              "",
		"plain 日本 🎉":    "plain 日本 🎉",
		"a\x00b":        "a\ufffdb",
		"a\xff\xfeb":    "a\ufffd\ufffdb",
		"\x00\xff\x00":  "\ufffd\ufffd\ufffd",
		"half\xe6\x97":  "half\ufffd\ufffd",
		"already\ufffd": "already\ufffd",
	} {
		got := pgvalue.CleanText(text)
		if got != want || !pgvalue.ValidText(got) {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
		if valid := pgvalue.ValidText(text); valid != (got == text) {
			t.Errorf("ValidText(%q) is %t, but CleanText returns %q", text, valid, got)
		}
	}
}

func TestTimesLoseTheirZoneAndWhatIsBelowAMicrosecond(t *testing.T) {
	t.Parallel()
	in := time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.FixedZone("", 3600))
	if got, want := pgvalue.Time(in), time.Date(2026, 1, 2, 2, 4, 5, 123456000, time.UTC); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
