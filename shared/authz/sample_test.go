package authz

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// sampler writes decisions at times of its own.
type sampler struct {
	t                *testing.T
	allowed, refused bytes.Buffer
	log              *Log
	policy           *Policy
	now              time.Time
}

func newSampler(t *testing.T) *sampler {
	t.Helper()
	s := &sampler{t: t, policy: policy(t, admin), now: time.Now()}
	s.log = NewLog(slog.New(slog.NewJSONHandler(&s.allowed, nil)), "0123456789abcdef", nil).
		RefusalsTo(slog.New(slog.NewJSONHandler(&s.refused, nil)))
	return s
}

func (s *sampler) write(times int, p *Principal, request string) {
	for range times {
		e := about(s.policy, p, request)
		e.Began = s.now
		s.log.Write(s.t.Context(), e)
	}
}

// counts returns how many lines of refusals there are, and how many refusals they stand for, by status.
func (s *sampler) counts() (lines int, total map[int]int) {
	total = map[int]int{}
	for text := range strings.Lines(s.refused.String()) {
		var l struct {
			Msg           string
			Allow         *bool
			Status, Times int
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.Msg != "decision" || l.Allow == nil || *l.Allow {
			s.t.Fatalf("%s: %v", text, err)
		}
		lines++
		total[l.Status] += max(1, l.Times)
	}
	return lines, total
}

func TestEqualRefusalsAreWrittenOnceAndCounted(t *testing.T) {
	t.Parallel()
	s := newSampler(t)
	s.write(5000, nil, "GET /agents")
	s.write(3, ann(), "GET /agents")
	s.write(2, ann("agents:read"), "GET /agents")
	if lines, total := s.counts(); lines != 13 || total[401] != 10 || total[403] != 3 {
		t.Errorf("%d lines for %v", lines, total)
	}
	s.now = s.now.Add(time.Minute)
	s.write(1, ann("agents:read"), "GET /agents") // the next decision of any kind writes the count
	if lines, total := s.counts(); lines != 14 || total[401] != 5000 || total[403] != 3 {
		t.Errorf("%d lines for %v", lines, total)
	}
	s.write(12, nil, "GET /agents") // a new minute
	s.log.Flush()
	if lines, total := s.counts(); lines != 25 || total[401] != 5012 {
		t.Errorf("%d lines for %v", lines, total)
	}
	if n := strings.Count(s.allowed.String(), "\n"); n != 3 {
		t.Errorf("%d lines of what was allowed:\n%s", n, &s.allowed)
	}
}

// A caller that varies everything that it can vary writes a bounded number of lines.
func TestDifferentRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	s := newSampler(t)
	const sent = 20_000
	for i := range sent {
		p := ann()
		p.Hash = fmt.Sprintf("%016x", i)
		s.write(1, p, fmt.Sprintf("GET /agents/a%d", i))
	}
	s.log.Flush()
	lines, total := s.counts()
	if lines > maxDistinct+maxEqual+1 || total[403] != sent {
		t.Errorf("%d lines for %v", lines, total)
	}
	// The last line stands for refusals of many callers, so that it names none of them.
	all := strings.Split(strings.TrimSpace(s.refused.String()), "\n")
	if last := all[len(all)-1]; strings.Contains(last, "principal") || strings.Contains(last, "route") {
		t.Error(last)
	}
}
