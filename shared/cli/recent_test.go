package cli

import (
	"fmt"
	"strings"
	"testing"
)

// shown returns the lines and the cursor of a part of the log.
func shown(r *recent, limit int, cursor string) (lines, next string) {
	part := r.after(limit, cursor)
	for _, l := range part.Decisions {
		lines += string(l)
	}
	return lines, part.Next
}

func TestTheNewestDecisionsAreReadOnceEach(t *testing.T) {
	t.Parallel()
	r := &recent{run: "x"}
	write := func(from, to int) {
		for n := from; n <= to; n++ {
			fmt.Fprintf(r, "[%d]\n", n)
		}
	}
	if lines, next := shown(r, 10, ""); lines != "" || next != "x-0" {
		t.Errorf("%s %s", lines, next)
	}
	write(1, 5)
	for _, step := range []struct {
		limit            int
		cursor           string
		lines, following string
	}{
		{10, "", "[1][2][3][4][5]", "x-5"},
		{2, "", "[4][5]", "x-5"},
		{2, "x-0", "[1][2]", "x-2"},
		{2, "x-2", "[3][4]", "x-4"},
		{2, "x-4", "[5]", "x-5"},
		{2, "x-5", "", "x-5"},
		// The cursor of an earlier server, and texts that are none.
		{2, "y-1", "[4][5]", "x-5"}, {2, "x-6", "[4][5]", "x-5"}, {2, "x-", "[4][5]", "x-5"}, {2, "x", "[4][5]", "x-5"},
		{2, "x--1", "[4][5]", "x-5"},
	} {
		if lines, next := shown(r, step.limit, step.cursor); lines != step.lines || next != step.following {
			t.Errorf("%d after %q: %s %s, want %s %s", step.limit, step.cursor, lines, next, step.lines, step.following)
		}
	}
	write(6, maxRecent+10)
	if lines, next := shown(r, 1, "x-5"); lines != "[11]" || next != "x-11" {
		t.Errorf("after lines that are gone: %s %s", lines, next)
	}
	if lines, _ := shown(r, maxRecent, ""); !strings.HasPrefix(lines, "[11]") || !strings.HasSuffix(lines, "[1010]") {
		t.Errorf("%.20s", lines)
	}
}

func TestTheNewestDecisionsNeedABoundedAmountOfMemory(t *testing.T) {
	t.Parallel()
	r := &recent{}
	for range maxRecent {
		fmt.Fprintf(r, "%q\n", strings.Repeat("x", 16<<10))
	}
	if r.size > maxRecentBytes || len(r.lines) != maxRecentBytes/(16<<10+2) {
		t.Errorf("%d lines of %d bytes", len(r.lines), r.size)
	}
}
