package mcp

import (
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

func TestEventsAreTheSameInAnyPieces(t *testing.T) {
	t.Parallel()
	read := func(r io.Reader) (all []event) {
		for e, err := range events(r) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		return all
	}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{
			"\r", "\n", "\r\n", "data: a", "data:b", "id: 1", "retry: 5", ": c", "x",
		})).Draw(t, "parts"), "")
		whole, pieces := read(strings.NewReader(text)), read(iotest.OneByteReader(strings.NewReader(text)))
		unix := read(strings.NewReader(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")))
		if !slices.Equal(whole, pieces) || !slices.Equal(whole, unix) {
			t.Fatalf("%q: %v, in pieces %v, with other line ends %v", text, whole, pieces, unix)
		}
	})
}

// pieces returns at most 100 bytes of a text at a time.
type pieces struct{ *strings.Reader }

func (p pieces) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), 100)]) }

// Searching the whole line again for each piece took more than a minute.
func TestALongLineInSmallPiecesIsReadInLittleTime(t *testing.T) {
	t.Parallel()
	began := time.Now()
	for e, err := range events(pieces{strings.NewReader("data: " + strings.Repeat("x", maxBody-10) + "\n\n")}) {
		if err != nil || len(e.data) != maxBody-10 {
			t.Errorf("%d bytes, %v", len(e.data), err)
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestKeysInAnAddressAreSecretInEachForm(t *testing.T) {
	t.Parallel()
	u, err := url.Parse("https://user:pass%2Fword@h.example/api/s/c2VjcmV0LWlu%2BLXBhdGg/mcp" +
		"?key=a%2Bb%2Fconfigured&short=1")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{secrets: secretsOf(u, map[string][]string{"Authorization": {"Basic dXNlcjpiYXNpYy1wYXNzd29yZA=="}})}
	for _, secret := range []string{
		"pass/word", "pass%2Fword", "dXNlcjpwYXNzL3dvcmQ=", "c2VjcmV0LWlu%2BLXBhdGg", "c2VjcmV0LWlu+LXBhdGg",
		"a+b/configured", "a%2Bb%2Fconfigured", "basic-password", "dXNlcjpiYXNpYy1wYXNzd29yZA==",
	} {
		if got := s.safe("Cannot POST "+secret+"/mcp", 100); got != "Cannot POST ***/mcp" {
			t.Errorf("%s became %s", secret, got)
		}
	}
	if got := s.safe("Cannot POST /mcp", 100); got != "Cannot POST /mcp" {
		t.Errorf("a short part became %s", got)
	}
}
