package authz

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

const (
	// sampleTime is how long refusals are counted together.
	sampleTime = time.Minute
	// maxEqual is how many equal refusals of that time are written.
	maxEqual = 10
	// maxDistinct is how many different refusals of that time are distinguished. All others are counted together, by
	// their status. A caller can name many agents and have many subjects.
	maxDistinct = 256
)

// equal is what equal refusals have in common.
type equal struct {
	status                  int
	principal, route, agent string
}

// tally counts equal refusals.
type tally struct {
	written int
	left    int         // not written
	attrs   []slog.Attr // of the first one that was not written
}

// samples decides which refusals are written. The zero value has counted none.
type samples struct {
	mu    sync.Mutex
	began time.Time
	seen  map[equal]*tally
}

// take counts the refusal e, whose line would have the agent and the attributes a, and reports whether it is to be
// written. left are the refusals of an earlier minute that were not. For what was allowed, it only returns left.
func (s *samples) take(e Entry, agent string, a []slog.Attr) (write bool, left []tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen != nil && e.Began.Sub(s.began) >= sampleTime {
		left = s.clear()
	}
	if e.Err == nil {
		return true, left
	}
	if s.seen == nil {
		s.seen, s.began = map[equal]*tally{}, e.Began
	}
	k := equal{status: fault.KindOf(e.Err).Status()}
	var others equal
	others, k.principal = k, e.hash()
	if r := e.Decision.Route; r != nil {
		k.route, k.agent = r.String(), agent
	}
	t := s.seen[k]
	if t == nil && len(s.seen) >= maxDistinct {
		k = others
		t = s.seen[k]
	}
	if t == nil {
		t = &tally{}
		s.seen[k] = t
	}
	if t.written < maxEqual {
		t.written++
		return true, left
	}
	if t.left == 0 {
		t.attrs = slices.Clone(a)
		if k == others { // The others may differ from this one in everything but the status.
			t.attrs = []slog.Attr{slog.Bool("allow", false), slog.Int("status", k.status)}
		}
	}
	t.left++
	return false, left
}

// hash returns the hash of the caller, or "" without one.
func (e Entry) hash() string {
	if e.Principal == nil {
		return ""
	}
	return e.Principal.Hash
}

// rest returns the refusals that were not written and forgets all.
func (s *samples) rest() []tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clear()
}

func (s *samples) clear() (left []tally) {
	for _, t := range s.seen {
		if t.left > 0 {
			left = append(left, *t)
		}
	}
	s.seen = nil
	return left
}
