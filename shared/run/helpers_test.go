package run_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/queue/local"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "6") // Most tests wait rather than compute. The flag -parallel still has precedence.
	os.Exit(storetest.Main(m))
}

// scripted is a model that gives its answers in turn, and then repeats the last one.
type scripted struct {
	answers  []answer
	mu       sync.Mutex
	received []model.Request
}

// answer sends the parts of one answer. An error ends the stream. send returns false if the runner has stopped
// iterating.
type answer func(ctx context.Context, send func(model.Part) bool) error

func (s *scripted) Describe() model.Description {
	return model.Description{ID: "m-1", Name: "Scripted", Provider: "Test", Family: "Test Chat"}
}

func (s *scripted) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) { s.Ask(ctx, r)(yield) }
}

// Ask implements model.Asker, so that the tests of this package send first calls while their runs begin.
func (s *scripted) Ask(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	s.mu.Lock()
	play := s.answers[min(len(s.received), len(s.answers)-1)]
	s.received = append(s.received, model.Request{Messages: append([]model.Message{}, r.Messages...), Tools: r.Tools,
		Whole: r.Whole})
	s.mu.Unlock()
	return func(yield func(model.Part, error) bool) {
		if err := play(ctx, func(p model.Part) bool { return yield(p, nil) }); err != nil {
			yield(model.Part{}, err)
		}
	}
}

// requests returns the requests that the model has received.
func (s *scripted) requests() []model.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]model.Request{}, s.received...)
}

var usage = model.Usage{Input: 10, Output: 5, Total: 15, Reasoning: 2, CacheRead: 3, CacheWrite: 1}

// replies is an answer in several parts.
func replies(pieces ...string) answer {
	return func(_ context.Context, send func(model.Part) bool) error {
		for _, text := range pieces {
			if !send(model.Part{Text: text, ProviderData: json.RawMessage(`{"id": "answer"}`)}) {
				return nil
			}
		}
		send(model.Part{End: &model.End{Usage: usage, FinishReason: "stop"}})
		return nil
	}
}

// calls is an answer with text and tool calls.
func calls(text string, wanted ...model.ToolCall) answer {
	return func(_ context.Context, send func(model.Part) bool) error {
		if text == "" || send(model.Part{Text: text}) {
			send(model.Part{End: &model.End{Usage: usage, ToolCalls: wanted, FinishReason: "tool_calls"}})
		}
		return nil
	}
}

// fails is an answer that breaks off after some parts.
func fails(err error, pieces ...string) answer {
	return func(_ context.Context, send func(model.Part) bool) error {
		for _, text := range pieces {
			send(model.Part{Text: text})
		}
		return err
	}
}

// hangs is an answer that sends a first part and then waits until proceed is closed or the run is stopped.
func hangs(proceed <-chan struct{}, begin string) answer {
	return func(ctx context.Context, send func(model.Part) bool) error {
		send(model.Part{Text: begin})
		select {
		case <-proceed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return replies(" and the rest")(ctx, send)
	}
}

// bench is a runner with a database of its own.
type bench struct {
	t      testing.TB
	url    string
	db     *store.DB
	model  *scripted
	runner *run.Runner
}

// newBench makes a runner with one agent, "a", whose model gives these answers.
func newBench(t testing.TB, answers ...answer) *bench {
	t.Helper()
	return newBenchFor(t, config.Agent{}, answers...)
}

// newBenchFor is newBench for an agent with further settings.
func newBenchFor(t testing.TB, a config.Agent, answers ...answer) *bench {
	t.Helper()
	return newBenchWith(t, a, nil, answers...)
}

// newBenchWith is newBenchFor an agent with tools.
func newBenchWith(t testing.TB, a config.Agent, tools []tool.Set, answers ...answer) *bench {
	t.Helper()
	b := &bench{t: t, url: storetest.URL(t), model: &scripted{answers: answers}}
	b.db = open(t, b.url)
	b.runner = newRunner(b.db, a, b.model, tools...)
	return b
}

// withModel is a bench with another runner and model on the same database, like another process.
func (b *bench) withModel(t testing.TB, a config.Agent, answers ...answer) *bench {
	t.Helper()
	next := &bench{t: t, url: b.url, db: b.db, model: &scripted{answers: answers}}
	next.runner = newRunner(b.db, a, next.model)
	return next
}

func open(t testing.TB, url string) *store.DB {
	t.Helper()
	return storetest.Open(t, store.Options{URL: url})
}

func newRunner(db *store.DB, a config.Agent, m model.Model, tools ...tool.Set) *run.Runner {
	return newRunnerLogging(db, a, m, io.Discard, tools...)
}

// syncLog is a log that a test can read while it is written.
type syncLog struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *syncLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *syncLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newRunnerLogging(db *store.DB, a config.Agent, m model.Model, log io.Writer, tools ...tool.Set) *run.Runner {
	return run.New(options(db, a, m, log, tools...))
}

// options are those of a runner that uses the local queue and allows every claimed run.
func options(db *store.DB, a config.Agent, m model.Model, log io.Writer, tools ...tool.Set) run.Options {
	a.ID, a.Name = "a", "Agent A"
	if a.Timeout == 0 {
		a.Timeout = time.Minute
	}
	return run.Options{
		DB: db, Agents: []run.Agent{{Agent: a, Model: m, Tools: tools}}, Log: slog.New(slog.NewTextHandler(log,
			nil)), Now: time.Now, NewID: uuid.New,
		Queue: local.New(db), Admit: func(run.Caller) error { return nil },
	}
}

// startWorker lets the bench's runner execute pending runs, at most limit at the same time, until the test ends.
func (b *bench) startWorker(limit int) {
	b.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		queue.Work(ctx, local.New(b.db), slog.New(slog.NewTextHandler(io.Discard, nil)), limit, b.runner.Claim)
	}()
	b.t.Cleanup(func() { stop(); <-ended })
}

// run runs agent "a" for ann in session s and returns the events.
func (b *bench) run(message string) []run.Event {
	b.t.Helper()
	return b.collect(b.runner.Run(b.t.Context(), run.Input{AgentID: "a", Owner: "ann", SessionID: "s", Message: message}))
}

// collect returns all events and checks the rules of a sequence: there is no error, the indices have no gap, the heads
// are equal, and the last event alone has the result.
func (b *bench) collect(seq iter.Seq2[run.Event, error]) (list []run.Event) {
	b.t.Helper()
	for e, err := range seq {
		if err != nil {
			b.t.Fatalf("after %s: %v", names(list), err)
		}
		list = append(list, e)
	}
	for i, e := range list {
		data := members(b.t, e)
		if data["event_index"] != float64(i) || data["event"] != e.Name() || data["agent_id"] != "a" ||
			data["agent_name"] != "Agent A" || data["run_id"] != members(b.t, list[0])["run_id"] {
			b.t.Errorf("event %d of %s: %v", i, names(list), data)
		}
		if (e.Result != nil) != (i == len(list)-1) {
			b.t.Errorf("event %d of %s has a result: %t", i, names(list), e.Result != nil)
		}
	}
	if len(list) == 0 {
		b.t.Fatal("no events")
	}
	return list
}

// members returns the JSON members of an event, as a client receives them.
func members(t testing.TB, e run.Event) (out map[string]any) {
	t.Helper()
	data, err := wire.Marshal(e.Event)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func decode(t testing.TB, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
}

func names(list []run.Event) string {
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func last(list []run.Event) run.Event { return list[len(list)-1] }

// row returns the row of a run.
func (b *bench) row(runID string) store.Run {
	b.t.Helper()
	r, err := b.db.Run(context.Background(), store.Viewer{All: true}, store.RunQuery{RunID: runID})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// storedMessages returns the messages of a row as "role: content".
func storedMessages(t testing.TB, r store.Run) (lines []string) {
	t.Helper()
	var list []wire.Message
	if err := json.Unmarshal(r.Messages, &list); err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		lines = append(lines, m.Role+": "+m.Content)
	}
	return lines
}

// sql changes the database without the store.
func (b *bench) sql(text string, args ...any) {
	b.t.Helper()
	conn, err := pgx.Connect(context.Background(), b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), text, args...); err != nil {
		b.t.Fatal(err)
	}
}

// count counts the rows of a table.
func (b *bench) count(table string) (n int) {
	b.t.Helper()
	conn, err := pgx.Connect(context.Background(), b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(context.Background(), fmt.Sprintf("SELECT count(*) FROM keyway.%s",
		table)).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// tokens returns the total tokens of a run.
func tokens(t testing.TB, r *wire.Run) int {
	t.Helper()
	var m wire.Metrics
	decode(t, r.Metrics, &m)
	return m.TotalTokens
}

func lastMessage(t testing.TB, r *wire.Run) wire.Message {
	t.Helper()
	var list []wire.Message
	decode(t, r.Messages, &list)
	return list[len(list)-1]
}

var agentOnly config.Agent

func tools(list ...tool.Tool) (sets []tool.Set) {
	for _, t := range list {
		sets = append(sets, t)
	}
	return sets
}

var callIDForm = regexp.MustCompile(`^call_[0-9a-f]{32}$`)

// callIDs returns the ids of the calls that a message requests. It checks that they are ours and that no two are equal.
func callIDs(t testing.TB, m model.Message) (ids []string) {
	t.Helper()
	for _, c := range m.ToolCalls {
		if !callIDForm.MatchString(c.ID) || slices.Contains(ids, c.ID) {
			t.Errorf("the call of %s has the id %q, after %q", c.Name, c.ID, ids)
		}
		ids = append(ids, c.ID)
	}
	if len(ids) == 0 {
		t.Fatalf("no calls: %+v", m)
	}
	return ids
}

// modelMessage returns a stored message of a run with its calls.
func modelMessage(t testing.TB, r *wire.Run, i int) (m model.Message) {
	t.Helper()
	var list []wire.Message
	decode(t, r.Messages, &list)
	for _, c := range list[i].ToolCalls {
		m.ToolCalls = append(m.ToolCalls, model.ToolCall{
			ID: c.ID, Name: c.Function.Name, Arguments: c.Function.Arguments,
		})
	}
	return m
}

// waitingIDs returns the ids of the calls that a paused run waits for.
func waitingIDs(t testing.TB, r *wire.Run) (ids []string) {
	t.Helper()
	var waiting []wire.Requirement
	decode(t, r.Requirements, &waiting)
	for _, w := range waiting {
		ids = append(ids, w.ToolExecution.ToolCallID)
	}
	if len(ids) == 0 {
		t.Fatalf("the run waits for no call: %+v", r)
	}
	return ids
}

// decide continues a paused run with answers. Their key "c" stands for the first call that the run waits for.
func decide(t testing.TB, r *wire.Run, answers run.Answers) run.Continuation {
	t.Helper()
	answers = maps.Clone(answers)
	if answer, ok := answers["c"]; ok {
		delete(answers, "c")
		answers[waitingIDs(t, r)[0]] = answer
	}
	return run.Continuation{Answers: answers}
}

// approve confirms the first call that a paused run waits for.
func approve(t testing.TB, r *wire.Run) run.Continuation {
	t.Helper()
	return decide(t, r, run.Answers{"c": {Confirmed: new(true)}})
}
