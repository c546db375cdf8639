package store_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// PostgreSQL logs the rejected values of a unique index and of a check. So no statement may run into one, however many
// callers send the same thing at the same time. Here an operator's own PostgreSQL logs by its defaults.
func TestPostgreSQLLogsNothingThatCallersSent(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	const secret = "zq-planted-"
	session := store.Session{
		Owner: secret + "owner", SessionID: secret + "session", SessionType: "agent",
		CreatedAt: day,
	}
	memory := store.Memory{
		MemoryID: uuid.New(), Owner: secret + "owner", Memory: secret + "memory", Topics: []string{},
		CreatedAt: day,
	}
	run := store.Run{
		Status: "PENDING", Owner: secret + "owner", SessionID: secret + "of-a-run", AgentID: "a", AgentName: "A",
		ModelID:       "m",
		ModelProvider: "P", Input: secret + "input", CreatedAt: day, SessionState: json.RawMessage(`{"` + secret + `":1}`),
	}
	how := store.BeginOptions{Request: store.Request{Key: secret + "key", Digest: []byte{1}}, History: 3}
	const callers = 32
	results := make(chan error, callers)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			mine := run
			mine.RunID = uuid.New()
			_, err := db.BeginRun(t.Context(), mine, how)
			results <- err
			if err := db.CreateSession(t.Context(), session); err != nil && !errors.Is(err, fault.Conflict) {
				t.Error(err)
			}
			if err := db.AddMemory(t.Context(), memory); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(results)
	began := 0
	for err := range results {
		if _, repeated := errors.AsType[*store.Repeated](err); err == nil {
			began++
		} else if !repeated {
			t.Error(err)
		}
	}
	if began != 1 {
		t.Errorf("%d runs have begun with one key", began)
	}
	other := run
	other.RunID, other.SessionID = uuid.New(), secret+"never"
	how.Request.Digest = []byte{2}
	if _, err := db.BeginRun(t.Context(), other, how); !errors.Is(err, fault.Conflict) {
		t.Errorf("another request with the key: %v", err)
	}
	if _, err := db.Session(t.Context(), admin, other.SessionID, ""); !errors.Is(err, fault.NotFound) {
		t.Errorf("a refused request has stored its session: %v", err)
	}
	for line := range strings.Lines(storetest.Log(t)) {
		if strings.Contains(line, "zq-planted") {
			t.Errorf("PostgreSQL logs %s", line)
		}
	}
}
