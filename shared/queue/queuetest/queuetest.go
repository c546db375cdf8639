// Package queuetest is what every queue.Queue must do, as tests.
package queuetest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/queue"
)

// Bench is an empty queue, and what a test does beside it.
type Bench struct {
	Queue queue.Queue
	Other queue.Queue           // the same queue, as another process has it
	NewID func() uuid.UUID      // of a run that waits
	Late  func(context.Context) // returns when what was received until now is too late to acknowledge
}

const (
	patience = 30 * time.Second // how long anything may take
	delay    = 10 * time.Second // of what is to come later
	brief    = 3 * time.Second  // for which what was received stays away, where it is to come back
)

// Run holds a queue to its contract. open makes a Bench of the test's own, where what
// was received stays away for at least that long.
func Run(t *testing.T, open func(*testing.T, time.Duration) Bench) {
	t.Helper()
	for name, test := range map[string]struct {
		hold func(*testing.T, Bench)
		away time.Duration
	}{
		"what is enqueued is received, anywhere":         {received, 2 * patience},
		"what was acknowledged does not come back":       {acknowledged, brief},
		"what was received and not acknowledged does":    {redelivered, brief},
		"of two who receive, one is given a message":     {once, 2 * patience},
		"receivers that die lose nothing":                {lossless, brief},
		"what is to come later does":                     {delayed, brief},
		"who waits is woken, and stops with its context": {woken, 2 * patience},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.hold(t, open(t, test.away))
		})
	}
}

// receive collects messages until there are n different runs.
func receive(t *testing.T, q queue.Queue, n int) map[uuid.UUID]queue.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := map[uuid.UUID]queue.Message{}
	for len(got) < n {
		messages, err := q.Receive(ctx, n-len(got))
		if err != nil {
			t.Fatalf("%d of %d received: %v", len(got), n, err)
		}
		if len(messages) > n-len(got) {
			t.Fatalf("%d messages where %d were asked for", len(messages), n-len(got))
		}
		for _, m := range messages {
			got[m.RunID] = m
		}
	}
	return got
}

func enqueue(t *testing.T, b Bench, n int) []uuid.UUID {
	t.Helper()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = b.NewID()
		if err := b.Queue.Enqueue(t.Context(), ids[i], 0); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func acknowledge(t *testing.T, q queue.Queue, m queue.Message) {
	t.Helper()
	if err := q.Acknowledge(t.Context(), m); err != nil {
		t.Errorf("%+v: %v", m, err)
	}
}

// same compares runs without their order, which no queue promises.
func same(t *testing.T, want []uuid.UUID, got map[uuid.UUID]queue.Message) {
	t.Helper()
	byText := func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }
	if diff := cmp.Diff(slices.SortedFunc(slices.Values(want), byText), slices.SortedFunc(maps.Keys(got), byText)); diff != "" {
		t.Error(diff)
	}
}

func received(t *testing.T, b Bench) {
	ids := enqueue(t, b, 3)
	got := receive(t, b.Queue, 1)
	maps.Copy(got, receive(t, b.Other, 2))
	same(t, ids, got)
}

// What is enqueued after it comes before it.
func delayed(t *testing.T, b Bench) {
	late := b.NewID()
	if err := b.Queue.Enqueue(t.Context(), late, delay); err != nil {
		t.Fatal(err)
	}
	soon := enqueue(t, b, 1)
	got := receive(t, b.Queue, 1)
	same(t, soon, got)
	acknowledge(t, b.Queue, got[soon[0]])
	b.Late(t.Context())
	same(t, []uuid.UUID{late}, receive(t, b.Other, 1))
}

// The last message is a sentinel: what comes beside it came back.
func acknowledged(t *testing.T, b Bench) {
	ids := enqueue(t, b, 2)
	for _, m := range receive(t, b.Queue, 2) {
		acknowledge(t, b.Other, m)
		acknowledge(t, b.Other, m) // once more is nothing
	}
	b.Late(t.Context())
	sentinel := enqueue(t, b, 1)
	same(t, sentinel, receive(t, b.Queue, 1))
	if t.Failed() {
		t.Logf("acknowledged: %v", ids)
	}
}

func redelivered(t *testing.T, b Bench) {
	ids := enqueue(t, b, 2)
	first := receive(t, b.Queue, 2)
	acknowledge(t, b.Queue, first[ids[0]])
	b.Late(t.Context())
	again := receive(t, b.Other, 1)
	same(t, ids[1:], again)
	if again[ids[1]].Receipt == first[ids[1]].Receipt {
		t.Error("both deliveries have one receipt")
	}
}

func once(t *testing.T, b Bench) {
	const n = 20
	ids := enqueue(t, b, n)
	var mu sync.Mutex
	got := map[uuid.UUID]queue.Message{}
	var all sync.WaitGroup
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for _, q := range []queue.Queue{b.Queue, b.Other} {
		all.Go(func() {
			for ctx.Err() == nil {
				messages, _ := q.Receive(ctx, 3) // its error is the end
				mu.Lock()
				for _, m := range messages {
					if _, twice := got[m.RunID]; twice {
						t.Errorf("%s is given twice", m.RunID)
					}
					if got[m.RunID] = m; len(got) == n {
						stop()
					}
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	same(t, ids, got)
}

// Every second message is lost by who received it, until a round in which nobody
// dies.
func lossless(t *testing.T, b Bench) {
	const n = 12
	ids := enqueue(t, b, n)
	done := map[uuid.UUID]queue.Message{}
	for rest, q := n, b.Queue; rest > 0; q = b.Other {
		i := 0
		for id, m := range receive(t, q, rest) {
			if i++; i%2 == 0 && rest > 2 {
				continue
			}
			acknowledge(t, q, m)
			if _, twice := done[id]; twice {
				t.Errorf("%s came back after it was acknowledged", id)
			}
			done[id] = m
		}
		rest = n - len(done)
		b.Late(t.Context())
	}
	same(t, ids, done)
}

func woken(t *testing.T, b Bench) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := make(chan queue.Message, 1)
	go func() {
		defer close(got)
		for ctx.Err() == nil {
			if messages, _ := b.Queue.Receive(ctx, 1); len(messages) > 0 {
				got <- messages[0]
				return
			}
		}
	}()
	id := enqueue(t, b, 1)[0]
	m := <-got
	if m.RunID != id {
		t.Fatalf("woken with %+v, want %s", m, id)
	}
	acknowledge(t, b.Queue, m)
	stopped, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for {
			if messages, err := b.Queue.Receive(stopped, 1); err != nil || len(messages) > 0 {
				ended <- err
				return
			}
		}
	}()
	stop()
	if err := <-ended; err == nil {
		t.Error("a message came out of an empty queue")
	}
}
