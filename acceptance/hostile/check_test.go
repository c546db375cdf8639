//go:build linux

package main

import (
	"strings"
	"testing"
	"time"
)

// sound is evidence of a pass in which everything holds.
func sound() evidence {
	return evidence{
		pass: "limits", completed: 100, sent: 50 << 20, growth: 20 << 20, peak: 200 << 20,
		hostile: 300 * time.Millisecond, calm: 110 * time.Millisecond,
		deeds: []deed{
			{name: "topics", allowed: refused, statuses: map[int]int{422: 3, 413: 1}, sent: 2 << 20, growth: 1 << 20},
			{name: "runs", allowed: []int{200, 429}, statuses: map[int]int{200: 5, 429: 9}, limited: true},
			{name: "bodies", allowed: []int{closed}, statuses: map[int]int{closed: 30}, lasting: true},
		},
	}
}

func TestSoundEvidenceHasNoViolation(t *testing.T) {
	t.Parallel()
	if wrong := check(sound()); len(wrong) > 0 {
		t.Error(wrong)
	}
}

func TestEachPlantedFaultIsFound(t *testing.T) {
	t.Parallel()
	for want, plant := range map[string]func(*evidence){
		"the server ended: exit status 2":               func(e *evidence) { e.crash = "exit status 2" },
		"topics: 1 times status 500":                    func(e *evidence) { e.deeds[0].statuses[500] = 1 },
		"topics: 2 times status 200":                    func(e *evidence) { e.deeds[0].statuses[200] = 2 },
		"topics: 1 times a closed connection":           func(e *evidence) { e.deeds[0].statuses[closed] = 1 },
		"bodies: 5 times a connection that was held":    func(e *evidence) { e.deeds[2].statuses[held] = 5 },
		"runs: no 429, although the caller has limits":  func(e *evidence) { delete(e.deeds[1].statuses, 429) },
		"topics: no answer at all":                      func(e *evidence) { e.deeds[0].statuses = nil },
		"topics: the disk grew by 29.0 MB after 2.0 MB": func(e *evidence) { e.deeds[0].growth = 29 << 20 },
		"the disk grew by 501.0 MB after 50.0 MB":       func(e *evidence) { e.growth = 501 << 20 },
		"the server used 257.0 MB of memory":            func(e *evidence) { e.peak = 257 << 20 },
		"the memory was not measured":                   func(e *evidence) { e.peak = 0 },
		"the honest callers completed 19 requests only": func(e *evidence) { e.completed = 19 },
		"an honest caller: run: 500":                    func(e *evidence) { e.failed = []string{"run: 500"} },
		"the honest requests took 331ms":                func(e *evidence) { e.hostile = 331 * time.Millisecond },
	} {
		e := sound()
		plant(&e)
		if wrong := check(e); len(wrong) != 1 || !strings.HasPrefix(wrong[0], want) {
			t.Errorf("found %q, want one that begins with %q", wrong, want)
		}
	}
}

func TestThePercentileIsTheNearestRank(t *testing.T) {
	t.Parallel()
	var times []time.Duration
	for i := range 200 {
		times = append(times, time.Duration(200-i))
	}
	for n, want := range map[int]time.Duration{200: 198, 100: 199, 1: 200, 0: 0} {
		if got := percentile99(times[:n]); got != want {
			t.Errorf("of %d: %d, want %d", n, got, want)
		}
	}
}

func TestThereAreTwentyKindsOfAbuseEachWithANameOfItsOwn(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, k := range kinds {
		if names[k.name] || k.do == nil || len(k.allowed) == 0 {
			t.Errorf("%q: twice, or without a deed, or without an allowed answer", k.name)
		}
		names[k.name] = true
	}
	if len(names) < 20 {
		t.Errorf("%d kinds", len(names))
	}
}
