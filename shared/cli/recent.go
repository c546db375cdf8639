package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/keyway-agents/keyway/shared/wire"
)

const (
	// maxRecent is how many of the newest lines of the log of decisions are kept in memory for GET /decisions.
	maxRecent = 1000
	// maxRecentBytes is how many bytes of these lines are kept.
	maxRecentBytes = 4 << 20
)

// recent holds the newest lines of the log of decisions, of what was allowed and of what was refused. It is an
// io.Writer for slog's JSON handler, which writes whole lines. The zero value holds none.
type recent struct {
	mu    sync.Mutex
	lines []json.RawMessage
	size  int
	// last is the number of the newest line. The first one has the number 1.
	last uint64
	// run is in the cursors, so that those of an earlier server are not taken for this one's.
	run string
}

// Write implements io.Writer.
func (r *recent) Write(line []byte) (int, error) {
	kept := json.RawMessage(bytes.Clone(bytes.TrimSpace(line)))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, kept)
	r.size += len(kept)
	r.last++
	for len(r.lines) > maxRecent || r.size > maxRecentBytes {
		r.size -= len(r.lines[0])
		r.lines[0] = nil // the array behind the lines lives on
		r.lines = r.lines[1:]
	}
	return len(line), nil
}

// after returns at most limit lines: those that follow a cursor, and the newest ones without a cursor of this server.
// If the lines that follow are no longer there, it begins with the oldest one.
func (r *recent) after(limit int, cursor string) wire.DecisionLog {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := r.last - uint64(len(r.lines)) // the number before that of the oldest line
	begin := max(oldest, r.last-min(r.last, uint64(limit)))
	if run, text, _ := strings.Cut(cursor, "-"); run == r.run {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil && n <= r.last {
			begin = max(oldest, n)
		}
	}
	end := min(r.last, begin+uint64(limit))
	out := wire.DecisionLog{Decisions: []json.RawMessage{}, Next: fmt.Sprintf("%s-%d", r.run, end)}
	out.Decisions = append(out.Decisions, r.lines[begin-oldest:end-oldest]...)
	return out
}
