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

// always is a model that gives the same answers, in turn, to every run.
type always struct{ answers []answer }

func (m always) Describe() model.Description { return (&scripted{}).Describe() }

func (m always) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	asked := 0 // answers given in this run
	for _, message := range r.Messages {
		if message.Role == model.Assistant {
			asked++
		}
	}
	return (&scripted{answers: m.answers[asked:]}).Stream(ctx, r)
}

// Runs of every kind of end leave no goroutine and no row in progress. Not
// parallel: goroutines of other tests would count.
func TestNothingIsLeftAfterManyRuns(t *testing.T) { //nolint:paralleltest // see above
	url := storetest.URL(t)
	before := goleak.IgnoreCurrent()
	db := storetest.Open(t, store.Options{URL: url, MaxConns: 4})
	tool := model.ToolCall{ID: "c", Name: "search"}
	agent := func(id string, timeout time.Duration, answers ...answer) run.Agent {
		return run.Agent{Agent: config.Agent{ID: id, Name: id, Timeout: timeout}, Model: always{answers}}
	}
	ids := []string{"answers", "asks for tools", "breaks", "is slow", "is cancelled", "is not heard", "is left", "isn't there"}
	r := run.New(run.Options{DB: db, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now, NewID: uuid.New, Agents: []run.Agent{
		agent("answers", time.Minute, says("hello ", "world")),
		agent("asks for tools", time.Minute, calls("x", tool, tool), says("done")),
		agent("breaks", time.Minute, fails(errors.New("broken"), "x")),
		agent("is slow", 5*time.Millisecond, hangs(nil, "x")),
		agent("is cancelled", time.Minute, hangs(nil, "x")),
		agent("is not heard", time.Minute, says("hello ", "world")),
		agent("is left", time.Minute, says("hello ", "world")),
	}})

	const each = 25
	var mu sync.Mutex
	ended := map[string]int{}
	todo := make(chan string)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for id := range todo {
				end := carry(r, id)
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
		"answers: RunCompleted": each, "asks for tools: RunCompleted": each, "breaks: RunError": each, "is slow: RunError": each,
		"is cancelled: RunCancelled": each, "is not heard: RunStarted": each, "is left: RunCompleted": each, "isn't there: Agent not found": each,
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
		"is cancelled: CANCELLED": each, "is not heard: COMPLETED": each, "is left: COMPLETED": each,
	}
	if diff := cmp.Diff(want, statuses); diff != "" {
		t.Error(diff)
	}
	s, err := db.Session(t.Context(), ann, "s", "")
	if err != nil || len(s.Usage) != 1 || s.Usage[0].Total != 15*5*each { // two answers of those who ask for tools, one of three other kinds
		t.Errorf("%+v %v", s.Usage, err)
	}
	db.Close()
	for end := time.Now().Add(20 * time.Second); goleak.Find(before) != nil && time.Now().Before(end); { // each looks for a second
	}
	goleak.VerifyNone(t, before)
}

// carry runs an agent the way its name says, and tells the last event heard.
func carry(r *run.Runner, id string) (end string) {
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	for e, err := range r.Run(ctx, run.Input{AgentID: id, Owner: "ann", SessionID: "s", Message: "hi"}) {
		if e.Event == nil {
			return err.Error()
		}
		end = e.Name()
		switch said, _ := e.Event.(wire.Content); {
		case id == "is not heard":
			return end
		case id == "is left":
			leave()
		case id == "is cancelled" && said.RunID != "":
			if found, err := r.Cancel(ctx, ann, uuid.MustParse(said.RunID)); err != nil || !found {
				return "not cancelled"
			}
		}
	}
	return end
}
