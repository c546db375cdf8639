// Package queuetest holds the tests of the contract of queue.Queue. Each implementation calls Run from its own test.
// It tests that an implementation of queue.Queue keeps its contract.
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

// Fixture is an empty queue for one test.
type Fixture struct {
	// Queue is the queue under test.
	Queue queue.Queue
	// Other is the same queue as another process opens it.
	Other queue.Queue
	// NewID returns the id of a new pending run.
	NewID func() uuid.UUID
	// WaitUntilVisible returns when everything that was received before the call, and was not acknowledged, is visible
	// again. A queue with a clock of its own may advance the clock instead.
	WaitUntilVisible func(context.Context)
	// SingleUse reports that the queue refuses a receipt that was used, or that is not the last one of its message. SQS
	// accepts both (DeleteMessage in its API reference). ElasticMQ does not.
	SingleUse bool
	// Duplicates is how many of 20 messages two receivers may both get at the same time. Defaults to 0.
	Duplicates int
}

const (
	patience = 30 * time.Second // how long any step may take
	delay    = 10 * time.Second // the delay of a message that is to be delivered later
	brief    = 3 * time.Second  // the visibility timeout of tests in which messages come back
)

// Run tests a queue. open returns a Fixture of the test's own, with at least that visibility timeout.
func Run(t *testing.T, open func(*testing.T, time.Duration) Fixture) {
	t.Helper()
	for name, test := range map[string]struct {
		check      func(*testing.T, Fixture)
		visibility time.Duration
	}{
		"an enqueued message is received by any process": {testReceive, 2 * patience},
		"an acknowledged message is not delivered again": {testAcknowledge, brief},
		"an unacknowledged message is delivered again":   {testRedelivery, brief},
		"a message is given to one of two receivers":     {testSingleDelivery, 2 * patience},
		"no message is lost when receivers crash":        {testCrashes, brief},
		"a delayed message is delivered after its delay": {testDelay, brief},
		"a waiting receiver is woken, and ends with ctx": {testWake, 2 * patience},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.check(t, open(t, test.visibility))
		})
	}
}

// receive collects messages until it has those of n different runs.
func receive(t *testing.T, q queue.Queue, n int) map[uuid.UUID]queue.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := map[uuid.UUID]queue.Message{}
	// A queue may return fewer messages than it has, so one Receive is not enough.
	for len(got) < n {
		messages, err := q.Receive(ctx, n-len(got))
		if err != nil {
			t.Fatalf("%d of %d received: %v", len(got), n, err)
		}
		if len(messages) > n-len(got) {
			t.Fatalf("got %d messages with the limit %d", len(messages), n-len(got))
		}
		for _, m := range messages {
			got[m.RunID] = m
		}
	}
	return got
}

// enqueue sends the messages of n new runs, without a delay, and returns their ids.
func enqueue(t *testing.T, f Fixture, n int) []uuid.UUID {
	t.Helper()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = f.NewID()
		if err := f.Queue.Enqueue(t.Context(), ids[i], "ann", 0); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// acknowledge acknowledges a message, which is no error.
func acknowledge(t *testing.T, q queue.Queue, m queue.Message) {
	t.Helper()
	if err := q.Acknowledge(t.Context(), m); err != nil {
		t.Errorf("%+v: %v", m, err)
	}
}

// acknowledgeAgain acknowledges a message with a receipt that was used, or is not its last one. That is no error
// either, except with Fixture.SingleUse.
func (f Fixture) acknowledgeAgain(t *testing.T, m queue.Message) {
	t.Helper()
	if err := f.Other.Acknowledge(t.Context(), m); (err != nil) != f.SingleUse {
		t.Errorf("%+v: %v, and an error is %v", m, err, f.SingleUse)
	}
}

// wantRuns compares runs without their order, which no queue guarantees.
func wantRuns(t *testing.T, want []uuid.UUID, got map[uuid.UUID]queue.Message) {
	t.Helper()
	byText := func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }
	if diff := cmp.Diff(slices.SortedFunc(slices.Values(want), byText),
		slices.SortedFunc(maps.Keys(got), byText)); diff != "" {
		t.Error(diff)
	}
}

// testReceive enqueues three messages in one process and receives them in two.
func testReceive(t *testing.T, f Fixture) {
	ids := enqueue(t, f, 3)
	got := receive(t, f.Queue, 1)
	maps.Copy(got, receive(t, f.Other, 2))
	wantRuns(t, ids, got)
}

// testDelay enqueues a delayed message and then one without delay, which is delivered first.
func testDelay(t *testing.T, f Fixture) {
	late := f.NewID()
	if err := f.Queue.Enqueue(t.Context(), late, "ann", delay); err != nil {
		t.Fatal(err)
	}
	soon := enqueue(t, f, 1)
	got := receive(t, f.Queue, 1)
	wantRuns(t, soon, got)
	acknowledge(t, f.Queue, got[soon[0]])
	f.WaitUntilVisible(t.Context())
	wantRuns(t, []uuid.UUID{late}, receive(t, f.Other, 1))
}

// testAcknowledge enqueues one more message at the end. Any other message that is received with it was delivered again.
func testAcknowledge(t *testing.T, f Fixture) {
	ids := enqueue(t, f, 2)
	for _, m := range receive(t, f.Queue, 2) {
		acknowledge(t, f.Other, m)
		f.acknowledgeAgain(t, m) // It has no effect.
	}
	f.WaitUntilVisible(t.Context())
	sentinel := enqueue(t, f, 1)
	wantRuns(t, sentinel, receive(t, f.Queue, 1))
	if t.Failed() {
		t.Logf("acknowledged: %v", ids)
	}
}

// testRedelivery acknowledges one of two messages. The other one must be delivered again, with another receipt, so
// that the first receipt cannot acknowledge the second delivery.
func testRedelivery(t *testing.T, f Fixture) {
	ids := enqueue(t, f, 2)
	first := receive(t, f.Queue, 2)
	acknowledge(t, f.Queue, first[ids[0]])
	f.WaitUntilVisible(t.Context())
	again := receive(t, f.Other, 1)
	wantRuns(t, ids[1:], again)
	if again[ids[1]].Receipt == first[ids[1]].Receipt {
		t.Error("both deliveries have the same receipt")
	}
	f.acknowledgeAgain(t, first[ids[1]]) // It may have no effect.
}

// testSingleDelivery receives with two processes at the same time. While a message is invisible, only one of them may
// get it; that saves work, although a run's lease would prevent a double execution too.
func testSingleDelivery(t *testing.T, f Fixture) {
	const n = 20
	ids := enqueue(t, f, n)
	twice := 0
	var mu sync.Mutex
	got := map[uuid.UUID]queue.Message{}
	var all sync.WaitGroup
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for _, q := range []queue.Queue{f.Queue, f.Other} {
		all.Go(func() {
			for ctx.Err() == nil {
				messages, _ := q.Receive(ctx, 3) // It fails when ctx ends.
				mu.Lock()
				for _, m := range messages {
					if _, again := got[m.RunID]; again {
						twice++
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
	wantRuns(t, ids, got)
	if twice > f.Duplicates {
		t.Errorf("%d of %d messages are delivered twice, and %d may be", twice, n, f.Duplicates)
	}
}

// testCrashes leaves every second message unacknowledged, as a receiver that crashes does, until few are left.
func testCrashes(t *testing.T, f Fixture) {
	const n = 12
	ids := enqueue(t, f, n)
	// Each round receives what the previous one did not acknowledge, in the other process.
	done := map[uuid.UUID]queue.Message{}
	for rest, q := n, f.Queue; rest > 0; q = f.Other {
		i := 0
		for id, m := range receive(t, q, rest) {
			if i++; i%2 == 0 && rest > 2 {
				continue
			}
			acknowledge(t, q, m)
			if _, twice := done[id]; twice {
				t.Errorf("run %s was delivered again after its acknowledgement", id)
			}
			done[id] = m
		}
		rest = n - len(done)
		f.WaitUntilVisible(t.Context())
	}
	wantRuns(t, ids, done)
}

// testWake enqueues while a receiver waits. It also checks that a waiting receiver returns when its context ends.
func testWake(t *testing.T, f Fixture) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := make(chan queue.Message, 1)
	go func() {
		defer close(got)
		for ctx.Err() == nil {
			if messages, _ := f.Queue.Receive(ctx, 1); len(messages) > 0 {
				got <- messages[0]
				return
			}
		}
	}()
	id := enqueue(t, f, 1)[0]
	m := <-got
	if m.RunID != id {
		t.Fatalf("received %+v, want run %s", m, id)
	}
	acknowledge(t, f.Queue, m)
	// The queue is empty now. A receiver that waits must return soon after its context ends.
	stopped, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for {
			if messages, err := f.Queue.Receive(stopped, 1); err != nil || len(messages) > 0 {
				ended <- err
				return
			}
		}
	}()
	stop()
	if err := <-ended; err == nil {
		t.Error("an empty queue delivered a message")
	}
}
