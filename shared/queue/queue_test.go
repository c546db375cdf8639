package queue_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/queue"
)

// script is a queue whose deliveries are controlled by the test. It records acknowledgements.
type script struct {
	limits   chan int             // the limit of each Receive
	messages chan []queue.Message // what each Receive returns

	mu   sync.Mutex
	acks []uuid.UUID
}

func newScript() *script {
	return &script{limits: make(chan int), messages: make(chan []queue.Message)}
}

func (s *script) Enqueue(context.Context, uuid.UUID, string, time.Duration) error { return nil }

func (s *script) Receive(ctx context.Context, limit int) ([]queue.Message, error) {
	select {
	case s.limits <- limit:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case list := <-s.messages:
		return list, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *script) Acknowledge(_ context.Context, m queue.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acks = append(s.acks, m.RunID)
	return nil
}

func (s *script) acknowledged() []uuid.UUID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]uuid.UUID{}, s.acks...)
}

// work runs a worker with three slots until the test ends.
func work(t *testing.T, s *script, claim queue.Claim) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		queue.Work(ctx, s, slog.New(slog.NewTextHandler(io.Discard, nil)), 3, claim)
	}()
	t.Cleanup(func() { stop(); <-ended })
}

func messages(n int) (list []queue.Message) {
	for range n {
		list = append(list, queue.Message{RunID: uuid.New()})
	}
	return list
}

func TestAWorkerReceivesNoMoreThanItsFreeSlots(t *testing.T) {
	t.Parallel()
	s, finish := newScript(), make(chan struct{})
	work(t, s, func(context.Context, uuid.UUID) (func(), bool, error) { return func() { <-finish }, true, nil })
	for _, row := range []struct{ limit, delivered int }{{3, 0}, {3, 1}, {2, 2}} {
		if got := <-s.limits; got != row.limit {
			t.Errorf("Receive has the limit %d, want %d", got, row.limit)
		}
		s.messages <- messages(row.delivered)
	}
	select { // No slot is free.
	case n := <-s.limits:
		t.Errorf("without a free slot, Receive has the limit %d", n)
	case finish <- struct{}{}:
	}
	if got := <-s.limits; got != 1 {
		t.Errorf("Receive has the limit %d, want 1", got)
	}
	close(finish)
}

func TestAMessageIsNotAcknowledgedIfItsClaimFails(t *testing.T) {
	t.Parallel()
	s := newScript()
	list := messages(3)
	finish := make(chan struct{})
	work(t, s, func(_ context.Context, id uuid.UUID) (func(), bool, error) {
		switch id {
		case list[0].RunID:
			return nil, false, errors.New("no database")
		case list[1].RunID:
			return nil, false, nil // Another process executes it.
		}
		return func() { <-finish }, true, nil
	})
	<-s.limits
	s.messages <- list
	<-s.limits // All three claims are done; the last run is still executed.
	if got := s.acknowledged(); len(got) != 2 || got[0] != list[1].RunID || got[1] != list[2].RunID {
		t.Errorf("acknowledged are %v, want the last two of %v", got, list)
	}
	close(finish)
}
