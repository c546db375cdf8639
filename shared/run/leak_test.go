package run_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/wire"
)

// perRun is a model that gives every run the same answers in turn.
type perRun struct{ answers []answer }

func (m perRun) Describe() model.Description { return (&scripted{}).Describe() }

func (m perRun) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	given := 0 // answers in this run
	for _, message := range r.Messages {
		if message.Role == model.Assistant {
			given++
		}
	}
	return (&scripted{answers: m.answers[given:]}).Stream(ctx, r)
}

// Runs with every kind of end leave no goroutine and no running row. The test is not parallel, because goroutines of
// other tests would be counted.
func TestManyRunsLeaveNoGoroutineAndNoRunningRow(t *testing.T) { //nolint:paralleltest // see above
	url := storetest.URL(t)
	before := goleak.IgnoreCurrent()
	db := storetest.Open(t, store.Options{URL: url, MaxConns: 4})
	tool := model.ToolCall{ID: "c", Name: "search"}
	agent := func(id string, timeout time.Duration, answers ...answer) run.Agent {
		return run.Agent{Agent: config.Agent{ID: id, Name: id, Timeout: timeout}, Model: perRun{answers}}
	}
	ids := []string{"answers", "asks for tools", "breaks", "is slow", "is cancelled", "loses its consumer",
		"loses its client", "does not exist"}
	r := run.New(run.Options{DB: db, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now, NewID: uuid.New,
		Agents: []run.Agent{
			agent("answers", time.Minute, replies("hello ", "world")),
			agent("asks for tools", time.Minute, calls("x", tool, tool), replies("done")),
			agent("breaks", time.Minute, fails(errors.New("broken"), "x")),
			agent("is slow", 5*time.Millisecond, hangs(nil, "x")),
			agent("is cancelled", time.Minute, hangs(nil, "x")),
			agent("loses its consumer", time.Minute, replies("hello ", "world")),
			agent("loses its client", time.Minute, replies("hello ", "world")),
		}})

	const each = 25
	var mu sync.Mutex
	ended := map[string]int{}
	todo := make(chan string)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for id := range todo {
				end := runOne(r, id)
				mu.Lock()
				ended[id+": "+end]++
				mu.Unlock()
			}
		})
	}
	for range each {
		for _, id := range ids {
			todo <- id
		}
	}
	close(todo)
	wg.Wait()
	if err := r.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	want := map[string]int{
		"answers: RunCompleted": each, "asks for tools: RunCompleted": each,
		"breaks: RunError": each, "is slow: RunError": each, "is cancelled: RunCancelled": each,
		"loses its consumer: RunStarted": each, "loses its client: RunCompleted": each,
		"does not exist: Agent not found": each,
	}
	if diff := cmp.Diff(want, ended); diff != "" {
		t.Error(diff)
	}
	runs, err := db.Runs(t.Context(), ann, store.RunQuery{SessionID: "s"})
	if err != nil {
		t.Fatal(err)
	}
	statuses := map[string]int{}
	for _, row := range runs {
		statuses[row.AgentID+": "+row.Status]++
	}
	want = map[string]int{
		"answers: COMPLETED": each, "asks for tools: COMPLETED": each, "breaks: ERROR": each, "is slow: ERROR": each,
		"is cancelled: CANCELLED": each, "loses its consumer: COMPLETED": each, "loses its client: COMPLETED": each,
	}
	if diff := cmp.Diff(want, statuses); diff != "" {
		t.Error(diff)
	}
	s, err := db.Session(t.Context(), ann, "s", "")
	// two answers of "asks for tools", and one of three other agents
	if err != nil || len(s.Usage) != 1 || s.Usage[0].Total != 15*5*each {
		t.Errorf("%+v %v", s.Usage, err)
	}
	db.Close()
	// Each Find polls for up to a second.
	for end := time.Now().Add(20 * time.Second); goleak.Find(before) != nil && time.Now().Before(end); {
	}
	goleak.VerifyNone(t, before)
}

// runOne runs an agent as its name says, and returns the name of the last event that the consumer received.
func runOne(r *run.Runner, id string) (end string) {
	ctx, disconnect := context.WithCancel(context.Background())
	defer disconnect()
	for e, err := range r.Run(ctx, run.Input{AgentID: id, Owner: "ann", SessionID: "s", Message: "hi"}) {
		if e.Event == nil {
			return err.Error()
		}
		end = e.Name()
		switch part, _ := e.Event.(wire.Content); {
		case id == "loses its consumer":
			return end
		case id == "loses its client":
			disconnect()
		case id == "is cancelled" && part.RunID != "":
			if found, err := r.Cancel(ctx, ann, uuid.MustParse(part.RunID)); err != nil || !found {
				return "not cancelled"
			}
		}
	}
	return end
}
