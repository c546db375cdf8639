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

// script is a queue whose receiving a test plays; what is acknowledged is noted.
type script struct {
	asked   chan int             // how many a Receive asks for
	answers chan []queue.Message // what it is given

	mu   sync.Mutex
	acks []uuid.UUID
}

func newScript() *script { return &script{asked: make(chan int), answers: make(chan []queue.Message)} }

func (s *script) Enqueue(context.Context, uuid.UUID, time.Duration) error { return nil }

func (s *script) Receive(ctx context.Context, limit int) ([]queue.Message, error) {
	select {
	case s.asked <- limit:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case list := <-s.answers:
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

// work runs a worker of three places until the test ends.
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

func TestAWorkerAsksForNoMoreThanItCanCarry(t *testing.T) {
	t.Parallel()
	s, carried := newScript(), make(chan struct{})
	work(t, s, func(context.Context, uuid.UUID) (func(), bool, error) { return func() { <-carried }, true, nil })
	for _, row := range []struct{ asks, given int }{{3, 0}, {3, 1}, {2, 2}} {
		if got := <-s.asked; got != row.asks {
			t.Errorf("it asks for %d, want %d", got, row.asks)
		}
		s.answers <- messages(row.given)
	}
	select { // every place is taken
	case n := <-s.asked:
		t.Errorf("it asks for %d more", n)
	case carried <- struct{}{}:
	}
	if got := <-s.asked; got != 1 {
		t.Errorf("it asks for %d, want 1", got)
	}
	close(carried)
}

func TestWhatCannotBeTakenIsLeftInTheQueue(t *testing.T) {
	t.Parallel()
	s := newScript()
	list := messages(3)
	carried := make(chan struct{})
	work(t, s, func(_ context.Context, id uuid.UUID) (func(), bool, error) {
		switch id {
		case list[0].RunID:
			return nil, false, errors.New("no database")
		case list[1].RunID:
			return nil, false, nil // somebody else has it
		}
		return func() { <-carried }, true, nil
	})
	<-s.asked
	s.answers <- list
	<-s.asked // all three were looked at; the last is still carried
	if got := s.acknowledged(); len(got) != 2 || got[0] != list[1].RunID || got[1] != list[2].RunID {
		t.Errorf("acknowledged are %v of %v", got, list)
	}
	close(carried)
}
