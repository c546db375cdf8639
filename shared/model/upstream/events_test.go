package upstream

import (
	"bufio"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestLinesAreThoseOfScanLinesInAnyPieces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"a", "bc", "\r", "\n", "\r\n"})).Draw(t, "text"), "")
		read := func(split bufio.SplitFunc) (lines []string) {
			s := bufio.NewScanner(iotest.OneByteReader(strings.NewReader(text)))
			s.Split(split)
			for s.Scan() {
				lines = append(lines, s.Text())
			}
			return lines
		}
		if got, want := read(splitLines()), read(bufio.ScanLines); !slices.Equal(got, want) {
			t.Fatalf("%q has the lines %q, want %q", text, got, want)
		}
	})
}

// The count of bytes that are searched shows it without a clock.
func TestALongLineInSmallPiecesIsSearchedOnce(t *testing.T) {
	t.Parallel()
	split, line := splitLines(), []byte(strings.Repeat("x", 1<<20))
	for end := 1; end <= len(line); end += 100 {
		if advance, token, err := split(line[:end], false); advance != 0 || token != nil || err != nil {
			t.Fatalf("%d %q %v", advance, token, err)
		}
		line[end-1] = '\n' // It would be found if it was searched again.
	}
	if advance, _, _ := split(append(line, '\n'), false); advance != len(line)+1 {
		t.Errorf("the line ends at %d, want %d", advance, len(line)+1)
	}
}
